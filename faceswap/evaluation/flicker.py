"""Measure how a face moves from frame to frame: jitter, changing colours, boiling texture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import LUMA, Embedding, FloatImage, Image, Points, Rect
from faceswap.crops.masks import outline
from faceswap.evaluation import texture
from faceswap.evaluation.metrics import (
    Numbers,
    correlation,
    eye_aspect_ratio,
    eye_distance,
    slope,
)
from faceswap.evaluation.results import FlickerScores
from faceswap.faces.expressions import mouth_aspect_ratio

FLOW_MARGIN = 24  # pixels around the face, so that the flow may point out of it
INNER = 0.08  # width taken off the face's outline before boiling is measured, in face widths


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """One frame of a clip before and after its swap.

    Attributes:
        placed: The landmarks (68, 2) that the swap was placed by.
        landmarks: Of the face before and after.
        embeddings: Of both.
        colors: Mean Lab colour of both.
        gazes: Position of the irises in both, see :func:`eyes.gaze`.
        boiling: Of both; None in the first frame.
    """

    placed: Points
    landmarks: tuple[Points, Points]
    embeddings: tuple[Embedding, Embedding]
    colors: tuple[Numbers, Numbers]
    gazes: tuple[float, float]
    boiling: tuple["Boiling", "Boiling"] | None = field(default=None)


@dataclass(frozen=True, slots=True, eq=False)
class Boiling:
    """Mean strength of four octaves in a face: what the flow leaves over, and all of it."""

    residual: npt.NDArray[np.float64]
    amplitude: npt.NDArray[np.float64]


def boiling(before: Image, after: Image, points: Points) -> Boiling:
    """Measure what a warp along the picture's own flow cannot explain of a face.

    The flow is dense inverse search (T. Kroeger et al., ECCV 2016) between the two images
    themselves. The footage's flow would call a swap's own, rightly different motion an error.

    Args:
        before: The previous frame (H, W, 3).
        after: This frame.
        points: Landmarks (68, 2) in this frame.
    """
    height, width = after.shape[:2]
    left, top, right, bottom = _box(points, height, width)
    one, two = (image[top:bottom, left:right].astype(np.float32) for image in (before, after))
    gray = [(image @ LUMA).round().astype(np.uint8) for image in (two, one)]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    flow = np.asarray(search.calc(*gray, None), np.float32)
    y, x = np.mgrid[0 : bottom - top, 0 : right - left].astype(np.float32)
    explained: FloatImage = np.asarray(
        cv2.remap(
            one, x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        np.float32,
    )  # fmt: skip
    inside = _inner(points - np.array([left, top], np.float32), *two.shape[:2])
    return Boiling(_strengths(two - explained, inside), _strengths(two, inside))


def _strengths(image: FloatImage, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    if not inside.any():
        return np.full(texture.BANDS, np.nan)
    return np.array([float(np.abs(band[inside]).mean()) for band in texture.bands(image)])


def _box(points: Points, height: int, width: int) -> Rect:
    low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
    up = int(high[1] - low[1]) // 3  # the forehead above the brows
    return (
        max(int(low[0]) - FLOW_MARGIN, 0),
        max(int(low[1]) - FLOW_MARGIN - up, 0),
        min(int(high[0]) + FLOW_MARGIN + 1, width),
        min(int(high[1]) + FLOW_MARGIN + 1, height),
    )


def _inner(points: Points, height: int, width: int) -> npt.NDArray[np.bool_]:
    mask = outline(points, max(height, width))[:height, :width]
    cut = 2 * round(INNER * float(np.ptp(points[:, 0]))) + 1
    inner: npt.NDArray[np.bool_] = cv2.erode(mask, np.ones((cut, cut))) > 0.5
    return inner


def flicker(moments: Sequence[Moment]) -> FlickerScores:
    """Compare how a swap and its footage vary from frame to frame.

    Args:
        moments: Successive frames without a gap, at least 3.
    """
    steps = [moment.boiling for moment in moments if moment.boiling]
    natural, swapped = (
        np.sum([step[i].residual for step in steps], axis=0)
        / np.sum([step[i].amplitude for step in steps], axis=0)
        for i in (0, 1)
    )

    def over(of: Sequence[tuple[Points, Points]]) -> float:
        before, after = (_acceleration([pair[i] for pair in of]) for i in (0, 1))
        return round(after / max(before, 1e-9), 4)

    def spreads(of: Sequence[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> float:
        before, after = (
            np.sqrt(np.stack([pair[i] for pair in of]).astype(np.float64).var(axis=0).sum())
            for i in (0, 1)
        )
        return round(float(after / max(before, 1e-9)), 4)

    def pairs(measure: str) -> Numbers:
        if measure == "gaze":
            values = np.array([moment.gazes for moment in moments])
        else:
            ratio = eye_aspect_ratio if measure == "eye" else mouth_aspect_ratio
            values = np.array([[ratio(p) for p in moment.landmarks] for moment in moments])
        return np.asarray(values[np.isfinite(values).all(axis=1)], np.float64)

    return FlickerScores(
        frames=len(moments),
        landmark_acceleration=over([moment.landmarks for moment in moments]),
        placement_acceleration=round(_acceleration([moment.placed for moment in moments]), 5),
        color_spread=spreads([moment.colors for moment in moments]),
        embedding_spread=spreads([moment.embeddings for moment in moments]),
        boiling=[round(float(value), 4) for value in swapped / natural],
        boiling_of_footage=[round(float(value), 4) for value in natural],
        eye_correlation=_or_none(correlation(pairs("eye"))),
        mouth_correlation=_or_none(correlation(pairs("mouth"))),
        gaze_correlation=_or_none(correlation(pairs("gaze"))),
        gaze_slope=_or_none(slope(pairs("gaze"))),
    )


def _acceleration(landmarks: Sequence[Points]) -> float:
    """Mean length of the landmarks' second difference, in eye distances."""
    points = np.stack(landmarks)
    second = np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=2)
    return float(second.mean() / np.mean([eye_distance(p) for p in points]))


def _or_none(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None
