"""Masks that select which part of an aligned crop is pasted back.

They come from the landmarks, from the model's decoded mask, or from both. Widths are fractions of
the side of the face's square, so a mask looks the same at every crop size. A mask is 0 outside the
network crop because the model decodes nothing there.
"""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import Mask, Points
from faceswap.config import MASK_SEAM
from faceswap.faces.geometry import AlignedFace, transform
from faceswap.registry import Registry

# A masker takes the aligned face, the side of the network crop as a share of the crop's side, and
# the decoded mask (S, S), or None if the model has no mask head. It returns the mask (S, S).
Masker = Callable[[AlignedFace, float, Mask | None], Mask]

FOREHEAD = 0.6  # nose lengths by which the hull rises above the brows; fits the oval of a face best
SKIN_BLUR = 1.5 / 256  # deviation, as a share of the crop's side: smooths the skin's outline
MASK_THRESHOLD = 0.1  # decoded values below it become 0, those above 1 - MASK_THRESHOLD become 1


def square(aligned: AlignedFace, view: float, decoded: Mask | None = None) -> Mask:  # noqa: ARG001 - the Masker signature
    """Return the mask (S, S) of the network crop, whose side is ``view`` times the crop's side."""
    size = len(aligned.image)
    mask = np.zeros((size, size), np.float32)
    first = round((1 - view) / 2 * size)
    mask[first : size - first, first : size - first] = 1
    return mask


def outline(points: Points, size: int) -> Mask:
    """Return the mask (size, size) of the convex hull of landmarks (68, 2) and the forehead."""
    nose = points[27] - points[33]  # points up along the face
    raised = np.vstack([points, points[17:27] + FOREHEAD * nose])
    return hull_of(raised, size, size).astype(np.float32)


# Landmarks of the left brow and eye, of the right ones, and of the lips.
FEATURES = ([*range(17, 22), *range(36, 42)], [*range(22, 27), *range(42, 48)], [*range(48, 60)])


def hull_of(points: Points, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Draw the convex hull of points (N, 2): 1 inside and 0 outside, (height, width)."""
    drawn = np.zeros((height, width), np.uint8)
    contour = np.asarray(cv2.convexHull(points.astype(np.float32)))
    cv2.fillConvexPoly(drawn, contour.round().astype(np.int32), 1)
    return drawn


def smoothstep(t: npt.NDArray[np.float32]) -> Mask:
    """Return 3 t^2 - 2 t^3, which rises smoothly from 0 at t = 0 to 1 at t = 1."""
    clipped = np.clip(t, 0, 1)
    return np.asarray(clipped * clipped * (3 - 2 * clipped), np.float32)


def hull(aligned: AlignedFace, view: float, decoded: Mask | None = None) -> Mask:  # noqa: ARG001 - the Masker signature
    """Return the :func:`outline` of the face, limited to the network crop, (S, S)."""
    points = transform(aligned.face.landmarks, aligned.matrix)
    return outline(points, len(aligned.image)) * square(aligned, view)


def learned(aligned: AlignedFace, view: float, decoded: Mask | None) -> Mask:
    """Return the model's decoded mask, (S, S) in [0, 1], limited to the network crop.

    Values within ``MASK_THRESHOLD`` of 0 or 1 become 0 or 1. ``decoded`` must not be None.
    """
    assert decoded is not None, "the model has no mask head"
    clear: Mask = np.clip((decoded - MASK_THRESHOLD) / (1 - 2 * MASK_THRESHOLD), 0, 1)
    return clear * square(aligned, view)


def product(aligned: AlignedFace, view: float, decoded: Mask | None) -> Mask:
    """Return the product of :func:`hull` and :func:`learned`, (S, S)."""
    return hull(aligned, view) * learned(aligned, view, decoded)


def visible(aligned: AlignedFace, view: float, decoded: Mask | None = None) -> Mask:
    """Return :func:`hull` where the face's skin is visible, (S, S)."""
    assert aligned.skin is not None, "the mask needs the skin"
    blurred = cv2.GaussianBlur(aligned.skin, (0, 0), SKIN_BLUR * len(aligned.image))
    return hull(aligned, view, decoded) * (blurred > 0.5).astype(np.float32)


MASKS: Registry[Masker] = Registry(MASK_SEAM, {
    "skin": visible,
    "hull": hull, "square": square, "learned": learned, "product": product,
})  # fmt: skip
SKIN_MASKS: tuple[str, ...] = ("skin",)  # these need to know where skin is visible
DECODED_MASKS: tuple[str, ...] = ("learned", "product")  # these need a model with a mask head


def soften(mask: Mask, coverage: float, erosion: float, feather: float) -> Mask:
    """Shrink a mask (S, S) and soften its edge inwards, so that it never grows.

    Args:
        mask: A mask in [0, 1]. Everything outside the crop counts as 0.
        coverage: Fraction of the crop's side that the face's square covers.
        erosion: Width to remove, as a fraction of the square's side.
        feather: Width of the ramp from 1 to 0, as a fraction of the square's side.
    """
    side = coverage * len(mask)
    blur = round(feather * side / 2)
    cut = round(erosion * side) + blur
    if cut:
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * cut + 1, 2 * cut + 1))
        mask = np.asarray(
            cv2.erode(mask, disk, borderType=cv2.BORDER_CONSTANT, borderValue=0), np.float32
        )
    if blur:  # the ramp ends two standard deviations from its middle
        mask = np.asarray(
            cv2.GaussianBlur(mask, (2 * blur + 1, 2 * blur + 1), blur / 2), np.float32
        )
    return np.clip(mask, 0, 1)
