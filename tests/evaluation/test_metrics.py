from dataclasses import astuple

import numpy as np
import pytest

from faceswap.evaluation import metrics
from faceswap.evaluation.metrics import (
    FaceMeasurement,
    IdentityScale,
    eye_aspect_ratio,
    mouth_aspect_ratio,
    nme,
)


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


def test_scaled_margin_is_0_for_own_faces_and_1_for_others(points):
    random = np.random.default_rng(0)
    own, other = np.zeros(128, np.float32), np.full(128, 0.1, np.float32)

    def faces(around):
        noise = random.normal(0, 0.01, (5, 128)).astype(np.float32)
        return [FaceMeasurement(points, around + n) for n in noise]

    own_faces, other_faces = faces(own), faces(other)
    scale = IdentityScale(own, other, own_faces, other_faces)

    assert np.mean([scale.scaled(face) for face in own_faces]) == pytest.approx(0, abs=1e-6)
    assert np.mean([scale.scaled(face) for face in other_faces]) == pytest.approx(1, abs=1e-6)
    assert scale.scaled(FaceMeasurement(points, (own + other) / 2)) == pytest.approx(0.5, abs=0.05)


def test_head_shape_is_symmetric_and_faces_the_viewer():
    head = metrics.head_shape()

    assert head.shape == (68, 3)
    np.testing.assert_allclose(head[0], head[16] * [-1, 1, 1], atol=1e-3)
    assert head[30, 2] == head[:, 2].min()  # the tip of the nose is nearest
    assert np.linalg.norm(head[42:48].mean(0) - head[36:42].mean(0)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("yaw", [-25, 10, 40])
def test_pose_error_measures_yaw(yaw):
    angle = np.radians(yaw)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    seen = (metrics.head_shape() @ turn.T)[:, :2].astype(np.float32) * 100 + 200
    ahead = metrics.head_shape()[:, :2].astype(np.float32) * 100 + 200

    assert metrics.pose_error(ahead, seen) == pytest.approx(abs(yaw), abs=4)


def disk(size=128, radius=40):
    y, x = np.mgrid[:size, :size]
    return (np.hypot(x - size / 2, y - size / 2) < radius).astype(np.float32)


def test_unchanged_crop_has_no_seam(collins):
    crop = np.ascontiguousarray(collins[:128, :128])

    assert metrics.seam(crop, crop, disk()) == (0.0, pytest.approx(1.0))


def test_seam_of_a_brighter_disk_is_its_color_step():
    grey = np.full((128, 128, 3), 100, np.uint8)
    mask = disk()
    brighter = np.where(mask[..., None] > 0, np.uint8(120), grey)

    step, ratio = metrics.seam(grey, brighter, mask)

    assert 6 < step < 9  # CIEDE2000 of the greys 100 and 120 is 7.5
    assert ratio > 100


def test_soft_edge_has_a_lower_gradient_than_a_hard_one(collins):
    import cv2

    crop = np.ascontiguousarray(collins[:128, :128])
    hard = disk()
    soft = cv2.GaussianBlur(hard, (0, 0), 6)

    def pasted(mask):
        return np.rint(crop + mask[..., None] * (255.0 - crop)).astype(np.uint8)

    assert metrics.seam(crop, pasted(soft), soft)[1] < metrics.seam(crop, pasted(hard), hard)[1]


def test_empty_mask_has_no_seam(collins):
    crop = np.ascontiguousarray(collins[:128, :128])

    assert metrics.seam(crop, crop, np.zeros((128, 128), np.float32)) == (0.0, 1.0)


def test_flicker_is_relative_to_the_original(points):
    random = np.random.default_rng(0)
    still = [FaceMeasurement(points, np.zeros(128, np.float32)) for _ in range(20)]
    shaking = [
        FaceMeasurement(points + random.normal(0, 1, points.shape).astype(np.float32),
                 random.normal(0, 0.01, 128).astype(np.float32))
        for _ in range(20)
    ]  # fmt: skip
    lab = np.zeros(3)
    constant, varying = [(lab, lab)] * 20, [(lab, random.normal(0, 2, 3)) for _ in range(20)]

    still_points = [face.landmarks for face in still]

    assert astuple(metrics.flicker(still, still, constant, still_points)) == (20, 0, 0, 0, 0)
    added = metrics.flicker(still, shaking, varying, [face.landmarks for face in shaking])
    assert added.placement_acceleration == pytest.approx(added.landmark_acceleration)
    assert added.landmark_acceleration > 0.02
    assert added.color_spread == pytest.approx(2 * 3**0.5, rel=0.3)
    assert added.embedding_spread == pytest.approx(0.01 * 128**0.5, rel=0.2)
    swapped_colors = [(after, before) for before, after in varying]
    removed = metrics.flicker(shaking, still, swapped_colors, still_points)
    assert removed.color_spread == -added.color_spread
