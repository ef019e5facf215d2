"""Match a swapped face's colour to the footage and blend it into the frame.

A colour match measures numbers on the new face and the footage, and applies them to the face in a
second step, so that the numbers of a video can be smoothed over time in between. Blending only
touches the box of the frame that the mask reaches. The built-in blends return pixels where the mask
is 0 bit-identical.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import FloatImage, Image, Mask, Points, Rect
from faceswap.config import BLEND_SEAM, COLOR_SEAM
from faceswap.faces.geometry import (
    AlignedFace,
    invert,
    shifted,
    transform,
    warp_image_at,
    warp_mask,
)
from faceswap.media.frame import Frame, rounded
from faceswap.registry import Registry
from faceswap.swapping.light import apply_light, measure_light
from faceswap.swapping.region import Cover


@dataclass(frozen=True, slots=True, eq=False)
class Swap:
    """A face to paste into its frame.

    Attributes:
        aligned: The original face. Its matrix maps frame pixels to the pixels of ``image``.
        image: The new face, (H, W, 3), in 0..255 and not rounded.
        mask: The share of the new face in each pixel, (H, W) in [0, 1].
        color: The numbers of the colour match; None if there are none left to apply.
        cover: Skin to paint over the footage first; None if there is none left to merge.
        detail: The numbers of the detail match; None if there are none left to apply.
        on_frame: The original face on a box of the frame's own pixels, where detail is applied;
            None without a detail match.
    """

    aligned: AlignedFace
    image: FloatImage
    mask: Mask
    color: npt.NDArray[np.float64] | None = None
    cover: Cover | None = None
    detail: npt.NDArray[np.float64] | None = None
    on_frame: AlignedFace | None = None


Numbers = npt.NDArray[np.float64]
# Takes a box of the frame and the new face, both (H, W, 3) in 0..255, and the mask (H, W), and
# returns the blended box.
Mix = Callable[[FloatImage, FloatImage, Mask], FloatImage]

LEVELS = 5  # maximum number of levels of the blending pyramid; a small box has fewer
LEAST_SHARE = 0.5 / 255  # of a new face that is pasted; a matte with 8 bits shows less as black
MIN_SPREAD = 1e-6  # floor for a variance or an alpha before dividing by it


@dataclass(frozen=True, slots=True)
class ColorMatch:
    """A method that matches the colours of a new face to the footage.

    Attributes:
        measure: Takes the new face and the footage, both (S, S, 3), and the mask (S, S) that
            weights the pixels. Returns numbers that may be averaged over time, in an array that
            always has the same shape. With an empty mask, the numbers change nothing.
        apply: Takes the new face (H, W, 3), which is not rounded to 8 bits and may have been
            resampled since, and those numbers. Returns the recoloured face, (H, W, 3) in 0..255.
    """

    measure: Callable[[Image, Image, Mask], Numbers]
    apply: Callable[[FloatImage, Numbers], FloatImage]


def _moments(pixels: Image | FloatImage, mask: Mask) -> tuple[Numbers, Numbers]:
    """Return the mean (3,) and covariance (3, 3) of pixels (S, S, 3), weighted by the mask."""
    inside = mask > 0
    values, weights = pixels[inside].astype(np.float64), mask[inside].astype(np.float64)
    mean = weights @ values / weights.sum()
    centered = values - mean
    return mean, (centered * weights[:, None]).T @ centered / weights.sum()


def measure_average(swapped: Image, reference: Image, mask: Mask) -> Numbers:
    """Measure the footage's mean colour minus the new face's within the mask, (3,).

    This is the "Average Color Adjust" of the classic converter.
    """
    weight = float(mask.sum())
    if weight <= 0:
        return np.zeros(3)
    difference = reference.astype(np.float32) - swapped
    shift: Numbers = np.einsum("yxc,yx->c", difference, mask, dtype=np.float64) / weight
    return shift


def apply_average(swapped: FloatImage, shift: Numbers) -> FloatImage:
    return _limited(swapped + shift.astype(np.float32))


def _limited(pixels: npt.NDArray[Any]) -> FloatImage:
    return np.asarray(np.clip(pixels, 0, 255), np.float32)


def measure_reinhard(swapped: Image, reference: Image, mask: Mask) -> Numbers:
    """Measure the Lab colours of the new face and the footage within the mask, (4, 3).

    The rows are the face's mean and standard deviation, then the footage's.
    E. Reinhard et al., "Color transfer between images", IEEE CG&A 21(5), 2001, but in CIE Lab
    instead of the l-alpha-beta space of the paper.
    """
    if mask.sum() <= 0:
        return np.array([[0.0] * 3, [1.0] * 3] * 2)
    rows = []
    for image in (swapped, reference):
        mean, covariance = _moments(_to_lab(image), mask)
        rows += [mean, np.sqrt(np.maximum(np.diag(covariance), MIN_SPREAD))]
    return np.stack(rows)


def apply_reinhard(swapped: FloatImage, numbers: Numbers) -> FloatImage:
    """Give the face the footage's mean and standard deviation in each Lab channel."""
    mean, deviation, wanted_mean, wanted_deviation = numbers
    gain = wanted_deviation / np.maximum(deviation, math.sqrt(MIN_SPREAD))
    lab = ((_to_lab(swapped) - mean) * gain + wanted_mean).astype(np.float32)
    return _limited(np.asarray(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)) * 255)


