"""Find the iris in an eye that six landmarks outline.

Each eye is resampled into a frame of its own: its corners lie on a horizontal line, 48 px apart.
There the iris is the disc that is darkest against the rest of the opening, which is steadier than
the darkest pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import LUMA, FloatImage, Image, Matrix, Points
from faceswap.faces.masks import hull_of

EYES = (slice(36, 42), slice(42, 48))  # landmarks of the image's left and right eye
WIDTH, HEIGHT, LENGTH = 72, 44, 48.0  # the eye's frame and the length of the eye in it, in pixels
RADIUS = 0.21  # of the iris, as a share of the eye's length
INNER = 0.75  # of the radius, inside which no pixel shows the white of the eye
MIN_SHARE = 0.8  # of the most that a disc overlaps the opening; places with less are not searched
MAX_OFFSET = 0.36  # from the eye's middle along its axis, as a share of its length
SOFTNESS = 2.0  # levels of contrast that halve the weight of a place, roughly
MIN_OPENING = 60  # pixels of the eye's frame; a smaller opening shows no iris

_y, _x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
_middle = ((WIDTH - 1) / 2, (HEIGHT - 1) / 2)
_reach = int(RADIUS * LENGTH)
_offsets = np.mgrid[-_reach : _reach + 1, -_reach : _reach + 1]
_DISC = ((_offsets**2).sum(axis=0) <= (RADIUS * LENGTH) ** 2).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Iris:
    """Where an iris is, in shares of the eye's length from the middle between its corners.

    Attributes:
        along: Along the line between the corners, positive to the image's right.
        across: Across that line, positive downwards.
        opening: Height of the eye's opening.
        catch_light: How much brighter the brightest pixel of the iris is than its median, in
            levels.
    """

    along: float
    across: float
    opening: float
    catch_light: float


def eye_frame(eye: Points) -> Matrix:
    """Return the matrix (2, 3) from image pixels to the frame of an eye (6, 2)."""
    corner, other = np.asarray(eye[0], np.float64), np.asarray(eye[3], np.float64)
    axis = (other - corner) / np.hypot(*(other - corner))
    scale = LENGTH / np.hypot(*(other - corner))
    turn = scale * np.array([[axis[0], axis[1]], [-axis[1], axis[0]]])
    return np.column_stack([turn, np.array(_middle) - turn @ ((corner + other) / 2)])


def irises(image: Image, points: Points) -> list[Iris | None]:
    """Find both irises; None stands for an eye that is closed or too small.

    Args:
        image: RGB (H, W, 3).
        points: Landmarks (68, 2).
    """
    return [_iris(image, points[eye]) for eye in EYES]


def gaze(eyes: list[Iris | None]) -> float:
    """Return the mean position of both irises along the eyes, in eye lengths; NaN if none is seen.

    Args:
        eyes: The result of :func:`irises`.
    """
    found = [iris.along for iris in eyes if iris]
    return float(np.mean(found)) if found else float("nan")


def _iris(image: Image, eye: Points) -> Iris | None:
    if np.hypot(*(eye[3] - eye[0])) < 1:
        return None
    matrix = eye_frame(eye)
    seen = cv2.warpAffine(
        image, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    luma = np.asarray(seen.astype(np.float32) @ LUMA, np.float32)
    contour = (eye @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    opening = float((contour[[4, 5], 1].mean() - contour[[1, 2], 1].mean()) / LENGTH)
    inside = hull_of(contour, HEIGHT, WIDTH).astype(np.float32)
    if inside.sum() < MIN_OPENING:
        return None
    smooth = np.asarray(cv2.GaussianBlur(luma, (0, 0), 1.2), np.float32)
    area, total = _sums(inside), _sums(smooth * inside)
    rest = (float((smooth * inside).sum()) - total) / np.maximum(inside.sum() - area, 1)
    contrast = rest - total / np.maximum(area, 1)
    central = np.abs(_x - _middle[0]) < MAX_OFFSET * LENGTH
    possible = (area >= MIN_SHARE * area.max()) & central
    if not possible.any():
        return None
    score = np.where(possible, contrast, -np.inf)
    weight = np.exp((score - score.max()) / SOFTNESS)
    weight /= weight.sum()
    x, y = float((weight * _x).sum()), float((weight * _y).sum())
    disc = np.hypot(_x - x, _y - y) <= INNER * RADIUS * LENGTH
    values = luma[disc & (inside > 0)]
    return Iris(
        (x - _middle[0]) / LENGTH,
        (y - _middle[1]) / LENGTH,
        opening,
        float(values.max() - np.median(values)),
    )


def _sums(values: npt.NDArray[np.float32]) -> FloatImage:
    """Return the sum of values under a disc the size of the iris at every place, (H, W)."""
    return np.asarray(cv2.filter2D(values, -1, _DISC, borderType=cv2.BORDER_CONSTANT), np.float32)
