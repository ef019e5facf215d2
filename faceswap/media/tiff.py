"""Read TIFF images with 16-bit integers or floats, and write them with their tags."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile

from faceswap.media.frame import check_pixels

SUFFIXES = (".tif", ".tiff")
ORIENTATION, ICC_PROFILE, X_RESOLUTION, Y_RESOLUTION, UNIT = 274, 34675, 282, 283, 296
# Tags that say how the pixels are stored, or where other blocks of the file begin. Those that have
# names here are written by other means.
OF_STORAGE = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, ORIENTATION, 277, 278, 279, 280,
     281, X_RESOLUTION, Y_RESOLUTION, 284, 288, 289, 290, 291, UNIT, 317, 320, 322, 323, 324, 325,
     330, 338, 339, 340, 341, 347, 512, 513, 514, 530, 531, 532, 34665, ICC_PROFILE, 34853, 40965}
)  # fmt: skip
LAYOUTS = {1: "MINISBLACK", 3: "RGB", 4: "RGB"}  # photometric interpretations, by channels
NOT_COMPRESSED = 1
DEEP = frozenset(map(np.dtype, (np.uint16, np.float16, np.float32)))
Pixels = npt.NDArray[Any]  # (H, W), (H, W, 3) or (H, W, 4)


def is_tiff(path: Path) -> bool:
    """Return whether a file is a TIFF by its suffix and its first bytes.

    Raises:
        OSError: If it cannot be read.
    """
    if path.suffix.lower() not in SUFFIXES:
        return False
    with path.open("rb") as file:
        return file.read(2) in (b"II", b"MM")


@contextmanager
def _first_page(path: Path) -> Iterator[Any]:
    """Open the first image of a file; any error for a damaged one becomes a ValueError."""
    try:
        with tifffile.TiffFile(path) as file:
            yield file.pages[0]
    except (MemoryError, OSError, ValueError):
        raise
    except Exception as error:  # tifffile raises many exception types for a damaged file
        raise ValueError(f"the TIFF is damaged: {error}") from error


def read_deep(path: Path) -> tuple[Pixels, int] | None:
    """Return the first image of a TIFF and its orientation.

    The result is None if it does not hold grey, RGB or RGBA with 16-bit integers or with
    floating-point numbers of 16 or 32 bits.

    Raises:
        ValueError: If it is damaged or has more than MAX_PIXELS pixels.
        OSError: If it cannot be read.
    """
    with _first_page(path) as page:
        check_pixels(int(page.imagewidth), int(page.imagelength))
        # A forged header can claim thousands of samples per pixel, so check before decoding.
        layout = LAYOUTS.get(page.samplesperpixel)
        if page.dtype not in DEEP or page.imagedepth > 1 or page.photometric.name != layout:
            return None
        tags: Any = getattr(page, "tags", {})
        orientation = int(tags[ORIENTATION].value) if ORIENTATION in tags else 1
        return _decoded(path, page), orientation


def _decoded(path: Path, page: Any) -> Pixels:
    """Decode a page, also one whose compression tifffile alone does not know, such as LZW."""
    try:
        pixels = np.asarray(page.asarray())
        is_planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3
        return np.moveaxis(pixels, 0, 2) if is_planar else pixels
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
    return decode_with_opencv(path)


def decode_with_opencv(path: Path) -> Pixels:
    """Decode a photo at its stored depth: grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4).

    Raises:
        ValueError: If it is damaged.
        OSError: If it cannot be read.
    """
    # Decode from memory, because cv2.imread crashes on a file name that is not valid Unicode.
    stored = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise ValueError("the image is damaged or truncated")
    if stored.ndim == 2:
        return np.asarray(stored)
    order = cv2.COLOR_BGRA2RGBA if stored.shape[-1] == 4 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(stored, order))


def profile_of(path: Path) -> bytes:
    """Return the ICC profile of a TIFF; empty if it has none.

    Raises:
        ValueError: If the file is damaged.
        OSError: If it cannot be read.
    """
    with _first_page(path) as page:
        return bytes(page.tags[ICC_PROFILE].value) if ICC_PROFILE in page.tags else b""


def write(path: Path, pixels: Pixels, source: Path | None = None, profile: bytes = b"") -> None:
    """Write an upright image.

    Args:
        path: The file to write.
        pixels: Grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4).
        source: A TIFF whose tags it gets, except for the orientation. It is compressed without loss
            if that one is compressed.
        profile: The ICC profile; empty for none.

    Raises:
        ValueError: If the other TIFF is damaged.
        OSError: If it cannot be read, or the file cannot be written.
    """
    extra = _like(source) if source else {}
    if profile:
        extra["iccprofile"] = profile
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        extra["extrasamples"] = ["unassalpha"]
    layout = "minisblack" if pixels.ndim == 2 else "rgb"
    tifffile.imwrite(path, pixels, photometric=layout, **extra)


def _like(source: Path) -> dict[str, Any]:
    """Return the arguments of tifffile that give an image the tags of another one."""
    with _first_page(source) as page:
        tags: Any = page.tags
        extra: dict[str, Any] = {"software": False, "metadata": None, "extratags": [
            (tag.code, int(tag.dtype), tag.count, tag.value, True)
            for tag in tags if tag.code not in OF_STORAGE
        ]}  # fmt: skip
        if int(page.compression) != NOT_COMPRESSED:
            extra["compression"] = "zlib"
        sides = [tags[code].value for code in (X_RESOLUTION, Y_RESOLUTION) if code in tags]
        if len(sides) == 2 and all(sides):
            extra["resolution"] = tuple(sides)
            if UNIT in tags:
                extra["resolutionunit"] = tags[UNIT].value
    return extra
