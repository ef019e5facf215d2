from itertools import pairwise

import cv2
import numpy as np
import pytest

from faceswap.arrays import NEUTRAL
from faceswap.crops import eyes
from faceswap.crops.guidance import Guide, Look, from_view, to_view
from faceswap.faces.geometry import align_face
from faceswap.media.frame import Frame
from faceswap.models.exemplars import Exemplars

VIEW, SIDE = 0.8, 240
IDENTITY = np.eye(137, 136, dtype=np.float32)
UNKNOWN = np.full((2, 2), np.nan, np.float32)


@pytest.fixture(scope="module")
def crop(collins, collins_face):
    from fractions import Fraction
    from pathlib import Path

    frame = Frame(collins, 0, Fraction(0), Path())
    return align_face(frame, collins_face, 256, 0.625)


@pytest.fixture(scope="module")
def points(crop):
    from faceswap.faces.geometry import transform

    return to_view(transform(crop.face.landmarks, crop.matrix), 256, VIEW)


def guide(crops, points, painted=IDENTITY, usual=UNKNOWN):
    return Guide(Exemplars(crops, np.stack(points), painted, usual), VIEW, SIDE)


def network_crop(image, side):
    return cv2.resize(image[26:230, 26:230], (side, side), interpolation=cv2.INTER_AREA)


def inner(image, margin=30):
    return image[margin:-margin, margin:-margin].astype(np.float32)


def test_view_is_the_middle_of_the_crop():
    corners = np.array([[25.1, 25.1], [229.9, 229.9]], np.float32)  # edges at 25.6 and 230.4

    np.testing.assert_allclose(to_view(corners, 256, VIEW), [[0, 0], [1, 1]], atol=1e-5)
    np.testing.assert_allclose(from_view(to_view(corners, 256, VIEW), 256, VIEW), corners)


def test_detail_of_an_even_photo_is_neutral(points):
    flat = np.full((256, 256, 3), 90, np.uint8)

    assert (guide([flat], [points]).detail(0, Look(points, np.nan)) == NEUTRAL).all()


def test_detail_does_not_depend_on_the_light(crop, points):
    dim = (crop.image * 0.6).round().astype(np.uint8)

    bright, dark = (
        guide([image], [points]).detail(0, Look(points, np.nan)) for image in (crop.image, dim)
    )

    assert np.abs(inner(bright) - inner(dark)).mean() < 3  # of 127 levels for half as bright again


def test_detail_follows_the_landmarks(crop, points):
    """Detail laid over moved landmarks is the detail moved as far."""
    there = guide([crop.image], [points]).detail(0, Look(points, np.nan))
    step = np.float32(6 / SIDE)
    moved = guide([crop.image], [points]).detail(0, Look(points + step, np.nan))

    expected = np.roll(there, (6, 6), axis=(0, 1))
    assert np.abs(inner(moved, 60) - inner(expected, 60)).mean() < 4
    assert np.abs(inner(moved, 60) - inner(there, 60)).mean() > 12


def test_nearest_photo_is_the_one_of_the_same_face(crop, points):
    open_mouth = points.copy()
    open_mouth[55:60, 1] += 0.08
    turned = points * [0.8, 1] + [0.15, 0]
    looks = [np.asarray(p, np.float32) for p in (open_mouth, points, turned)]

    distances = guide([crop.image] * 3, looks).distances(points, network_crop(crop.image, 80))

    assert distances.argmin() == 1
    assert distances[1] < 0.2 * distances[[0, 2]].min()


def test_eyes_of_the_photo_replace_painted_ones(crop, points):
    photo = crop.image
    painted = cv2.GaussianBlur(network_crop(photo, 200), (0, 0), 6)

    laid = guide([photo], [points]).eyes_on(painted, 0, Look(points, np.nan))

    real, inside = network_crop(photo, 200).astype(np.float32), np.zeros((200, 200), np.uint8)
    for eye in eyes.EYES:
        inside |= cv2.fillConvexPoly(
            np.zeros_like(inside), cv2.convexHull((points[eye] * 200).round().astype(np.int32)), 1
        )
    before, after = (np.abs(image - real)[inside > 0].mean() for image in (painted, laid))
    assert after < 0.4 * before
    mouth = slice(130, 200)
    np.testing.assert_array_equal(laid[mouth], painted[mouth])


