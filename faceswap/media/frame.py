"""Frames whose pixels are converted on demand, and the changes made to them."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import FloatImage, Image, Rect

# An alpha channel, (H, W): uint8, or uint16 for images with more than 8 bits. The largest number of
# the type is opaque.
Alpha = npt.NDArray[Any]
Change = tuple[Rect, Image | FloatImage]  # a rect and its new pixels

MAX_PIXELS = 2**28  # per photo or video frame: 800 MB as RGB


def check_pixels(width: int, height: int) -> None:
    """Refuse an image that is so large that it could exhaust the memory.

    Raises:
        ValueError: If the image has more than MAX_PIXELS pixels.
    """
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"it has {width}x{height} pixels; the limit is {MAX_PIXELS // 10**6} megapixels, "
            "so scale it down first"
        )


class PixelSource(Protocol):
    """A decoded, upright image that converts only the pixels a caller asks for."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""

    def rgb(self, rect: Rect) -> Image:
        """Return the pixels of a rect, (H, W, 3)."""

    def rgb_float(self, rect: Rect) -> FloatImage:
        """Return the same pixels at the stored bit depth, scaled to 0..255."""

    def gray(self) -> Image:
        """Return the grey levels of the whole image with 8 bits, (H, W)."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One upright photo or video frame, and the changes made to it.

    A video frame is converted to RGB only where pixels are read, and converted back only where
    they changed.

    Attributes:
        pixels: RGB array (H, W, 3), or a source that converts on demand.
        index: Position in the source, from 0.
        time: Seconds on the source's own timeline; 0 for a photo.
        source: File the frame was read from.
        changes: Rects that do not overlap, with their new pixels, (H, W, 3) or (H, W, 4).
        solid: Rects that stay opaque in a transparent image, such as a label's, with their least
            opacity (H, W), 0..255, or None if they are fully opaque.
        luma: What is added to the brightness of all pixels at last, in 8-bit levels, (H, W).
        is_data: Whether it shows data, such as a matte, which no colour space may change.
    """

    pixels: Image | PixelSource
    index: int
    time: Fraction
    source: Path
    changes: tuple[Change, ...] = ()
    solid: tuple[tuple[Rect, Image | None], ...] = ()
    luma: FloatImage | None = None
    is_data: bool = False

    @property
    def is_untouched(self) -> bool:
        """Whether the frame is as it was read."""
        return not self.changes and self.luma is None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.pixels.shape[:2]
        return height, width

    @property
    def image(self) -> Image:
        """The whole frame with its changes, (H, W, 3)."""
        if isinstance(self.pixels, np.ndarray) and self.is_untouched:
            return self.pixels
        height, width = self.shape
        return self.crop((0, 0, width, height))

    @property
    def layer(self) -> FloatImage | None:
        """The RGBA image (H, W, 4) of a frame repainted with transparency, otherwise None."""
        if not self.changes or self.changes[0][1].shape[2] != 4:
            return None
        rgba = self.changes[0][1].astype(np.float32)
        if self.luma is not None:
            rgba[..., :3] += np.where(rgba[..., 3] > 0, self.luma, 0)[..., np.newaxis]
        return rgba

    def crop(self, rect: Rect) -> Image:
        """Return a copy of the pixels of a rect, (H, W, 3)."""
        if self.luma is not None:
            return rounded(self.rgb_float(rect))
        left, top, right, bottom = rect
        if isinstance(self.pixels, np.ndarray):
            pixels = self.pixels[top:bottom, left:right].copy()
        else:
            pixels = self.pixels.rgb(rect)
        for changed, new in self.changes:
            _overlay(pixels, rect, changed, rounded(new))
        return pixels

    def rgb_float(self, rect: Rect) -> FloatImage:
        """Return the pixels of a rect at the stored bit depth, scaled to 0..255, (H, W, 3)."""
        left, top, right, bottom = rect
        if isinstance(self.pixels, np.ndarray):
            pixels = self.pixels[top:bottom, left:right].astype(np.float32)
        else:
            pixels = self.pixels.rgb_float(rect)
        for changed, new in self.changes:
            _overlay(pixels, rect, changed, new)
        if self.luma is not None:  # as much in each channel, so that colours stay
            pixels += self.luma[top:bottom, left:right, np.newaxis]
        return pixels

    def gray(self) -> Image:
        """Return the grey levels of the frame as it was read, ignoring changes, (H, W)."""
        if isinstance(self.pixels, np.ndarray):
            return gray_of_rgb(self.pixels)
        return self.pixels.gray()

    def changed(self, rect: Rect, pixels: Image | FloatImage) -> Self:
        """Return the frame with new pixels (H, W, 3) in a rect.

        Changes that overlap the rect are merged with it, so that all changes stay disjoint.
        """
        assert self.luma is None, "the brightness is changed last"
        disjoint = tuple(change for change in self.changes if not _overlap(change[0], rect))
        if len(disjoint) < len(self.changes):
            overlapping = [change[0] for change in self.changes if _overlap(change[0], rect)]
            lows, highs = zip(*((r[:2], r[2:]) for r in (rect, *overlapping)), strict=True)
            (left, top), (right, bottom) = map(min, zip(*lows)), map(max, zip(*highs))  # noqa: B905
            union = (left, top, right, bottom)
            merged = self.rgb_float(union)
            _overlay(merged, union, rect, pixels)
            return replace(self, changes=disjoint).changed(union, merged)
        return replace(self, changes=(*disjoint, (rect, pixels)))

    def covered(self, rect: Rect, pixels: Image) -> Self:
        """Return the frame with new pixels (H, W, 3) in a rect that becomes opaque."""
        return self.changed(rect, pixels).solid_at(rect)

    def solid_at(self, rect: Rect, opacity: Image | None = None) -> Self:
        """Return the frame with a least opacity (H, W), 0..255, in a rect; None is fully opaque."""
        return replace(self, solid=(*self.solid, (rect, opacity)))

    def with_solid(self, alpha: Alpha) -> Alpha:
        """Return the upright alpha channel (H, W) of the image with what is solid filled in."""
        if not self.solid:
            return alpha
        filled, highest = alpha.copy(), np.iinfo(alpha.dtype).max
        for (left, top, right, bottom), least in self.solid:
            part = filled[top:bottom, left:right]
            if least is None:
                part[:] = highest
            else:
                np.maximum(part, least.astype(alpha.dtype) * (highest // 255), out=part)
        return filled

    @property
    def is_opaque(self) -> bool:
        """Whether nothing is left of the transparency of the image."""
        height, width = self.shape
        return ((0, 0, width, height), None) in self.solid

    def repainted(self, image: Image | FloatImage, *, is_data: bool = False) -> Self:
        """Return the frame with all pixels replaced by RGB (H, W, 3) or RGBA (H, W, 4)."""
        height, width = self.shape
        whole = (0, 0, width, height)
        return replace(
            self, changes=((whole, image),), solid=((whole, None),), luma=None, is_data=is_data
        )

    def brightened(self, luma: FloatImage) -> Self:
        """Return the frame with something added to its brightness in 8-bit levels, (H, W).

        Nothing is added to what is opaque, such as a label. No other change may follow.
        """
        added = luma.copy()
        if not self.is_opaque:
            for (left, top, right, bottom), _ in self.solid:
                added[top:bottom, left:right] = 0
        return replace(self, luma=added)


def _overlap(first: Rect, second: Rect) -> bool:
    horizontally = max(first[0], second[0]) < min(first[2], second[2])
    return horizontally and max(first[1], second[1]) < min(first[3], second[3])


def gray_of_rgb(image: Image) -> Image:
    """Return the grey levels of RGB pixels (H, W, 3), (H, W)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def rounded(pixels: npt.NDArray[Any]) -> Image:
    """Round values to integers and clip them to 0..255."""
    if pixels.dtype == np.uint8:
        return pixels
    levels: Image = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return levels


def _overlay(pixels: npt.NDArray[Any], rect: Rect, other: Rect, new: npt.NDArray[Any]) -> None:
    """Copy ``new``, the pixels of ``other``, into those of ``rect`` where the rects overlap."""
    left, top = max(rect[0], other[0]), max(rect[1], other[1])
    right, bottom = min(rect[2], other[2]), min(rect[3], other[3])
    if left < right and top < bottom:
        part = new[top - other[1] : bottom - other[1], left - other[0] : right - other[0]]
        pixels[top - rect[1] : bottom - rect[1], left - rect[0] : right - rect[0]] = part
