"""What an eight-bit RGB reader would lose of a photo: 16 bits, transparency, profile, EXIF."""

import logging
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from faceswap.errors import InputError
from faceswap.files import reason
from faceswap.media.frame import Frame, rounded
from faceswap.types import FloatImage, Image, Rect

log = logging.getLogger(__name__)


PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

EIGHT_TO_SIXTEEN_BITS = 257  # levels of 16 bits that one of 8 bits stands for
Deep = npt.NDArray[np.uint16]  # (H, W, 3) RGB or (H, W, 4) with transparency

TIFFS = (".tif", ".tiff")
PNG_MARK = b"\x89PNG\r\n\x1a\n"
# What a PNG says of its pixels and of itself, and can be taken over as it is; its profile and its
# EXIF data are read.
KEPT_CHUNKS = (
    b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME",
)  # fmt: skip
WITH_ALPHA = (".png", ".webp", *TIFFS)
ORIENTATION = 0x0112  # EXIF tag
XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))[2-8]')  # the same in XMP
RAW_EXIF = (b"Raw profile type exif\0", b"Raw profile type APP1\0")  # by ImageMagick, as text
# Pillow tells formats by content, and for some of the others it runs programs (EPS: Ghostscript).
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000")
MAX_PIXELS = 2**28  # of a photo or a video's frame: 800 MB as RGB
# Pillow warns above this and refuses only above twice as much.
Pillow.MAX_IMAGE_PIXELS = MAX_PIXELS


@dataclass(frozen=True, slots=True, eq=False)
class DeepPhoto:
    """A photo of 16 bits a colour, (H, W, 3) or (H, W, 4)."""

    pixels: Deep

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def rgb(self, rect: Rect) -> Image:
        """The pixels of a rect, (H, W, 3)."""
        return rounded(self.rgb_float(rect))

    def rgb_float(self, rect: Rect) -> FloatImage:
        """The same with all their depth."""
        left, top, right, bottom = rect
        light: FloatImage = self.pixels[top:bottom, left:right, :3].astype(np.float32)
        return light / np.float32(EIGHT_TO_SIXTEEN_BITS)

    def alpha(self) -> Image | None:
        """Its transparency, (H, W)."""
        return (
            rounded(self.pixels[..., 3] / EIGHT_TO_SIXTEEN_BITS)
            if self.pixels.shape[2] == 4
            else None
        )

    def gray(self) -> Image:
        """All of it without colour, (H, W)."""
        height, width = self.shape
        return np.asarray(
            cv2.cvtColor(self.rgb((0, 0, width, height)), cv2.COLOR_RGB2GRAY), np.uint8
        )


def deep_pixels(frame: Frame) -> Deep:
    """All of a frame with 16 bits a colour, (H, W, 3)."""
    height, width = frame.shape
    light = frame.rgb_float((0, 0, width, height)) * np.float32(EIGHT_TO_SIXTEEN_BITS)
    fine: Deep = np.clip(np.rint(light), 0, 65535).astype(np.uint16)
    return fine


def check_pixels(width: int, height: int) -> None:
    """Refuse a picture whose pixels would take more memory than any camera asks for.

    Raises:
        ValueError: If it has more than MAX_PIXELS.
    """
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"it says that it has {width}x{height} pixels, and at most "
            f"{MAX_PIXELS // 10**6} million are read: make it smaller"
        )


def read_deep(path: Path) -> DeepPhoto | None:
    """The photo if it has 16 bits a colour, else None.

    Raises:
        ValueError: If it is damaged.
    """
    suffix = path.suffix.lower()
    if suffix in TIFFS:
        with path.open("rb") as file:
            if file.read(2) not in (b"II", b"MM"):
                return None
        found = _read_tiff(path)
        if found is None:
            return None
        pixels, orientation = found
    elif suffix == ".png" and _png_depth(path) == 16:
        # OpenCV itself would crash on a name that is no Unicode.
        data = np.frombuffer(path.read_bytes(), np.uint8)
        stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if stored is None:
            raise ValueError("the picture is damaged or truncated")
        order = cv2.COLOR_BGRA2RGBA if stored.shape[-1] == 4 else cv2.COLOR_BGR2RGB
        pixels = cv2.cvtColor(stored, order) if stored.ndim == 3 else stored
        with Pillow.open(path, formats=PHOTO_FORMATS) as photo:
            orientation = int(photo.getexif().get(ORIENTATION, 1))
    else:
        return None
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        return None
    return DeepPhoto(np.ascontiguousarray(_upright(pixels, orientation)))


