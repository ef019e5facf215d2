import numpy as np
import pytest

from faceswap.errors import AlignmentError
from faceswap.faces.geometry import (
    Box,
    compose,
    face_matrix,
    invert,
    is_one_step,
    mean_face,
    scale_of,
    square_to_crop,
    transform,
    umeyama,
    warp_image,
)
from faceswap.models.architectures import PRESETS
from faceswap.models.sampling import output_to_crop


def similarity(random):
    angle, scale = random.uniform(-np.pi, np.pi), random.uniform(0.1, 10)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    x, y = random.uniform(-500, 500, 2)
    return np.array([[cos, -sin, x], [sin, cos, y]])


@pytest.mark.parametrize("seed", range(20))
def test_umeyama_recovers_a_random_similarity(seed):
    random = np.random.default_rng(seed)
    points = random.uniform(0, 640, (51, 2)).astype(np.float32)
    true = similarity(random)

    found = umeyama(points, transform(points, true))

    np.testing.assert_allclose(found, true, rtol=1e-4, atol=1e-2)


def test_umeyama_never_mirrors_a_face():
    points = np.random.default_rng(0).uniform(0, 640, (68, 2)).astype(np.float32)
    mirrored = points * np.float32([-1, 1])

    assert np.linalg.det(umeyama(points, mirrored)[:, :2]) > 0


def test_umeyama_is_the_least_squares_optimum():
    random = np.random.default_rng(1)
    source, target = random.normal(0, 50, (2, 51, 2)).astype(np.float32)
    best = umeyama(source, target)

    def error(matrix):
        return ((transform(source, matrix) - target) ** 2).sum()

    nudges = random.normal(0, 1e-2, (50, 2, 3))
    for nudge in nudges:  # each nudge stays a similarity
        a, b, x, y = nudge[0, 0], nudge[0, 1], nudge[0, 2], nudge[1, 2]
        assert error(best + np.array([[a, -b, x], [b, a, y]])) >= error(best)


def test_umeyama_refuses_coincident_points():
    with pytest.raises(AlignmentError, match="coincide"):
        umeyama(np.ones((5, 2), np.float32), np.ones((5, 2), np.float32))


def test_umeyama_refuses_unequal_shapes():
    with pytest.raises(AlignmentError, match=r"\(5, 2\)"):
        umeyama(np.zeros((5, 2), np.float32), np.zeros((4, 2), np.float32))


def test_invert_gives_the_inverse():
    matrix = similarity(np.random.default_rng(2))

    np.testing.assert_allclose(compose(invert(matrix), matrix), [[1, 0, 0], [0, 1, 0]], atol=1e-9)


def test_square_covers_the_middle_160_of_256_pixels():
    corners = transform(np.float32([[0, 0], [1, 1]]), square_to_crop(256, 0.625))

    np.testing.assert_allclose(corners, [[47.5, 47.5], [207.5, 207.5]])


def test_mean_face_is_symmetric_and_inside_its_square():
    points = mean_face()

    assert points.shape == (51, 2)
    assert points.min() > 0
    assert points.max() < 1
    assert points[:, 0].mean() == pytest.approx(0.5, abs=1e-3)
    assert points[0, 0] + points[9, 0] == pytest.approx(1, abs=1e-3)  # outer ends of the brows


def test_face_matrix_aligns_a_face_with_the_mean_face(collins_face):
    matrix = face_matrix(collins_face.landmarks, 256, 0.625)

    aligned = transform(collins_face.landmarks[17:], matrix)
    expected = transform(mean_face(), square_to_crop(256, 0.625))
    assert np.linalg.norm(aligned - expected, axis=1).mean() < 8  # pixels in a 256 px crop


def test_output_to_crop_maps_pixel_centres_exactly():
    matrix = output_to_crop(PRESETS["small"], 256)  # 80 px over the middle 204.8: 2.56 px each

    np.testing.assert_allclose(
        transform(np.float32([[0, 0], [79, 79]]), matrix), [[26.38] * 2, [228.62] * 2], rtol=1e-5
    )


def test_output_to_crop_uses_the_classic_offset():
    matrix = output_to_crop(PRESETS["original"], 256)

    np.testing.assert_allclose(transform(np.float32([[0, 0]]), matrix), [[48, 48]], atol=1e-4)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (Box(40, 0, 140, 100), True),  # 0.4 of a side
        (Box(41, 0, 141, 100), False),
        (Box(-12, -12, 112, 112), True),  # 1.24 times as large
        (Box(-15, -15, 115, 115), False),
        (Box(12, 12, 88, 88), False),  # 1 / 1.32
        (Box(-51, 10, 49, 110), False),  # its centre is outside the image
    ],
)
def test_is_one_step_limits_motion_and_growth(after, expected):
    assert is_one_step(Box(0, 0, 100, 100), after, np.zeros((200, 300, 3), np.uint8)) is expected


def test_warp_averages_pixels_when_shrinking():
    board = np.indices((512, 512)).sum(axis=0) % 2 * 255  # a checkerboard of single pixels
    image = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    matrix = np.array([[1 / 8, 0, -7 / 16], [0, 1 / 8, -7 / 16]])

    small = warp_image(image, matrix, 64, 64)

    assert scale_of(matrix) == pytest.approx(1 / 8)
    assert np.abs(small[4:-4, 4:-4].astype(int) - 127).max() <= 2