def _to_lab(image: Image | FloatImage) -> FloatImage:
    return np.asarray(cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab), np.float32)


def measure_linear(swapped: Image, reference: Image, mask: Mask) -> Numbers:
    """Measure the RGB means of the face and the footage, and a linear map of colours, (5, 3).

    The rows are the face's mean, the footage's mean and the three rows of the map, which turns the
    face's covariance into the footage's.
    F. Pitie and A. Kokaram, "The linear Monge-Kantorovitch linear colour mapping for example-based
    colour transfer", CVMP 2007, eq. 6. Of all maps that give the face the covariance of the
    footage, it moves the colours least.
    """
    if mask.sum() <= 0:
        return np.vstack([np.zeros((2, 3)), np.eye(3)])
    mean, covariance = _moments(swapped, mask)
    wanted_mean, wanted_covariance = _moments(reference, mask)
    root = _power(covariance, 0.5)
    inverse = _power(covariance, -0.5)
    linear_map = inverse @ _power(root @ wanted_covariance @ root, 0.5) @ inverse
    return np.vstack([mean, wanted_mean, linear_map])


def apply_linear(swapped: FloatImage, numbers: Numbers) -> FloatImage:
    """Map the face's colours linearly around their mean, and move that to the footage's mean."""
    return _limited((swapped - numbers[0]) @ numbers[2:] + numbers[1])


def _power(symmetric: Numbers, exponent: float) -> Numbers:
    """Raise a symmetric matrix to a power.

    Eigenvalues below 1 count as 1, so that the inverse of a nearly uniform colour does not explode.
    """
    values, vectors = np.linalg.eigh(symmetric)
    powered: Numbers = vectors * np.maximum(values, 1.0) ** exponent @ vectors.T
    return powered


def measure_histogram(swapped: Image, reference: Image, mask: Mask) -> Numbers:
    """Measure the new value of each of the 256 levels in each channel, (256, 3).

    Histogram matching, R. C. Gonzalez and R. E. Woods, "Digital Image Processing": a level of the
    face maps to the level of the footage that has the same share of darker pixels.
    """
    levels = np.arange(256.0)
    if mask.sum() <= 0:
        return np.stack([levels] * 3, axis=1)
    columns = []
    for channel in range(3):
        shares = []
        for image in (swapped, reference):
            counts = np.bincount(image[..., channel].ravel(), mask.ravel(), minlength=256)
            shares.append((np.cumsum(counts) - counts / 2) / counts.sum())
        columns.append(np.interp(shares[0], shares[1], levels))
    return np.stack(columns, axis=1)


