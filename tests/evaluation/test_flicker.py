from dataclasses import replace

import cv2
import numpy as np
import pytest

from faceswap.evaluation.flicker import Moment, boiling, flicker


@pytest.fixture(scope="module")
def points(collins_face):
    return collins_face.landmarks


def moved(image, x):
    return cv2.warpAffine(image, np.float32([[1, 0, x], [0, 1, 0]]), image.shape[1::-1],
                          flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # fmt: skip


def test_motion_is_explained_by_the_flow(collins, points):
    shift = np.float32([3.4, 0])

    still = boiling(collins, collins, points)
    moving = boiling(collins, moved(collins, 3.4), points + shift)

    assert still.residual.max() < 0.05
    assert (moving.residual[1:] < 0.25 * moving.amplitude[1:]).all()


def test_new_texture_in_every_frame_is_not_explained(collins, points):
    random = np.random.default_rng(0)
    one, two = (
        np.clip(collins + random.normal(0, 12, collins.shape), 0, 255).astype(np.uint8)
        for _ in "ab"
    )

    found = boiling(one, two, points)

    assert found.residual[0] > 0.8 * found.amplitude[0]


def moments(landmarks, embeddings, colors, gazes):
    nothing = boiling_of(1.0), boiling_of(2.0)
    return [
        Moment(pair[1], pair, embedding, color, gaze, nothing if index else None)
        for index, (pair, embedding, color, gaze) in enumerate(
            zip(landmarks, embeddings, colors, gazes, strict=True)
        )
    ]


def boiling_of(residual):
    from faceswap.evaluation.flicker import Boiling

    return Boiling(np.full(4, residual), np.full(4, 10.0))


def test_flicker_is_relative_to_the_footage(points):
    random = np.random.default_rng(0)

    def shaken(amount):
        return points + random.normal(0, amount, points.shape).astype(np.float32)

    frames = moments(
        [(shaken(1), shaken(2)) for _ in range(60)],
        [(random.normal(0, 0.01, 128), random.normal(0, 0.03, 128)) for _ in range(60)],
        [(random.normal(0, 1, 3), random.normal(0, 1, 3)) for _ in range(60)],
        [(gaze, 0.5 * gaze) for gaze in random.normal(0, 0.1, 60)],
    )

    found = flicker(frames)

    assert found.frames == 60
    assert found.landmark_acceleration == pytest.approx(2, rel=0.05)
    assert found.embedding_spread == pytest.approx(3, rel=0.05)
    assert found.color_spread == pytest.approx(1, rel=0.25)
    assert found.gaze_correlation == pytest.approx(1)
    assert found.gaze_slope == pytest.approx(0.5)
    assert found.boiling == [2.0] * 4
    assert found.boiling_of_footage == [0.1] * 4


def test_frozen_face_follows_nothing(points):
    random = np.random.default_rng(0)
    footage = [points + random.normal(0, 1, points.shape).astype(np.float32) for _ in range(20)]
    zeros = np.zeros(128), np.zeros(128)
    frames = moments([(p, points) for p in footage], [zeros] * 20, [(np.zeros(3),) * 2] * 20,
                     [(float(g), 0.1) for g in random.normal(0, 0.1, 20)])  # fmt: skip

    found = flicker([replace(moment, placed=points) for moment in frames])

    assert found.landmark_acceleration == 0
    assert found.placement_acceleration == 0
    assert found.mouth_correlation is None
    assert found.gaze_slope == pytest.approx(0, abs=1e-9) or found.gaze_slope is None
