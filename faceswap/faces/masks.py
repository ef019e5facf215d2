"""What part of an aligned crop to paste: from the landmarks, or as the model painted it.

Widths are shares of the side of the face's square, so a mask looks the same at every crop size. A
mask is 0 outside the network's view: only there has it painted.
"""

from collections.abc import Callable

import cv2
import numpy as np

from faceswap.config import MaskName
from faceswap.faces.geometry import AlignedFace, transform
from faceswap.types import Mask, Points

Masker = Callable[[AlignedFace, float, Mask | None], Mask]

FOREHEAD = 0.6  # brows raised by this many nose lengths agree best with a face's oval
MASK_THRESHOLD = 0.1  # a painted mask counts from here on, and fully from 1 minus this


def square(aligned: AlignedFace, view: float, decoded: Mask | None = None) -> Mask:  # noqa: ARG001 - the seam's form
    """All that the network sees, the middle ``view`` of the crop, (S, S)."""
    size = len(aligned.image)
    mask = np.zeros((size, size), np.float32)
    first = round((1 - view) / 2 * size)
    mask[first : size - first, first : size - first] = 1
    return mask


def outline(points: Points, size: int) -> Mask:
    """The convex hull of 68 landmarks (68, 2) and a forehead above the brows, (size, size)."""
    nose = points[27] - points[33]  # up along the face
    raised = np.vstack([points, points[17:27] + FOREHEAD * nose])
    contour = np.asarray(cv2.convexHull(raised)).round().astype(np.int32)
    mask = np.zeros((size, size), np.float32)
    cv2.fillConvexPoly(mask, contour, 1.0)
    return mask


def hull(aligned: AlignedFace, view: float, decoded: Mask | None = None) -> Mask:  # noqa: ARG001 - the seam's form
    """The :func:`outline` of the face within the network's view, (S, S)."""
    points = transform(aligned.face.landmarks, aligned.matrix)
    return outline(points, len(aligned.image)) * square(aligned, view)


def learned(aligned: AlignedFace, view: float, decoded: Mask | None) -> Mask:
    """What the model painted as the face, (S, S) in [0, 1], within the network's view."""
    assert decoded is not None, "a model without a mask head"
    clear: Mask = np.clip((decoded - MASK_THRESHOLD) / (1 - 2 * MASK_THRESHOLD), 0, 1)
    return clear * square(aligned, view)


def product(aligned: AlignedFace, view: float, decoded: Mask | None) -> Mask:
    """What both :func:`hull` and :func:`learned` hold, (S, S)."""
    return hull(aligned, view) * learned(aligned, view, decoded)


MASKS: dict[MaskName, Masker] = {
    "hull": hull, "square": square, "learned": learned, "product": product,
}  # fmt: skip
DECODED_MASKS: tuple[MaskName, ...] = ("learned", "product")  # need a model with a mask head


def soften(mask: Mask, coverage: float, erosion: float, feather: float) -> Mask:
    """Shrink a mask and soften its edge inwards, so that it never grows, (S, S).

    Args:
        mask: A mask of 0 and 1, 0 along the crop's border.
        coverage: Share of the crop's side that the face's square takes.
        erosion: Width taken off, as a share of the square's side.
        feather: Width of the slope from 1 to 0, as a share of the square's side.
    """
    side = coverage * len(mask)
    blur = round(feather * side / 2)
    cut = round(erosion * side) + blur
    if cut:
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * cut + 1, 2 * cut + 1))
        mask = np.asarray(
            cv2.erode(mask, disk, borderType=cv2.BORDER_CONSTANT, borderValue=0), np.float32
        )
    if blur:  # two standard deviations reach from the middle of the slope to its ends
        mask = np.asarray(
            cv2.GaussianBlur(mask, (2 * blur + 1, 2 * blur + 1), blur / 2), np.float32
        )
    return np.clip(mask, 0, 1)
