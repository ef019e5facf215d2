"""What part of an aligned crop to paste, from the landmarks alone: AlignedFace -> Mask.

Widths are shares of the side of the face's square, so a mask looks the same at every crop size. A
mask is 0 outside the square: only there has the network painted.
"""

from collections.abc import Callable

import cv2
import numpy as np

from faceswap.config import MaskName
from faceswap.geometry import transform
from faceswap.types import AlignedFace, Mask

Masker = Callable[[AlignedFace, float], Mask]

FOREHEAD = 0.6  # brows raised by this many nose lengths agree best with a face's oval


def square(aligned: AlignedFace, coverage: float) -> Mask:
    """All of the face's square, (S, S)."""
    size = len(aligned.image)
    mask = np.zeros((size, size), np.float32)
    first = round((1 - coverage) / 2 * size)
    mask[first : size - first, first : size - first] = 1
    return mask


def hull(aligned: AlignedFace, coverage: float) -> Mask:
    """The convex hull of the 68 landmarks and a forehead above the brows, (S, S)."""
    points = transform(aligned.face.landmarks, aligned.matrix)
    nose = points[27] - points[33]  # up along the face
    outline = np.vstack([points, points[17:27] + FOREHEAD * nose])
    contour = np.asarray(cv2.convexHull(outline)).round().astype(np.int32)
    mask = np.zeros(aligned.image.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, contour, 1)
    return mask * square(aligned, coverage)


MASKS: dict[MaskName, Masker] = {"hull": hull, "square": square}


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