def _upright(pixels: Deep, orientation: int) -> Deep:
    """Pixels (H, W, C) as the EXIF tag says that they are to be shown, TIFF 6.0, section 8."""
    mirrored, turns = {2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3),
                       7: (True, 3), 8: (False, 1)}.get(orientation, (False, 0))  # fmt: skip
    return np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)


def _read_tiff(path: Path) -> tuple[npt.NDArray[Any], int] | None:
    """The pixels of a TIFF's first picture, and its orientation; None if it has no 16 bits."""
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            check_pixels(int(page.imagewidth), int(page.imagelength))
            if page.dtype != np.uint16 or page.samplesperpixel not in (3, 4) or page.imagedepth > 1:
                return None  # not deep; a few bytes can say that a pixel has a thousand values
            tags: Any = getattr(page, "tags", {})
            orientation = int(tags[ORIENTATION].value) if ORIENTATION in tags else 1
            return np.asarray(page.asarray()), orientation
    except (MemoryError, ValueError):
        raise
    except Exception as error:  # of many kinds, where a file is damaged
        raise ValueError(f"the TIFF is damaged: {error}") from error


def _png_depth(path: Path) -> int:
    with path.open("rb") as file:
        head = file.read(26)
    if not head.startswith(PNG_MARK) or len(head) < 26:
        return 0
    check_pixels(*struct.unpack_from(">II", head, 16))
    return head[24]


class PhotoWriter:
    """Writes one photo with the depth, transparency, EXIF data and colour profile of its source."""

    def __init__(self, temporary: Path, source: Path) -> None:
        self._temporary, self._source = temporary, source
        self._suffix = temporary.suffix.lower()

    def write(self, frame: Frame) -> None:
        """Write the photo; call once."""
        picture = frame.pixels
        kept = _kept(self._source, picture if isinstance(picture, DeepPhoto) else None)
        can_be_deep = self._suffix in (".png", *TIFFS) and frame.layer is None
        if isinstance(picture, DeepPhoto) and can_be_deep:
            self._write_deep(frame, picture, kept)
            return
        image: Any = frame.image if frame.layer is None else frame.layer
        if image.shape[2] == 3 and kept.alpha is not None and self._suffix in WITH_ALPHA:
            image = np.dstack([image, kept.alpha])
        extra: dict[str, Any] = {}
        if self._suffix in (".jpg", ".jpeg"):
            extra = {"quality": 95, "subsampling": 0}
        elif self._suffix == ".webp":
            extra = {"lossless": True, "exact": True}
        if self._suffix != ".png":
            about = {"exif": kept.exif, "icc_profile": kept.profile}
            extra |= {key: value for key, value in about.items() if value}
            if kept.density:
                extra["dpi"] = kept.density
        Pillow.fromarray(image).save(self._temporary, **extra)
        if self._suffix == ".png":
            self._put_chunks(self._temporary.read_bytes(), kept)

    def _write_deep(self, frame: Frame, picture: DeepPhoto, kept: "_Kept") -> None:
        fine = np.dstack([deep_pixels(frame), picture.pixels[..., 3:]])
        if self._suffix in TIFFS:
            extra: dict[str, Any] = {"iccprofile": kept.profile} if kept.profile else {}
            if kept.resolution:
                extra["resolution"] = kept.resolution
            if fine.shape[2] == 4:
                extra["extrasamples"] = ["unassalpha"]
            tifffile.imwrite(self._temporary, fine, photometric="rgb", **extra)
            return
        order = cv2.COLOR_RGBA2BGRA if fine.shape[2] == 4 else cv2.COLOR_RGB2BGR
        _, png = cv2.imencode(".png", cv2.cvtColor(fine, order))
        self._put_chunks(png.tobytes(), kept)

    def _put_chunks(self, data: bytes, kept: "_Kept") -> None:
        """Write a PNG with what its source says of itself, right after the header chunk."""
        chunks: list[bytes] = []
        if self._source.suffix.lower() == ".png":
            chunks += _chunks(self._source.read_bytes())
        if kept.profile:
            chunks.append(_chunk(b"iCCP", b"profile\0\0" + zlib.compress(kept.profile)))
        if kept.exif:
            chunks.append(_chunk(b"eXIf", kept.exif.removeprefix(b"Exif\0\0")))
        head = len(PNG_MARK) + 25
        self._temporary.write_bytes(data[:head] + b"".join(chunks) + data[head:])


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """What a photo holds besides its colours.

    Attributes:
        exif: Without the orientation, which is applied already; empty if there is none.
        profile: Of its colours, ICC; empty if there is none.
        alpha: Its transparency, upright, (H, W).
        resolution: A TIFF's.
        density: Dots per inch across and down; empty if it says none.
    """

    exif: bytes = b""
    profile: bytes = b""
    alpha: Image | None = None
    resolution: tuple[Any, ...] = ()
    density: tuple[float, ...] = ()


