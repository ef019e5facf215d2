import numpy as np
import pytest

from faceswap.evaluation import metrics, texture
from faceswap.evaluation.metrics import (
    IdentityScale,
    Scorer,
    Seam,
    eye_aspect_ratio,
    measure_face,
    nme,
)
from faceswap.faces.expressions import mouth_aspect_ratio
from faceswap.faces.pose import head_shape


@pytest.fixture
def points(collins_face):
    return collins_face.landmarks


def rotated(points, degrees):
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    center = points.mean(axis=0)
    return ((points - center) @ matrix.T + center).astype(np.float32)


def test_nme_of_a_shift_is_relative_to_the_eye_distance(points):
    eyes = np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0))

    assert nme(points, points) == 0
    assert nme(points, points + np.float32([0.1 * eyes, 0])) == pytest.approx(0.1, rel=1e-4)
    assert nme(3 * points, 3 * (points + 1)) == pytest.approx(nme(points, points + 1), rel=1e-4)


@pytest.mark.parametrize("degrees", [-20, 5, 30])
def test_pose_error_is_the_angle_of_rotation(points, degrees):
    assert metrics.pose_error(points, points) == pytest.approx(0, abs=0.01)
    assert metrics.pose_error(points, rotated(points, degrees)) == pytest.approx(
        abs(degrees), abs=1.0
    )


def test_aspect_ratios_measure_the_opening(points):
    closed = points.copy()
    closed[[37, 38, 43, 44]] = closed[[41, 40, 47, 46]]  # move the upper lids onto the lower ones
    closed[[61, 62, 63]] = closed[[67, 66, 65]]

    assert eye_aspect_ratio(points) > 0.15
    assert eye_aspect_ratio(closed) == pytest.approx(0, abs=1e-6)
    assert mouth_aspect_ratio(closed) == pytest.approx(0, abs=1e-6)
    assert mouth_aspect_ratio(2 * points) == pytest.approx(mouth_aspect_ratio(points), rel=1e-5)


def test_scaled_margin_is_0_for_own_faces_and_1_for_others():
    random = np.random.default_rng(0)
    own, other = np.zeros(128, np.float32), np.full(128, 0.1, np.float32)

    def faces(around):
        return list(around + random.normal(0, 0.01, (5, 128)).astype(np.float32))

    own_faces, other_faces = faces(own), faces(other)
    scale = IdentityScale(own, other, own_faces, other_faces)

    assert np.mean([scale.scaled(face) for face in own_faces]) == pytest.approx(0, abs=1e-6)
    assert np.mean([scale.scaled(face) for face in other_faces]) == pytest.approx(1, abs=1e-6)
    assert scale.scaled((own + other) / 2) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("yaw", [-25, 10, 40])
def test_pose_error_measures_yaw(yaw):
    angle = np.radians(yaw)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    seen = (head_shape() @ turn.T)[:, :2].astype(np.float32) * 100 + 200
    ahead = head_shape()[:, :2].astype(np.float32) * 100 + 200

    assert metrics.pose_error(ahead, seen) == pytest.approx(abs(yaw), abs=4)


def disk(size=128, radius=40):
    y, x = np.mgrid[:size, :size]
    return (np.hypot(x - size / 2, y - size / 2) < radius).astype(np.float32)


def test_unchanged_crop_has_no_seam(collins):
    crop = np.ascontiguousarray(collins[:128, :128])

    assert metrics.seam(crop, crop, disk()) == Seam(0.0, 0.0, 0.0, pytest.approx(1.0))


def test_seam_of_a_brighter_disk_is_its_color_step():
    grey = np.full((128, 128, 3), 100, np.uint8)
    mask = disk()
    brighter = np.where(mask[..., None] > 0, np.uint8(120), grey)

    found = metrics.seam(grey, brighter, mask)

    assert 6 < found.color_step < 9  # CIEDE2000 of the greys 100 and 120 is 7.5
    assert found.forehead == pytest.approx(found.jaw, abs=0.2)
    assert found.gradient_ratio > 100


def test_forehead_and_jaw_are_measured_apart():
    grey = np.full((128, 128, 3), 100, np.uint8)
    mask = disk()
    ramp = np.linspace(40, 0, 128)[:, None, None] * mask[..., None]  # brighter at the top only

    found = metrics.seam(grey, (grey + ramp).round().astype(np.uint8), mask)

    assert found.forehead > 8
    assert found.jaw < 5


def test_soft_edge_has_a_lower_gradient_than_a_hard_one(collins):
    import cv2

    crop = np.ascontiguousarray(collins[:128, :128])
    hard = disk()
    soft = cv2.GaussianBlur(hard, (0, 0), 6)

    def ratio(mask):
        pasted = np.rint(crop + mask[..., None] * (255.0 - crop)).astype(np.uint8)
        return metrics.seam(crop, pasted, mask).gradient_ratio

    assert ratio(soft) < ratio(hard)