def test_laid_eyes_look_where_the_face_looks(crop, points):
    face = network_crop(crop.image, 240)
    person = guide([crop.image], [points])
    pixels = points * 240 - 0.5

    found = [eyes.gaze(eyes.irises(person.eyes_on(face, 0, Look(points, g)), pixels))
             for g in (-0.15, 0.0, 0.15)]  # fmt: skip

    assert found[0] < found[1] - 0.07 < found[2] - 0.14


def test_painted_features_follow_the_map_and_the_usual_looks(crop, points):
    shifted = IDENTITY.copy()
    shifted[136, 1::2] = 0.01  # 1 % downwards
    opening = eyes.opening(points)
    usual = np.array([[0.05, opening], [-0.02, 0.2]], np.float32)

    painted = guide([crop.image], [points], shifted, usual).painted(Look(points, 0.1))

    assert painted.gaze == pytest.approx(0.03, abs=1e-6)
    np.testing.assert_allclose(painted.points[27], points[27] + [0, 0.01], atol=1e-6)
    assert eyes.opening(painted.points) == pytest.approx(0.2, abs=1e-3)


def test_closed_eyes_close_the_painted_ones(crop, points):
    usual = np.array([[0, eyes.opening(points)], [0, 0.3]], np.float32)
    person = guide([crop.image], [points], IDENTITY, usual)
    openings = []
    for share in (1.2, 1.0, 0.9, 0.7, 0.62, 0.4):
        blinking = points.copy()
        eyes.open_to(blinking, share * eyes.opening(points))
        openings.append(eyes.opening(person.painted(Look(blinking, 0.0)).points))

    np.testing.assert_allclose(openings[:3], [0.36, 0.3, 0.27], atol=1e-3)
    assert openings[3] < 0.6 * 0.3
    np.testing.assert_allclose(openings[4:], 0.03, atol=1e-3)


def with_opening(points, gap):
    """Open the mouth by a share of the network crop."""
    moved = points.copy()
    moved[60:68, 1] = points[[60, 64], 1].mean()
    moved[61:64, 1] -= gap / 2
    moved[65:68, 1] += gap / 2
    moved[55:60, 1] += gap / 2
    moved[49:54, 1] -= gap / 2
    return moved


@pytest.fixture(scope="module")
def mouths(crop, points):
    """A guide of three photos: closed lips with the detail of a photo, two others with noise."""
    random = np.random.default_rng(0)
    noise = [random.integers(0, 255, (256, 256, 3), np.uint8) for _ in range(2)]
    gaps = (0.0, 0.06, 0.12)
    return guide([crop.image, *noise], [with_opening(points, gap) for gap in gaps])


def in_video(mouths, points, gap):
    face = np.full((120, 120, 3), 90, np.uint8)
    return mouths.lay_in_video(Look(with_opening(points, gap), np.nan), face)


def middle(detail, points):
    """The middle of the mouth."""
    x, y = (points[[60, 64]].mean(0) * SIDE).astype(int)
    return detail[y - 3 : y + 4, x - 5 : x + 6].astype(np.float32)


@pytest.mark.parametrize(("gap", "number"), [(0.0, 0), (0.06, 1), (0.12, 2), (0.3, 2)])
def test_mouth_in_a_video_comes_from_a_photo_as_open(mouths, points, gap, number):
    look = Look(with_opening(points, gap), np.nan)

    laid, detail = in_video(mouths, points, gap)

    first = mouths.lay(0, look, np.full((120, 120, 3), 90, np.uint8))
    wanted = mouths.detail(number, look)
    assert np.abs(middle(detail, points) - middle(wanted, points)).max() <= 1
    above = slice(0, int(points[36:48, 1].min() * SIDE))
    assert (detail[above] == first[1][above]).all()  # skin and eyes stay those of the first photo
    assert (laid == first[0]).all()


def test_mouth_in_a_video_changes_without_a_jump(mouths, points):
    gaps = np.linspace(0, 0.14, 57)

    details = [in_video(mouths, points, gap)[1].astype(np.float32) for gap in gaps]

    steps = [np.abs(b - a).mean() for a, b in pairwise(details)]
    whole = np.abs(details[-1] - details[0]).mean()
    assert max(steps) < 0.25 * whole


def test_only_photo_is_used_for_mouths_too(crop, points):
    alone = guide([crop.image], [points])
    look, face = Look(with_opening(points, 0.1), np.nan), np.full((120, 120, 3), 90, np.uint8)

    for one, other in zip(alone.lay_in_video(look, face), alone.lay(0, look, face), strict=True):
        assert (one == other).all()
