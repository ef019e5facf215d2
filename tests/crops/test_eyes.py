import cv2
import numpy as np
import pytest

from faceswap.crops.eyes import (
    LENGTH,
    RADIUS,
    eye_frame,
    gaze,
    irises,
    open_to,
    opening,
    slide,
)

LIDS = [(0, 0), (0.3, -0.17), (0.7, -0.17), (1, 0), (0.7, 0.15), (0.3, 0.15)]  # in eye lengths


def drawn(offset, length=40, degrees=0.0, light=False):
    """A face of two white eyes on grey skin, irises ``offset`` eye lengths from the middle."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    image = np.full((200, 240, 3), 150, np.uint8)
    points = np.zeros((68, 2), np.float32)
    for first, corner in ((36, (50, 90)), (42, (140, 90))):
        eye = np.array(corner) + length * np.array(LIDS) @ turn.T
        points[first : first + 6] = eye
        white = np.zeros((200, 240), np.uint8)
        cv2.fillConvexPoly(white, eye.round().astype(np.int32), 255, cv2.LINE_AA)
        center = eye[[0, 3]].mean(axis=0) + offset * length * turn[:, 0]
        disc = np.zeros_like(white)
        place, radius = (center * 16).round().astype(int), round(RADIUS * length * 16)
        cv2.circle(disc, tuple(place.tolist()), radius, 255, -1, cv2.LINE_AA, 4)
        share, dark = white[..., None] / 255, disc[..., None] / 255
        color = 230 * (1 - dark) + 40 * dark
        image = (image * (1 - share) + color * share).round().astype(np.uint8)
        if light:
            cv2.circle(image, tuple(center.round().astype(int).tolist()), 1, (255, 255, 255), -1)
    return image, points


@pytest.mark.parametrize("offset", [-0.2, -0.1, 0.0, 0.15, 0.25])
@pytest.mark.parametrize("degrees", [0, 20, -15])
def test_gaze_is_the_position_of_the_iris(offset, degrees):
    assert gaze(irises(*drawn(offset, degrees=degrees))) == pytest.approx(offset, abs=0.03)


def test_gaze_does_not_depend_on_the_size_of_the_eye():
    assert gaze(irises(*drawn(0.15, length=20))) == pytest.approx(0.15, abs=0.05)


def test_catch_light_is_the_bright_spot_of_the_iris():
    dull, bright = (irises(*drawn(0.0, light=light)) for light in (False, True))

    assert all(iris.catch_light < 30 for iris in dull)
    assert all(iris.catch_light > 80 for iris in bright)


def test_closed_eye_has_no_iris():
    image, points = drawn(0.0)
    points[[37, 38, 40, 41], 1] = 90
    points[[43, 44, 46, 47], 1] = 90

    assert irises(image, points) == [None, None]
    assert np.isnan(gaze(irises(image, points)))


def test_eye_frame_puts_the_corners_on_a_horizontal_line():
    _, points = drawn(0.0, degrees=30)
    eye = points[36:42]

    corners = eye[[0, 3]] @ eye_frame(eye)[:, :2].T + eye_frame(eye)[:, 2]

    np.testing.assert_allclose(corners[1] - corners[0], [LENGTH, 0], atol=1e-4)


@pytest.mark.parametrize(("start", "end"), [(-0.1, 0.12), (0.15, -0.05), (0.0, 0.0)])
@pytest.mark.parametrize("degrees", [0, 20])
def test_slid_iris_looks_where_it_should(start, end, degrees):
    image, points = drawn(start, degrees=degrees)

    slid = slide(image, points, [iris.along for iris in irises(image, points)], end)

    assert gaze(irises(slid, points)) == pytest.approx(end, abs=0.05)


def test_sliding_changes_only_the_eyes():
    image, points = drawn(-0.1)

    slid = slide(image, points, [-0.1, None], 0.1)

    changed = np.argwhere((slid != image).any(axis=2))
    assert len(changed)
    assert changed[:, 1].max() < 110  # the other eye, whose iris is unknown, stays as it is


def test_iris_never_slides_out_of_the_eye():
    image, points = drawn(0.1)

    far, farther = (slide(image, points, [0.1, 0.1], target) for target in (2.0, 9.0))

    np.testing.assert_array_equal(far, farther)
    assert gaze(irises(far, points)) < 0.35


def test_opening_is_measured_in_eye_lengths_and_can_be_set():
    _, points = drawn(0.0, degrees=25)
    corners = points[[36, 39, 42, 45]].copy()
    assert opening(points) == pytest.approx(0.32, abs=0.01)

    open_to(points, 0.1)

    assert opening(points) == pytest.approx(0.1, abs=1e-5)
    np.testing.assert_array_equal(points[[36, 39, 42, 45]], corners)
