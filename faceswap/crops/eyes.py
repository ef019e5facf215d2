"""Find the iris in an eye that six landmarks outline, and move it.

Each eye is resampled into a frame of its own: its corners lie on a horizontal line, 48 px apart.
There the iris is the disc that is darkest against the rest of the opening, which is steadier than
the darkest pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import LUMA, FloatImage, Image, Matrix, Points
from faceswap.crops.masks import hull_of

EYES = (slice(36, 42), slice(42, 48))  # landmarks of the image's left and right eye
WIDTH, HEIGHT, LENGTH = 72, 44, 48.0  # the eye's frame and the length of the eye in it, in pixels
RADIUS = 0.21  # of the iris, as a share of the eye's length
INNER = 0.75  # of the radius, inside which no pixel shows the white of the eye
MIN_SHARE = 0.8  # of the most that a disc overlaps the opening; places with less are not searched
MAX_OFFSET = 0.36  # from the eye's middle along its axis, as a share of its length
SOFTNESS = 2.0  # levels of contrast that halve the weight of a place, roughly
SLIDE, FARTHEST = 0.27, 0.30  # of an iris: the longest way and the most distant place, eye lengths
SLID_RADIUS = 0.2  # of the part of the eye that moves with the iris, in eye lengths
FIXED = 0.56  # places along the eye, just outside its corners, that do not move
LID_BLUR = 0.05  # softness of the eye's outline, inside which pixels move, in eye lengths
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


def opening(points: Points) -> float:
    """Return the mean height of both eyes' openings in eye lengths, from landmarks (68, 2)."""
    heights = []
    for eye in (points[part].astype(np.float64) for part in EYES):
        length = max(float(np.hypot(*(eye[3] - eye[0]))), 1e-9)
        gaps = np.hypot(*(eye[[1, 2]] - eye[[5, 4]]).T)
        heights.append(float(gaps.mean()) / length)
    return float(np.mean(heights))


def open_to(points: Points, height: float) -> None:
    """Move the lids of landmarks (68, 2) so that both eyes are open by ``height`` eye lengths."""
    now = opening(points)
    if now < 1e-6:
        return
    for part in EYES:
        eye = points[part]
        for upper, lower in ((1, 5), (2, 4)):
            middle, half = (eye[upper] + eye[lower]) / 2, (eye[upper] - eye[lower]) / 2
            moved = half * np.float32(height / now)
            eye[upper], eye[lower] = middle + moved, middle - moved


def slide(image: Image, points: Points, along: list[float | None], gaze: float) -> Image:
    """Slide the irises of a photo along the eyes, and leave lids and corners in place.

    Args:
        image: (H, W, 3).
        points: Landmarks (68, 2).
        along: Where the irises are, see :class:`Iris`; None leaves an eye as it is.
        gaze: Where their mean position should be.
    """
    known = [place for place in along if place is not None]
    if not known:
        return image
    way = float(np.clip(gaze - np.mean(known), -SLIDE, SLIDE))
    result = image.copy()
    for eye, place in zip(EYES, along, strict=True):
        if place is not None:
            _slide_eye(image, result, points[eye], place, way)
    return result


def _slide_eye(image: Image, result: Image, eye: Points, place: float, way: float) -> None:
    """Write an eye with a moved iris into ``result``."""
    length = float(np.hypot(*(eye[3] - eye[0])))
    if length < 1:
        return
    axis, middle = (eye[3] - eye[0]) / length, (eye[0] + eye[3]) / 2
    low = np.maximum(np.floor(eye.min(axis=0) - 0.2 * length), 0).astype(int)
    high = np.ceil(eye.max(axis=0) + 0.2 * length).astype(int) + 1
    columns = np.arange(low[0], min(high[0], image.shape[1]))
    rows = np.arange(low[1], min(high[1], image.shape[0]))
    if not len(columns) or not len(rows):
        return
    x, y = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    along = ((x - middle[0]) * axis[0] + (y - middle[1]) * axis[1]) / length
    start = float(np.clip(place, -FARTHEST, FARTHEST))
    end = float(np.clip(start + way, -FARTHEST, FARTHEST))
    source = np.interp(
        along,
        [-FIXED, end - SLID_RADIUS, end + SLID_RADIUS, FIXED],
        [-FIXED, max(start - SLID_RADIUS, -FIXED), min(start + SLID_RADIUS, FIXED), FIXED],
    )
    source = np.where(np.abs(along) > FIXED, along, source)
    corner = np.array([columns[0], rows[0]], np.float32)
    inside = hull_of(eye - corner, len(rows), len(columns)).astype(np.float32)
    inside = np.asarray(cv2.GaussianBlur(inside, (0, 0), max(LID_BLUR * length, 0.6)), np.float32)
    moved = ((source - along) * length * np.clip(1.25 * inside, 0, 1)).astype(np.float32)
    result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = cv2.remap(
        image,
        np.asarray(x + moved * axis[0], np.float32),
        np.asarray(y + moved * axis[1], np.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )


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
