"""Check the average head and the angles of turned heads."""

import numpy as np
import pytest

from faceswap.faces.pose import (
    angles,
    five_of,
    head_shape,
    landmarks_from_five,
    rotation,
)


def test_head_shape_is_symmetric_and_faces_the_viewer():
    head = head_shape()

    assert head.shape == (68, 3)
    np.testing.assert_allclose(head[0], head[16] * [-1, 1, 1], atol=1e-3)
    assert head[30, 2] == head[:, 2].min()  # the tip of the nose is nearest
    assert np.linalg.norm(head[42:48].mean(0) - head[36:42].mean(0)) == pytest.approx(1, abs=0.02)


def turned(yaw=0.0, pitch=0.0, roll=0.0):
    """The average head, turned by angles in degrees, as image points (68, 2)."""
    y, p, r = np.radians([yaw, pitch, roll])
    to_right = [[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]]
    down = [[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]]
    clockwise = [[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]]
    turn = np.array(clockwise) @ np.array(to_right) @ np.array(down)
    return (head_shape() @ turn.T)[:, :2].astype(np.float32) * 100 + 200


TURNS = [(0, 0, 0), (35, 0, 0), (-60, 0, 0), (0, 20, 0), (0, -20, 0), (0, 0, 30), (25, 15, -20)]


@pytest.mark.parametrize("expected", TURNS)
def test_angles_of_a_turned_head(expected):
    found = angles(rotation(turned(*expected)))

    np.testing.assert_allclose(found, expected, atol=6)


def test_face_that_turns_to_the_right_shows_its_nose_there():
    nose, middle = turned(yaw=30)[30], turned(yaw=30)[36:48].mean(axis=0)

    assert nose[0] > middle[0]
    assert angles(rotation(turned(yaw=30)))[0] > 0


@pytest.mark.parametrize("turn", TURNS)
def test_average_head_is_placed_by_five_points(turn):
    seen = turned(*turn)

    landmarks, error = landmarks_from_five(five_of(seen))

    assert error < 0.05
    distances = np.linalg.norm(landmarks - seen, axis=1) / 100  # eye distances
    assert distances.mean() < 0.12


def test_points_of_no_face_have_a_large_error():
    five = five_of(turned())
    five[[0, 3]] = five[[3, 0]]  # an eye below the mouth

    assert landmarks_from_five(five)[1] > 0.3