def test_empty_mask_has_no_seam(collins):
    crop = np.ascontiguousarray(collins[:128, :128])

    assert metrics.seam(crop, crop, np.zeros((128, 128), np.float32)) == Seam(0.0, 0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def crop_of(collins, collins_face):
    """The aligned crop of a photo and its landmarks in the crop."""
    from fractions import Fraction
    from pathlib import Path

    from faceswap.config import COVERAGE
    from faceswap.faces.geometry import align_face, transform
    from faceswap.media.frame import Frame

    frame = Frame(collins, 0, Fraction(0), Path())
    aligned = align_face(frame, collins_face, texture.SIZE, COVERAGE)
    return aligned.image, transform(collins_face.landmarks, aligned.matrix)


def measured(image, points, number):
    embedding = np.random.default_rng(number).normal(0, 0.05, 128).astype(np.float32)
    return measure_face(image, points, embedding, texture.area_of(points, 0.8), points)


@pytest.fixture(scope="module")
def rows(crop_of):
    """Scores of eight real faces, and of the same faces blurred and darkened on one side."""
    import cv2

    image, points = crop_of
    noise = np.random.default_rng(0)
    photos = [np.clip(image + noise.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
              for _ in range(8)]  # fmt: skip
    faces = [measured(photo, points, i) for i, photo in enumerate(photos)]
    soft = [measured(cv2.GaussianBlur(photo, (0, 0), 3), points, i)
            for i, photo in enumerate(photos)]  # fmt: skip
    shade = np.linspace(1.0, 0.5, texture.SIZE)[None, :, None]
    dark = [measured((photo * shade).astype(np.uint8), points, i)
            for i, photo in enumerate(photos)]  # fmt: skip
    center = np.mean([face.embedding for face in faces], axis=0)
    scale = IdentityScale(center + 1, center, [center + 1], [center])
    scorer = Scorer(scale, faces)
    same = scorer.scores(faces, list(zip(faces, faces, strict=True)), [])
    blurred = scorer.scores(soft, list(zip(faces, soft, strict=True)), [])
    shaded = scorer.scores(dark, list(zip(faces, dark, strict=True)), [])
    return same, blurred, shaded


def test_real_faces_are_their_own_measure(rows):
    same, _, _ = rows

    for band in (1, 2, 3, 4):
        assert getattr(same, f"sharpness_{band}").value == 1
    assert same.swd_fine.value == same.swd_mid.value == pytest.approx(0, abs=1e-3)
    assert same.diversity.value == same.catch_light.value == 1
    assert same.typicality.value == pytest.approx(0.5, abs=0.1)
    assert same.nme.value == same.nme_jaw.value == same.light_error.value == 0
    assert same.light_slope.value == pytest.approx(1)


def test_blur_is_seen_by_texture_and_eyes_but_not_by_identity(rows):
    same, blurred, _ = rows

    assert blurred.identity_transfer == same.identity_transfer
    assert blurred.sharpness_1.high < 0.2
    assert blurred.sharpness_2.value < blurred.sharpness_4.value < 1
    assert blurred.swd_fine.low > 200
    assert blurred.catch_light.value < 0.8
    assert blurred.light_correlation.value > 0.99  # it keeps the light


def test_foreign_shadow_is_seen_by_the_light_scores(rows):
    _, blurred, shaded = rows

    assert shaded.light_error.low > 5 * blurred.light_error.value
    assert shaded.light_correlation.value < 0.96


def test_interval_holds_the_value(rows):
    for scores in rows:
        for name in ("sharpness_1", "swd_fine", "diversity", "nme", "light_error"):
            score = getattr(scores, name)
            assert score.low <= score.value <= score.high


def test_expression_scores_compare_the_parts(crop_of):
    image, points = crop_of
    closed = image.copy()
    eyes = points[36:48]
    left, top = eyes.min(axis=0).astype(int) - 4
    right, bottom = eyes.max(axis=0).astype(int) + 4
    closed[top:bottom, left:right] = image[bottom + 4 : 2 * bottom - top + 4, left:right]
    one, other = measured(image, points, 0), measured(closed, points, 1)

    same, changed = (metrics._against_footage([(one, face)]) for face in (one, other))

    for part in ("eyes", "brows", "mouth"):
        assert same[f"expression_{part}"].value == 0
    assert changed["expression_eyes"].value > 0.05
    assert changed["expression_eyes"].value > 2 * changed["expression_mouth"].value