def apply_histogram(swapped: FloatImage, table: Numbers) -> FloatImage:
    levels = np.arange(256.0)
    columns = [np.interp(swapped[..., c], levels, table[:, c]) for c in range(3)]
    return _limited(np.stack(columns, axis=-1))


COLORS: Registry[ColorMatch] = Registry(COLOR_SEAM, {
    "auto": ColorMatch(measure_light, apply_light),
    "average": ColorMatch(measure_average, apply_average),
    "reinhard": ColorMatch(measure_reinhard, apply_reinhard),
    "linear": ColorMatch(measure_linear, apply_linear),
    "histogram": ColorMatch(measure_histogram, apply_histogram),
    "none": ColorMatch(lambda *_: np.zeros(0), lambda swapped, _: swapped),
})  # fmt: skip


def alpha(rect: FloatImage, face: FloatImage, mask: Mask) -> FloatImage:
    """Return ``rect * (1 - mask) + face * mask``, computed on display-encoded values."""
    return rect + mask[..., np.newaxis] * (face - rect)


def alpha_linear(rect: FloatImage, face: FloatImage, mask: Mask) -> FloatImage:
    """Blend like :func:`alpha`, but in linear light (sRGB transfer, IEC 61966-2-1)."""
    mixed = _to_linear(rect) + mask[..., np.newaxis] * (_to_linear(face) - _to_linear(rect))
    dark, bright = 12.92 * mixed, 1.055 * np.maximum(mixed, 0) ** (1 / 2.4) - 0.055
    shown = np.where(mixed <= 0.0031308, dark, bright) * 255
    return np.where(mask[..., np.newaxis] > 0, shown, rect).astype(np.float32)


def _to_linear(pixels: FloatImage) -> FloatImage:
    share = pixels / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear.astype(np.float32)


