"""The rotation of a head, from where its landmarks are seen."""

import json
from functools import cache
from importlib.resources import files

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import Points

Numbers = npt.NDArray[np.float64]

# Pitch of the average head when it looks at the camera: 28 to 32 are the medians of four facesets.
USUAL_PITCH = 30.0
CAMERA = 4.0  # focal length in face widths: heads are seen from about four widths away


@cache
def head_shape() -> Numbers:
    """Return the 68 landmarks of an average head, (68, 3): x right, y down, z away, eyes 1 apart.

    Derived by ``scripts/tools/derive_head_shape.py``.
    """
    text = files("faceswap.faces").joinpath("head_shape.json").read_text(encoding="utf-8")
    return np.array(json.loads(text)["landmarks"], np.float64)


def five_of(landmarks: npt.NDArray[np.floating]) -> Points:
    """Return right eye, left eye, tip of the nose, right and left corner of the mouth.

    Landmarks are (68, 2) or (68, 3), and the result (5, 2) or (5, 3).
    """
    eyes = [landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)]
    return np.asarray([*eyes, landmarks[30], landmarks[48], landmarks[54]], np.float32)


def landmarks_from_five(points: Points) -> tuple[Points, float]:
    """Place an average head where five points of a face are seen, even in profile.

    Args:
        points: See :func:`five_of`.

    Returns:
        landmarks: Where its landmarks are seen, (68, 2).
        error: Mean distance between its five points and the given ones, over the distance between
            the eyes of a head that faces the camera.
    """
    head = head_shape()
    five = five_of(head).astype(np.float64)
    extent = float(np.ptp(points, axis=0).max())
    center = points.mean(axis=0)
    focal = CAMERA * 2 * max(extent, 1.0)  # a face is about twice as wide as these points
    camera = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], np.float64)
    _, turn, shift = cv2.solvePnP(
        five, points.astype(np.float64), camera, None, flags=cv2.SOLVEPNP_SQPNP
    )
    seen = np.asarray(cv2.projectPoints(head, turn, shift, camera, None)[0]).reshape(-1, 2)
    landmarks: Points = seen.astype(np.float32)
    scale = focal / max(float(shift[2, 0]), 1e-6)  # pixels per distance between the eyes
    error = float(np.linalg.norm(five_of(landmarks) - points, axis=1).mean()) / max(scale, 1e-6)
    return landmarks, error


def rotation(points: Points) -> Numbers:
    """Return the rotation matrix (3, 3) of a head from its 68 landmarks, by solvePnP."""
    center = points.mean(axis=0)
    focal = CAMERA * float(np.ptp(points[:, 0]))
    camera = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], np.float64)
    _, vector, _ = cv2.solvePnP(
        head_shape(), points.astype(np.float64), camera, None, flags=cv2.SOLVEPNP_SQPNP
    )
    return np.asarray(cv2.Rodrigues(vector)[0], np.float64)


def facing(points: Points) -> tuple[float, float, float]:
    """Return where a head is turned, from its 68 landmarks: yaw, pitch and roll in degrees.

    See :func:`angles` for the directions. All are 0 for a face that looks at the camera.
    """
    yaw, pitch, roll = angles(rotation(points))
    return yaw, pitch - USUAL_PITCH, roll


def angles(turn: Numbers) -> tuple[float, float, float]:
    """Return yaw, pitch and roll of a rotation matrix (3, 3) in degrees.

    The matrix lowers the head by its pitch, then turns it by its yaw, then tilts it by its roll.
    A positive yaw turns the face to the image's right, a positive pitch lowers it, and a positive
    roll tilts it clockwise as seen in the image.
    """
    yaw = np.arctan2(turn[2, 0], np.hypot(turn[0, 0], turn[1, 0]))
    pitch, roll = np.arctan2(turn[2, 1], turn[2, 2]), np.arctan2(turn[1, 0], turn[0, 0])
    return float(np.degrees(yaw)), float(np.degrees(pitch)), float(np.degrees(roll))
