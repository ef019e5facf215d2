"""Frames: pixels that are decoded where they are asked for, and what was changed in them."""

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from faceswap.types import LUMA, FloatImage, Image, Rect

Change = tuple[Rect, Image | FloatImage]  # where, and the new pixels


class PixelSource(Protocol):
    """A decoded picture, upright, that gives its pixels where they are asked for."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""

    def rgb(self, rect: Rect) -> Image:
        """The pixels of a rect, (H, W, 3)."""

    def rgb_float(self, rect: Rect) -> FloatImage:
        """The same with all the depth that is stored."""

    def gray(self) -> Image:
        """The whole picture without colour, (H, W)."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One photo or one frame of a video, upright, and what has been changed in it.

    A frame of a video is converted to RGB only where somebody asks for it, and converted back only
    where it was changed.

    Attributes:
        pixels: (H, W, 3) RGB, or what gives it.
        index: Position in its source, from 0.
        time: Seconds from the source's own zero; 0 for a photo.
        source: The file it was read from.
        changes: Windows that do not meet, and their new pixels, (H, W, 3) or (H, W, 4).
    """

    pixels: Image | PixelSource
    index: int
    time: Fraction
    source: Path
    changes: tuple[Change, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.pixels.shape[:2]
        return height, width

    @property
    def image(self) -> Image:
        """All of it, (H, W, 3)."""
        if isinstance(self.pixels, np.ndarray) and not self.changes:
            return self.pixels
        height, width = self.shape
        return self.crop((0, 0, width, height))

    @property
    def layer(self) -> Image | None:
        """All of it (H, W, 4), if it was repainted with transparency."""
        if self.changes and self.changes[0][1].shape[2] == 4:
            return rounded(self.changes[0][1])
        return None

    def crop(self, rect: Rect) -> Image:
        """The pixels of a rect, (H, W, 3)."""
        left, top, right, bottom = rect
        if isinstance(self.pixels, np.ndarray):
            pixels = self.pixels[top:bottom, left:right].copy()
        else:
            pixels = self.pixels.rgb(rect)
        for changed, new in self.changes:
            _overlay(pixels, rect, changed, rounded(new))
        return pixels

    def rgb_float(self, rect: Rect) -> FloatImage:
        """The pixels of a rect with all their depth, (H, W, 3)."""
        left, top, right, bottom = rect
        if isinstance(self.pixels, np.ndarray):
            pixels = self.pixels[top:bottom, left:right].astype(np.float32)
        else:
            pixels = self.pixels.rgb_float(rect)
        for changed, new in self.changes:
            _overlay(pixels, rect, changed, new)
        return pixels

    def gray(self) -> Image:
        """The picture as it was read, without colour, (H, W)."""
        if isinstance(self.pixels, np.ndarray):
            return rounded(self.pixels @ LUMA)
        return self.pixels.gray()

    def changed(self, rect: Rect, pixels: Image | FloatImage) -> Self:
        """The same frame with new pixels (H, W, 3) in a rect."""
        apart = tuple(change for change in self.changes if not _meet(change[0], rect))
        if len(apart) < len(self.changes):
            met = [change[0] for change in self.changes if _meet(change[0], rect)]
            lows, highs = zip(*((w[:2], w[2:]) for w in (rect, *met)), strict=True)
            (left, top), (right, bottom) = map(min, zip(*lows)), map(max, zip(*highs))  # noqa: B905
            both = (left, top, right, bottom)
            merged = self.rgb_float(both)
            _overlay(merged, both, rect, pixels)
            return replace(self, changes=apart).changed(both, merged)
        return replace(self, changes=(*apart, (rect, pixels)))

    def repainted(self, image: Image) -> Self:
        """The same frame with other pixels everywhere, (H, W, 3) or with transparency (H, W, 4)."""
        height, width = self.shape
        return replace(self, changes=(((0, 0, width, height), image),))


def _meet(one: Rect, other: Rect) -> bool:
    across = max(one[0], other[0]) < min(one[2], other[2])
    return across and max(one[1], other[1]) < min(one[3], other[3])


def rounded(pixels: npt.NDArray[Any]) -> Image:
    """Values clipped to 0..255 and rounded to whole ones."""
    if pixels.dtype == np.uint8:
        return pixels
    levels: Image = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return levels


def _overlay(pixels: npt.NDArray[Any], rect: Rect, other: Rect, above: npt.NDArray[Any]) -> None:
    """Put what lies in the rect ``other`` over the pixels of ``rect``, where they meet."""
    left, top = max(rect[0], other[0]), max(rect[1], other[1])
    right, bottom = min(rect[2], other[2]), min(rect[3], other[3])
    if left < right and top < bottom:
        part = above[top - other[1] : bottom - other[1], left - other[0] : right - other[0]]
        pixels[top - rect[1] : bottom - rect[1], left - rect[0] : right - rect[0]] = part