def poisson(rect: FloatImage, face: FloatImage, mask: Mask) -> FloatImage:
    """Keep the face's gradients, take the frame's colours at the edge, then apply :func:`alpha`.

    P. Perez, M. Gangnet and A. Blake, "Poisson image editing", ACM TOG 22(3), 2003. OpenCV centres
    the mask's bounding box on the given point, so passing that box's own centre leaves the face in
    place.
    """
    inner = np.zeros(mask.shape, np.uint8)
    # seamlessClone does not accept a mask that touches the border.
    inner[1:-1, 1:-1] = (mask[1:-1, 1:-1] > 0.01) * np.uint8(255)
    if not inner.any():
        return alpha(rect, face, mask)
    left, top, width, height = cv2.boundingRect(inner)
    center = (left + width // 2, top + height // 2)
    cloned = cv2.seamlessClone(rounded(face), rounded(rect), inner, center, cv2.NORMAL_CLONE)
    return alpha(rect, np.asarray(cloned, np.float32), mask)


def pyramid(rect: FloatImage, face: FloatImage, mask: Mask) -> FloatImage:
    """Blend coarse structure across a wide seam and fine structure across a narrow one.

    P. J. Burt and E. H. Adelson, "A multiresolution spline with application to image mosaics", ACM
    TOG 2(4), 1983. The result is then blended by the mask as in :func:`alpha`, so that pixels where
    the mask is 0 stay unchanged.
    """
    below, above = rect, face
    share = (mask > 0.5).astype(np.float32)
    details: list[FloatImage] = []
    for _ in range(LEVELS):
        if min(below.shape[:2]) < 4:
            break
        size = (below.shape[1], below.shape[0])
        coarse = [np.asarray(cv2.pyrDown(image), np.float32) for image in (below, above, share)]
        fine = [
            image - np.asarray(cv2.pyrUp(small, dstsize=size), np.float32)
            for image, small in zip((below, above), coarse, strict=False)
        ]
        details.append(fine[0] + share[..., np.newaxis] * (fine[1] - fine[0]))
        below, above, share = coarse
    mixed = below + share[..., np.newaxis] * (above - below)
    for detail in reversed(details):
        mixed = np.asarray(cv2.pyrUp(mixed, dstsize=detail.shape[1::-1]), np.float32) + detail
    return np.asarray(rect + mask[..., np.newaxis] * (mixed - rect), np.float32)


BLENDS: Registry[Mix] = Registry(BLEND_SEAM, {
    "alpha": alpha, "linear": alpha_linear, "poisson": poisson, "pyramid": pyramid,
})  # fmt: skip


def paste(frame: Frame, swap: Swap, blend: str | Mix = "alpha") -> Frame:
    """Blend a swapped face into its frame.

    The built-in blends leave pixels where the mask is 0 bit-identical. What is brighter than a
    display's white in the footage, or darker than black, is left out while the face is blended, and
    added again, so that highlights of film images keep their light.

    Args:
        frame: The frame, with the faces that are already pasted.
        swap: The face, after its colours and detail have been applied.
        blend: The name of a blend, or a function.

    Raises:
        SettingsError: If there is no blend of this name, or its plug-in cannot be imported.
    """
    box = box_in_frame(swap, *frame.shape)
    if box is None:
        return frame
    left, top, right, bottom = box
    to_box = shifted(invert(swap.aligned.matrix), left, top)
    width, height = right - left, bottom - top
    mask = warp_mask(swap.mask, to_box, width, height)
    mask[mask < LEAST_SHARE] = 0
    # The swapper leaves no detail in the crop that is finer than a frame pixel, so point sampling
    # loses nothing. Averaging would blur the face.
    face = warp_image_at(swap.image, to_box, width, height)
    mix = BLENDS.resolve(blend)
    footage = frame.rgb_float(box)
    if footage.min() >= 0 and footage.max() <= 255:
        return frame.changed(box, np.clip(mix(footage, face, mask), 0, 255))
    shown = np.clip(footage, 0, 255)
    mixed = np.clip(mix(shown, face, mask), 0, 255) + (footage - shown)
    return frame.changed(box, np.where(mask[..., np.newaxis] > 0, mixed, footage))


def layer(frame: Frame, swaps: list[Swap]) -> Frame:
    """Return the frame repainted with only the swapped faces, on a transparent background.

    The pixels are straight (not premultiplied) RGBA, (H, W, 4).
    """
    height, width = frame.shape
    pixels = np.zeros((height, width, 4), np.float32)
    for swap in swaps:
        box = box_in_frame(swap, height, width)
        if box is None:
            continue
        left, top, right, bottom = box
        to_box = shifted(invert(swap.aligned.matrix), left, top)
        mask = warp_mask(swap.mask, to_box, right - left, bottom - top)[..., np.newaxis]
        face = warp_image_at(swap.image, to_box, right - left, bottom - top)
        below = pixels[top:bottom, left:right]
        share = mask + below[..., 3:] * (1 - mask)  # "over" of T. Porter and T. Duff, 1984
        mixed = face * mask + below[..., :3] * below[..., 3:] * (1 - mask)
        below[..., :3] = mixed / np.maximum(share, MIN_SPREAD)
        below[..., 3:] = share
    pixels[..., 3] = np.rint(255 * pixels[..., 3])
    return frame.repainted(np.clip(pixels, 0, 255))


def box_in_frame(swap: Swap, height: int, width: int) -> Rect | None:
    """Return the rect of frame pixels that a swap's mask reaches.

    The result is None if the mask is empty or lies outside the frame.
    """
    rows, columns = np.flatnonzero(swap.mask.any(axis=1)), np.flatnonzero(swap.mask.any(axis=0))
    if not len(rows):
        return None
    top, bottom, left, right = rows[0] - 1, rows[-1] + 1, columns[0] - 1, columns[-1] + 1
    corners: Points = np.array(
        [(left, top), (right, top), (right, bottom), (left, bottom)], dtype=np.float32
    )
    reached = transform(corners, invert(swap.aligned.matrix))
    low, high = reached.min(axis=0), reached.max(axis=0)
    box = (
        max(math.floor(low[0]), 0),
        max(math.floor(low[1]), 0),
        min(math.ceil(high[0]) + 1, width),
        min(math.ceil(high[1]) + 1, height),
    )
    return box if box[0] < box[2] and box[1] < box[3] else None
