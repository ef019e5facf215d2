"""Match a swapped face's colour to the footage and blend it into the frame, once.

Work is done only in the box of the frame that the mask reaches; outside the mask not a bit changes.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from faceswap.config import BlendName, ColorName
from faceswap.geometry import invert, shifted, transform, warp_image_at, warp_mask
from faceswap.types import Frame, Image, Mask, Points, Swap

ColorMatch = Callable[[Image, Image, Mask], Image]
Blend = Callable[[Image, Swap], Image]


def average(swapped: Image, reference: Image, mask: Mask) -> Image:
    """Average Color Adjust: shift the mean colour within the mask to the reference's.

    Args:
        swapped: The new face, (S, S, 3).
        reference: The footage it replaces, (S, S, 3).
        mask: Where to measure, (S, S); its values weigh the pixels.

    Returns:
        The shifted face, (S, S, 3); unchanged if the mask is empty.
    """
    weight = float(mask.sum())
    if weight <= 0:
        return swapped
    difference = reference.astype(np.float32) - swapped
    shift = np.einsum("yxc,yx->c", difference, mask) / weight
    matched: Image = np.clip(np.rint(swapped + shift), 0, 255).astype(np.uint8)
    return matched


def unmatched(swapped: Image, reference: Image, mask: Mask) -> Image:  # noqa: ARG001 - the seam's form
    """Leave the colours as the network painted them."""
    return swapped


COLORS: dict[ColorName, ColorMatch] = {"average": average, "none": unmatched}


def alpha(image: Image, swap: Swap) -> Image:
    """Blend ``image * (1 - mask) + swap * mask`` in display light, within the mask's box.

    Args:
        image: The frame, (H, W, 3).
        swap: The crop to paste.

    Returns:
        A new frame, (H, W, 3), bit-equal to ``image`` wherever the mask is 0.
    """
    box = _box_in_frame(swap, *image.shape[:2])
    if box is None:
        return image
    left, top, right, bottom = box
    to_box = shifted(invert(swap.aligned.matrix), left, top)
    width, height = right - left, bottom - top
    mask = warp_mask(swap.mask, to_box, width, height)[..., np.newaxis]
    # A crop holds no detail finer than the frame it was cut from: point sampling loses nothing and
    # gives an unchanged crop back exactly, which averaging would blur.
    face = warp_image_at(swap.image, to_box, width, height)
    result = image.copy()
    window = result[top:bottom, left:right]
    blended = window + mask * (face.astype(np.float32) - window)
    window[:] = np.rint(blended)
    return result


BLENDS: dict[BlendName, Blend] = {"alpha": alpha}


def _box_in_frame(swap: Swap, height: int, width: int) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the frame's pixels that the mask reaches; None if none."""
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


def paste(frame: Frame, swap: Swap, blend: BlendName | Blend = "alpha") -> Frame:
    """Put a swapped face into its frame."""
    blender = blend if callable(blend) else BLENDS[blend]
    return replace(frame, image=blender(frame.image, swap))
