"""Images in a colour space of their own: EXR, DPX, and others whose colour space is stated.

Their pixels stay as they are stored. The detector, the network and the blend see what a display
would show (:mod:`faceswap.media.views`). Only pixels that change there are converted back.
"""

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceswap.arrays import FloatImage, Image, Rect
from faceswap.errors import InputError
from faceswap.media import dpx, exr
from faceswap.media.frame import Frame, check_pixels, gray_of_rgb, rounded
from faceswap.media.views import LINEAR_REC709, View, as_stored, space_by_rule, view_of

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".exr", ".dpx"})
# No photo of a scene has so light a black and so dark a white in linear light; log encodings have.
LOG_BLACK, LOG_WHITE = 0.06, 1.05
MIN_ASPECT, MAX_ASPECT = 0.1, 10.0  # pixel aspect ratios that are believed
DARKEST, BRIGHTEST = 0.1, 99.9  # percentiles


@dataclass(frozen=True, slots=True, eq=False)
class FilmImage:
    """An upright image in a colour space of its own.

    Attributes:
        pixels: Its colours as they are stored, (H, W, 3): floating-point numbers, or integer codes.
        view: How they are shown.
        largest: The largest code, which stands for 1; it is 1 for floating-point numbers.
        is_gray: Whether the file stores grey levels, which are in all three channels here.
        alpha: The alpha channel of a TIFF or PNG as it is stored, (H, W); None if there is none.
            That of an EXR or a DPX is not read, and kept.
    """

    pixels: npt.NDArray[Any]
    view: View
    largest: int = 1
    is_gray: bool = False
    alpha: npt.NDArray[Any] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def rgb(self, rect: Rect) -> Image:
        """Return the pixels of a rect as a display shows them, (H, W, 3)."""
        return rounded(self.rgb_float(rect))

    def rgb_float(self, rect: Rect) -> FloatImage:
        """Return the same pixels without rounding; they may be below 0 and above 255."""
        left, top, right, bottom = rect
        # Whole lines, so that a pixel's value does not depend on its place in a vector register.
        lines = self.pixels[top:bottom].astype(np.float32)
        shown = self.view.shown(lines if self.largest == 1 else lines / np.float32(self.largest))
        return np.ascontiguousarray(shown[:, left:right])

    def gray(self) -> Image:
        """Return the grey levels of the whole image with 8 bits, (H, W)."""
        height, width = self.shape
        return gray_of_rgb(self.rgb((0, 0, width, height)))

    def alpha_levels(self) -> npt.NDArray[np.uint16] | None:
        """Return the alpha channel with 16 bits, (H, W); None if there is none."""
        if self.alpha is None:
            return None
        levels = self.alpha * np.float32(65535 / self.largest)
        return np.clip(np.rint(levels), 0, 65535).astype(np.uint16)

    def with_changes(self, frame: Frame) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the pixels with the changes of a frame, and where they changed.

        Args:
            frame: A frame with this image.

        Returns:
            pixels: Like :attr:`pixels`; the others are as they were, bit for bit.
            changed: (H, W).
        """
        height, width = self.shape
        whole = (0, 0, width, height)
        levels = frame.rgb_float(whole)
        changed = (levels != self.rgb_float(whole)).any(axis=2)
        pixels = self.pixels.copy()
        new = self.view.stored(levels[changed][np.newaxis])[0]
        if self.pixels.dtype.kind == "f":
            limit = np.finfo(self.pixels.dtype).max
            pixels[changed] = np.clip(new, -limit, limit)
        else:
            pixels[changed] = np.clip(np.rint(new * self.largest), 0, self.largest)
        return pixels, changed


def read_film(path: Path, colorspace: str | None = None) -> FilmImage | None:
    """Read an EXR or a DPX; return None for any other file.

    Args:
        path: The file.
        colorspace: Its colour space. None takes that of its attributes, of the file rules of the
            user's configuration, or of the format: linear Rec.709 for EXR, and for DPX what the
            header says.

    Raises:
        InputError: If the user's configuration of OpenColorIO cannot be read.
        ValueError: If the file is damaged, too large or not supported, or the colour space that it
            states is not known.
        OSError: If it cannot be read.
        SettingsError: If there is no such colour space, or a library is not installed.
    """
    mark = _mark(path)
    if mark == exr.MARK:
        layout = exr.read_layout(path)
        check_pixels(*layout.shape)
        view = view_of(colorspace or layout.space or space_by_rule(path) or LINEAR_REC709)
        return FilmImage(exr.read_pixels(path, layout), view, is_gray=len(layout.channels) == 1)
    if mark not in dpx.MARKS:
        if path.suffix.lower() in SUFFIXES:
            raise ValueError("its content is neither that of an EXR nor that of a DPX")
        return None
    header = dpx.read_layout(path)
    check_pixels(header.width, header.height)
    view = _view_of_dpx(path, header, colorspace)
    codes = dpx.read_codes(path, header)
    is_gray = header.channels == 1
    colors = np.repeat(codes, 3, axis=2) if is_gray else codes[..., :3]
    return FilmImage(colors, view, header.largest, is_gray)


def _view_of_dpx(path: Path, header: dpx.Layout, colorspace: str | None) -> View:
    name = colorspace or space_by_rule(path)
    if name:
        return view_of(name)
    return view_of(LINEAR_REC709) if header.transfer == dpx.LINEAR else as_stored()


def _mark(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def is_film(path: Path) -> bool:
    """Return whether a file is an EXR or a DPX, judged by its first bytes.

    Raises:
        OSError: If it cannot be read.
    """
    mark = _mark(path)
    return mark == exr.MARK or mark in dpx.MARKS


def rate_of(path: Path) -> Fraction | None:
    """Return the frames per second that an EXR or a DPX states; None if it states none."""
    layout = _layout_of(path)
    return layout.rate if layout else None


def pixel_aspect_of(path: Path) -> float:
    """Return the width of a pixel over its height that an EXR or a DPX states; otherwise 1."""
    layout = _layout_of(path)
    aspect = layout.aspect if layout else 1.0
    return aspect if MIN_ASPECT <= aspect <= MAX_ASPECT else 1.0


def _layout_of(path: Path) -> "exr.Layout | dpx.Layout | None":
    """Return what the header of an EXR or a DPX says.

    A file that cannot be read says nothing; its reader says why.
    """
    try:
        mark = _mark(path)
        if mark == exr.MARK:
            return exr.read_layout(path)
        return dpx.read_layout(path) if mark in dpx.MARKS else None
    except (OSError, ValueError):
        return None


def check_colorspace(path: Path, colorspace: str | None) -> None:
    """Refuse a DPX whose colour space nobody states.

    Other files, and files that cannot be read, are left to their reader.

    Args:
        path: The file.
        colorspace: The colour space that the user states; None for none.

    Raises:
        InputError: If its codes are logarithmic, and no colour space is stated.
        SettingsError: If OpenColorIO is needed, but not installed.
    """
    try:
        is_log = _mark(path) in dpx.MARKS and dpx.read_layout(path).transfer in dpx.LOG
    except (OSError, ValueError):
        return
    if is_log and not (colorspace or space_by_rule(path)):
        raise InputError(
            f"{path} has logarithmic codes, and a DPX does not say of which camera or film: name "
            "the colour space, such as --colorspace 'ARRI LogC3 (EI800)'"
        )


def warn_of_log(path: Path, colorspace: str | None) -> None:
    """Warn of an EXR that is taken for linear light, but looks like a log encoding.

    Args:
        path: The file.
        colorspace: The colour space that the user states; None for none.

    Raises:
        SettingsError: If a library is not installed.
    """
    try:
        if colorspace or space_by_rule(path) or _mark(path) != exr.MARK:
            return
        image = read_film(path)
    except (OSError, ValueError):  # its reader says why it cannot be read
        return
    if image and _looks_log(image):
        log.warning(
            "%s says that its light is linear, but nothing in it is dark or bright as in linear "
            "light: if it is a log encoding, name its colour space with --colorspace", path,
        )  # fmt: skip


def _looks_log(image: FilmImage) -> bool:
    """Return whether an image that claims to be in linear light looks like a log encoding.

    Log encodings lift black above LOG_BLACK, and have no value far above 1.
    """
    finite = image.pixels[np.isfinite(image.pixels)].astype(np.float32)
    if not finite.size:
        return False
    dark, bright = np.percentile(finite, (DARKEST, BRIGHTEST))
    return bool(dark > LOG_BLACK and bright < LOG_WHITE)


def write_copy(path: Path, source: Path, frame: Frame, image: FilmImage) -> None:
    """Write a copy of an EXR or a DPX with the changes of a frame; all else stays bit for bit.

    Args:
        path: The file to write.
        source: The original.
        frame: The frame.
        image: Its image.

    Raises:
        ValueError: If the original has been damaged since it was read.
        OSError: If it cannot be read again, or the copy cannot be written.
    """
    pixels, changed = image.with_changes(frame)
    if _mark(source) == exr.MARK:
        exr.write_copy(path, source, pixels, changed)
    else:
        dpx.write_copy(path, source, pixels)
