"""Read the colours of OpenEXR images, and write copies in which only some pixels differ.

A copy keeps all parts, channels and attributes, and how they are stored. Only compressions that
would change the other pixels, such as DWAA, are replaced by ZIP.
"""

import contextlib
import logging
import shutil
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceswap.errors import SettingsError
from faceswap.media.frame import Frame

log = logging.getLogger(__name__)

_PRINTING = threading.Lock()  # redirecting stdout affects every thread
MARK = b"v/1\x01"  # magic number 20000630, little-endian
# Layers that hold the picture, where no channels without a layer do; then the first layer is taken.
USUAL_LAYERS = ("", "rgba", "rgb", "beauty", "left")
Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive
Plane = npt.NDArray[Any]  # (H, W), float16, float32 or uint32
Pixels = npt.NDArray[Any]  # (H, W, 3), float16 or float32


@dataclass(frozen=True, slots=True)
class Layout:
    """What the header says about the picture.

    Attributes:
        part: Number of the part that holds it.
        channels: Names of its red, green and blue channels, or of the grey one.
        data: The data window, whose pixels are stored.
        whole: The window that holds both the data window and the display window.
        space: Identifier of the colour space, if an attribute states one.
        rate: Frames per second; None if no attribute states it.
        aspect: Width of a pixel over its height, as stated; it may be undefined.
    """

    part: int
    channels: tuple[str, ...]
    data: Window
    whole: Window
    space: str | None
    rate: Fraction | None
    aspect: float

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the whole window."""
        left, top, right, bottom = self.whole
        return bottom - top, right - left

    @property
    def stored(self) -> tuple[slice, slice]:
        """Rows and columns of the whole window that are stored."""
        left, top = self.data[0] - self.whole[0], self.data[1] - self.whole[1]
        height, width = self.data[3] - self.data[1], self.data[2] - self.data[0]
        return slice(top, top + height), slice(left, left + width)


def _library() -> Any:
    try:
        import OpenEXR
    except ImportError as error:
        raise SettingsError("EXR images need OpenEXR: pip install 'faceswap[film]'") from error
    return OpenEXR


def check_installed() -> None:
    """Check that EXRs can be read and written.

    Raises:
        SettingsError: If OpenEXR is not installed.
    """
    _library()


def _opened(path: Path, header_only: bool) -> Any:
    """Open a file with its channels one by one.

    Raises:
        ValueError: If it is damaged.
        OSError: If it cannot be read.
        SettingsError: If OpenEXR is not installed.
    """
    library = _library()
    # Read a stream, because the library refuses names that are not UTF-8. It drops parts that it
    # cannot read, and says so on stdout, which may be a report.
    with path.open("rb") as file, _PRINTING, contextlib.redirect_stdout(sys.stderr):
        try:
            return library.File(file, separate_channels=True, header_only=header_only)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"the EXR is damaged or not supported: {error}") from error


def _read(path: Path) -> Any:
    """Open a file with all its pixels; errors as in :func:`_opened`."""
    header, file = _opened(path, header_only=True), _opened(path, header_only=False)
    if len(file.parts) < len(header.parts):
        raise ValueError("the EXR is damaged: not all pixels can be read")
    return file


def read_layout(path: Path) -> Layout:
    """Read the header of an EXR.

    Raises:
        ValueError: If it is damaged, or none of its parts holds colours or grey levels.
        OSError: If it cannot be read.
        SettingsError: If OpenEXR is not installed.
    """
    library, parts = _library(), _opened(path, header_only=True).parts
    flat = (library.scanlineimage, library.tiledimage)
    if any(part.header["type"] not in flat for part in parts):
        raise ValueError("it is a deep image; flatten it first")
    if any("tiles" in p.header and p.header["tiles"].mode != library.ONE_LEVEL for p in parts):
        raise ValueError("it holds copies of several sizes, as textures do; export one size")
    number, channels = _colors([{c.name: c for c in part.header["channels"]} for part in parts])
    header = parts[number].header
    (left, top), (right, bottom) = (corner.tolist() for corner in header["dataWindow"])
    data = left, top, right + 1, bottom + 1
    (left, top), (right, bottom) = (corner.tolist() for corner in header["displayWindow"])
    whole = (
        min(left, data[0]), min(top, data[1]), max(right + 1, data[2]), max(bottom + 1, data[3])
    )  # fmt: skip
    rate = header.get("framesPerSecond")
    is_rate = isinstance(rate, Fraction) and 1 <= rate <= 1000
    return Layout(
        number, channels, data, whole, _space(header), rate if is_rate else None,
        float(header.get("pixelAspectRatio", 1)),
    )  # fmt: skip


def _colors(parts: list[dict[str, Any]]) -> tuple[int, tuple[str, ...]]:
    """Return the part that holds the picture, and the names of its channels."""
    found: dict[tuple[int, str], tuple[str, ...]] = {}
    for number, channels in enumerate(parts):
        for layer in dict.fromkeys(name.rpartition(".")[0] for name in channels):
            within = f"{layer}." if layer else ""
            for names in ("RGB", "rgb", "Y"):
                wanted = tuple(within + name for name in names)
                # Y may be the second coordinate of a vector, or come with RY and BY.
                is_other = any(within + name in channels for name in ("X", "RY"))
                if is_other or not all(name in channels for name in wanted):
                    continue
                if all(channels[n].xSampling == channels[n].ySampling == 1 for n in wanted):
                    found.setdefault((number, layer), wanted)
    if not found:
        names = ", ".join(dict.fromkeys(name for channels in parts for name in channels))
        raise ValueError(f"it has neither channels R, G and B nor Y, but {names or 'none'}")
    layers = [layer for _, layer in found]
    usual = next((layer for layer in USUAL_LAYERS if layer in layers), layers[0])
    key = next(key for key in found if key[1] == usual)
    return key[0], found[key]


def _space(header: dict[str, Any]) -> str | None:
    """Return the identifier of the colour space that the attributes of a header state."""
    stated = header.get("colorInteropID")
    if isinstance(stated, str) and stated not in ("", "unknown"):
        return stated
    if header.get("acesImageContainerFlag") == 1:  # SMPTE ST 2065-4
        return "lin_ap0_scene"
    chromaticities = header.get("chromaticities")
    found = chromaticities and _library().chromaticitiesToColorInteropID(chromaticities)
    if chromaticities and not found:
        raise ValueError(
            "its chromaticities are those of no known colour space; name one with --colorspace"
        )
    return found or None


def read_pixels(path: Path, layout: Layout) -> Pixels:
    """Return the colours of the whole window, (H, W, 3); what is not stored is black.

    They are float16 if all three channels are, and float32 otherwise.

    Raises:
        ValueError: If the file is damaged.
        OSError: If it cannot be read.
        SettingsError: If OpenEXR is not installed.
    """
    planes = _planes(_read(path), layout)
    pixels = np.zeros((*layout.shape, 3), np.result_type(*planes))
    for place, plane in enumerate(planes if len(planes) == 3 else planes * 3):
        pixels[*layout.stored, place] = plane
    return pixels


def _planes(file: Any, layout: Layout) -> list[Plane]:
    """View the planes of the picture."""
    channels = file.parts[layout.part].channels
    height, width = (part.stop - part.start for part in layout.stored)
    planes: list[Plane] = [channels[name].pixels for name in layout.channels]
    if any(plane.shape != (height, width) or plane.dtype.kind != "f" for plane in planes):
        raise ValueError("the EXR is damaged: its colours do not fill the data window")
    return planes


def write_copy(path: Path, source: Path, pixels: Pixels, changed: npt.NDArray[np.bool_]) -> None:
    """Write a copy of an EXR with other colours in some pixels.

    Args:
        path: The file to write.
        source: The original.
        pixels: Colours of its whole window, (H, W, 3); a grey image takes green.
        changed: Where they take the place of the original's, (H, W).

    Raises:
        ValueError: If the original is damaged.
        OSError: If the original cannot be read, or the copy cannot be written.
        SettingsError: If OpenEXR is not installed.
    """
    library, layout, file = _library(), read_layout(source), _read(source)
    inside = changed[layout.stored]
    planes = _planes(file, layout)
    for place, plane in enumerate(planes, start=1 if len(planes) == 1 else 0):
        new, limit = pixels[*layout.stored, place][inside], np.finfo(plane.dtype).max
        plane[inside] = np.clip(new, -limit, limit).astype(plane.dtype)
    exact = [getattr(library, f"{name}_COMPRESSION")
             for name in ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24")]  # fmt: skip
    for part in file.parts:
        if part.header["compression"] not in exact:
            name = str(part.header["compression"]).partition(".")[2].removesuffix("_COMPRESSION")
            log.info("%s is written with ZIP, because %s would change all pixels", source, name)
            part.header["compression"] = library.ZIP_COMPRESSION
    _write(file, path)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn(Frame):
    """A frame that is written as an EXR of its own, in linear Rec.709.

    Attributes:
        channels: Planes by name, (H, W), float16 or float32; all of one size.
        corner: Left and top of the planes in the frame, in pixels.
        whole: Height and width of the display window.
        attributes: More attributes of the header, by name.
    """

    channels: dict[str, Plane] = field(default_factory=dict)
    corner: tuple[int, int] = (0, 0)
    whole: tuple[int, int] = (1, 1)
    attributes: dict[str, Any] = field(default_factory=dict)

    def write_image(self, path: Path) -> None:
        """Write the EXR, compressed with ZIP.

        Raises:
            OSError: If it cannot be written.
            SettingsError: If OpenEXR is not installed.
        """
        library = _library()
        (left, top), (height, width) = self.corner, next(iter(self.channels.values())).shape
        header = {
            "compression": library.ZIP_COMPRESSION, "type": library.scanlineimage,
            "colorInteropID": "lin_rec709_scene",
            "dataWindow": _window(left, top, width, height),
            "displayWindow": _window(0, 0, self.whole[1], self.whole[0]),
        }  # fmt: skip
        channels = {name: np.ascontiguousarray(plane) for name, plane in self.channels.items()}
        _write(library.File(header | self.attributes, channels), path)


def _window(left: int, top: int, width: int, height: int) -> tuple[Any, Any]:
    last = left + width - 1, top + height - 1
    return np.array((left, top), np.int32), np.array(last, np.int32)


def read_attribute(path: Path, name: str) -> Any:
    """Return an attribute of the first part of an EXR; None if it has none of this name.

    Raises:
        ValueError: If the file is damaged.
        OSError: If it cannot be read.
        SettingsError: If OpenEXR is not installed.
    """
    return _opened(path, header_only=True).parts[0].header.get(name)


def _write(file: Any, path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # the library refuses such names
        with tempfile.TemporaryDirectory() as folder:
            _write(file, Path(folder, "copy.exr"))
            shutil.copyfile(Path(folder, "copy.exr"), path)
        return
    try:
        file.write(str(path))
    except RuntimeError as error:
        raise OSError(f"OpenEXR cannot write it: {error}") from error