def _kept(source: Path, deep: DeepPhoto | None) -> _Kept:
    alpha = deep.alpha() if deep else None
    if deep and source.suffix.lower() in TIFFS:  # of which the other library reads no more
        with tifffile.TiffFile(source) as file:
            tags: Any = getattr(file.pages[0], "tags", {})
            values = [
                tags[number].value if number in tags else None for number in (34675, 282, 283)
            ]
        return _Kept(b"", values[0] or b"", alpha, tuple(values[1:]) if all(values[1:]) else ())
    with Pillow.open(source, formats=PHOTO_FORMATS) as photo:
        if not deep:
            alpha = _alpha(photo)
        exif = photo.getexif()
        exif.pop(ORIENTATION, None)
        # A TIFF's tags also tell how the old pixels are stored.
        words = _bytes_of(exif, source) if len(exif) and photo.format != "TIFF" else b""
        fits = photo.mode in ("RGB", "RGBA", "P") or deep  # not a profile of other channels
        profile = (photo.info.get("icc_profile") if fits else None) or b""
        return _Kept(words, profile, alpha, density=_density(photo))


def _density(photo: Pillow.Image) -> tuple[float, ...]:
    """Dots per inch, across and down; empty where there are none that every format can hold."""
    density = tuple(float(dots) for dots in photo.info.get("dpi", ()))
    return density if len(density) == 2 and all(2 <= dots < 65535 for dots in density) else ()


def _bytes_of(exif: Pillow.Exif, source: Path) -> bytes:
    """EXIF data as it is stored; empty where it says things that cannot be."""
    try:
        return exif.tobytes()
    except Exception as error:  # of many kinds, for what cameras and editors write
        log.warning("the EXIF data of %s is damaged and left out: %s", source, error)
        return b""


def _alpha(photo: Pillow.Image) -> Image | None:
    """A photo's transparency, upright, (H, W)."""
    if "A" not in photo.getbands() and "transparency" not in photo.info:
        return None
    return np.asarray(ImageOps.exif_transpose(photo).convert("RGBA").getchannel("A"), np.uint8)


def _chunk(kind: bytes, data: bytes) -> bytes:
    """A whole chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks(data: bytes) -> Iterator[bytes]:
    """The chunks of a PNG to take over, whole."""
    place = len(PNG_MARK)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        whole = data[place : place + 12 + length]
        intact = zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")
        if kind in KEPT_CHUNKS and len(whole) == 12 + length and intact:
            words = whole[8:-4]  # what is read upright must not be turned again
            if not words.startswith(RAW_EXIF):
                yield _chunk(kind, XMP_ORIENTATION.sub(rb"\g<1>1", words))
        place += 12 + length


def read_photo(path: Path) -> Frame:
    """Read a photo upright (EXIF orientation applied) as RGB.

    Raises:
        InputError: If it is missing, truncated or not an image.
    """
    try:
        deep = read_deep(path)
        if deep:
            return Frame(deep, 0, Fraction(0), path)
        with Pillow.open(path, formats=PHOTO_FORMATS) as photo:
            check_pixels(*photo.size)
            if getattr(photo, "is_animated", False) and photo.format != "MPO":  # two views of one
                log.warning("%s holds several pictures: only the first is read", path)
            upright = ImageOps.exif_transpose(photo)
            image = np.asarray(_to_rgb(upright))
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image this program can read") from error
    except Exception as error:  # decoders raise many kinds for a damaged file
        words = reason(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"{path} cannot be read: {words}") from error
    return Frame(image, 0, Fraction(0), path)


def _to_rgb(photo: Pillow.Image) -> Pillow.Image:
    """Convert to RGB; Pillow alone would clip grey of 16 bits to white."""
    if photo.mode.startswith("I"):
        levels = np.asarray(photo, np.float64) / EIGHT_TO_SIXTEEN_BITS
        return Pillow.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8)).convert("RGB")
    if photo.mode == "F":
        raise ValueError("pixels are floating-point numbers; save it with 8 or 16 bits")
    return photo.convert("RGB")
