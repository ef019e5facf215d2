"""Read photos, and write them with their 16-bit depth, transparency, ICC profile and EXIF data.

The output format must be able to store these. A grey photo stays grey. A TIFF's EXIF data and an
ICC profile that is neither for RGB nor for grey levels are left out.
"""

import logging
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pi_heif
from PIL import Image as Pillow
from PIL import ImageCms, ImageOps, UnidentifiedImageError

from faceswap.arrays import FloatImage, Image, Rect
from faceswap.errors import FaceswapError, InputError
from faceswap.files import reason
from faceswap.media import tiff
from faceswap.media.film import FilmImage, is_film, read_film, write_copy
from faceswap.media.frame import (
    MAX_PIXELS,
    Alpha,
    Frame,
    PixelSource,
    check_pixels,
    gray_of_rgb,
    rounded,
)
from faceswap.media.sources import PNG_MARK
from faceswap.media.views import AS_STORED, LINEAR_REC709, space_by_rule, view_of

log = logging.getLogger(__name__)


# Suffixes of the photos that can be written; which photos can be read depends on their content.
PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".jp2"}
)

EIGHT_TO_SIXTEEN_BITS = 257  # 16-bit levels per 8-bit level
Deep = npt.NDArray[np.uint16]  # (H, W, 3) RGB or (H, W, 4) RGBA

JPEGS = (".jpg", ".jpeg", ".jpe", ".jfif")
# PNG chunks to copy; an orientation in them is reset or dropped. The ICC profile and the EXIF data
# are written as new chunks.
KEPT_CHUNKS = (
    b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME",
)  # fmt: skip
WITH_ALPHA = (".png", ".webp", ".avif", ".jp2", *tiff.SUFFIXES)
ORIENTATION = 0x0112  # EXIF tag
XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))[2-8]')  # the same tag in XMP
RAW_EXIF = (b"Raw profile type exif\0", b"Raw profile type APP1\0")  # in text chunks by ImageMagick
# Pillow detects formats by content. It runs external programs for some of the formats left out
# here, such as Ghostscript for EPS.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "HEIF")
GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
pi_heif.register_heif_opener()
# Pillow warns above this limit and refuses an image above twice the limit.
Pillow.MAX_IMAGE_PIXELS = MAX_PIXELS


@dataclass(frozen=True, slots=True, eq=False)
class DeepPhoto:
    """An upright photo with 16 bits per channel.

    Attributes:
        pixels: RGB (H, W, 3) or RGBA (H, W, 4).
        is_gray: Whether the file stores grey levels, which are in all three channels here.
    """

    pixels: Deep
    is_gray: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def rgb(self, rect: Rect) -> Image:
        """Return the pixels of a rect, (H, W, 3)."""
        return rounded(self.rgb_float(rect))

    def rgb_float(self, rect: Rect) -> FloatImage:
        """Return the same pixels with 16-bit precision, scaled to 0..255."""
        left, top, right, bottom = rect
        levels: FloatImage = self.pixels[top:bottom, left:right, :3].astype(np.float32)
        return levels / np.float32(EIGHT_TO_SIXTEEN_BITS)

    def alpha(self) -> Image | None:
        """Return the alpha channel with 8 bits, (H, W); None if there is none."""
        return (
            rounded(self.pixels[..., 3] / EIGHT_TO_SIXTEEN_BITS)
            if self.pixels.shape[2] == 4
            else None
        )

    def gray(self) -> Image:
        """Return the grey levels of the whole photo with 8 bits, (H, W)."""
        height, width = self.shape
        return gray_of_rgb(self.rgb((0, 0, width, height)))


def deep_pixels(frame: Frame) -> Deep:
    """Return a whole frame with 16 bits per channel, (H, W, 3)."""
    height, width = frame.shape
    levels = frame.rgb_float((0, 0, width, height)) * np.float32(EIGHT_TO_SIXTEEN_BITS)
    pixels: Deep = np.clip(np.rint(levels), 0, 65535).astype(np.uint16)
    return pixels


def read_deep(path: Path, colorspace: str | None = None) -> "DeepPhoto | FilmImage | None":
    """Read a PNG or a TIFF with more than 8 bits per channel; return None for any other photo.

    Args:
        path: The photo.
        colorspace: Its colour space. None takes integers for those of a display, and floating-point
            numbers as in EXR; see :func:`film.read_film`.

    Raises:
        InputError: If the user's configuration of OpenColorIO cannot be read.
        ValueError: If the file is damaged or has more than MAX_PIXELS pixels.
        OSError: If the file cannot be read.
        SettingsError: If there is no such colour space, or OpenColorIO is not installed.
    """
    pixels: npt.NDArray[Any]
    if path.suffix.lower() in tiff.SUFFIXES:
        found = tiff.read_deep(path) if tiff.is_tiff(path) else None
        if found is None:
            return None
        pixels, orientation = found
    elif path.suffix.lower() == ".png" and _png_depth(path) == 16:
        pixels = tiff.decode_with_opencv(path)
        with opened_photo(path) as photo:
            orientation = int(photo.getexif().get(ORIENTATION, 1))
    else:
        return None
    if pixels.dtype not in tiff.DEEP or pixels.ndim not in (2, 3):
        return None
    is_gray = pixels.ndim == 2
    pixels = np.dstack([pixels] * 3) if is_gray else pixels
    if pixels.shape[2] not in (3, 4):
        return None
    pixels = np.ascontiguousarray(_upright(pixels, orientation))
    is_float = pixels.dtype.kind == "f"
    if not (is_float or colorspace):
        return DeepPhoto(pixels, is_gray)
    view = view_of(colorspace or space_by_rule(path) or LINEAR_REC709)
    alpha = pixels[..., 3] if pixels.shape[2] == 4 else None
    return FilmImage(pixels[..., :3], view, 1 if is_float else 65535, is_gray, alpha)


def _upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Apply an EXIF orientation (TIFF 6.0, section 8) to pixels (H, W, C)."""
    mirrored, turns = {2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3),
                       7: (True, 3), 8: (False, 1)}.get(orientation, (False, 0))  # fmt: skip
    return np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)


def _png_depth(path: Path) -> int:
    with path.open("rb") as file:
        head = file.read(26)
    if not head.startswith(PNG_MARK) or len(head) < 26:
        return 0
    check_pixels(*struct.unpack_from(">II", head, 16))
    return head[24]


class PhotoWriter:
    """Writes one photo, with as much of the source's depth and metadata as the format stores.

    Args:
        temporary: The file to write; its suffix sets the format.
        source: The photo that transparency, EXIF data and ICC profile are copied from.
    """

    def __init__(self, temporary: Path, source: Path) -> None:
        self._temporary, self._source = temporary, source
        self._suffix = temporary.suffix.lower()

    def write(self, frame: Frame) -> None:
        """Write the photo. Call this once.

        Raises:
            OSError: If the source cannot be read again, or the photo cannot be written.
        """
        original = frame.pixels
        if isinstance(original, FilmImage) and frame.layer is None and self._keeps_format():
            self._write_film(frame, original)
            return
        metadata = _read_metadata(self._source, original)
        can_be_deep = self._suffix in (".png", *tiff.SUFFIXES) and frame.layer is None
        if isinstance(original, DeepPhoto | FilmImage) and can_be_deep:
            alpha = None if frame.is_opaque else alpha_of(frame)
            self._write_deep(
                deep_pixels(frame), original.is_gray,
                None if alpha is None else frame.with_solid(alpha), metadata,
            )  # fmt: skip
            return
        image: Any = frame.image if frame.layer is None else rounded(frame.layer)
        if image.shape[2] == 3 and metadata.is_gray and self._may_be_gray(image):
            image = image[..., 0]
        alpha = None if frame.is_opaque else metadata.alpha
        if image.shape[2:] != (4,) and alpha is not None and self._suffix in WITH_ALPHA:
            image = np.dstack([image, frame.with_solid(alpha)])
        extra: dict[str, Any] = {}
        if self._suffix in JPEGS:
            extra = {"quality": 95, "subsampling": 0}
        elif self._suffix == ".webp":
            extra = {"lossless": True, "exact": True}
        elif self._suffix == ".avif":
            extra = {"quality": 95, "subsampling": "4:4:4"}
        if self._suffix != ".png":
            tags = {"exif": metadata.exif, "icc_profile": metadata.profile}
            extra |= {key: value for key, value in tags.items() if value}
            if metadata.density:
                extra["dpi"] = metadata.density
        Pillow.fromarray(image).save(self._temporary, **extra)
        if self._suffix == ".png":
            self._write_png(self._temporary.read_bytes(), metadata)

    def _may_be_gray(self, image: npt.NDArray[Any]) -> bool:
        """Return whether all pixels (H, W, 3) are grey but for rounding; warn if not."""
        is_float = image.dtype.kind == "f"
        rounding = 1 / 255 if is_float else np.iinfo(image.dtype).max // 255  # a level of 8 bits
        if (image.max(axis=2) - image.min(axis=2)).max() <= rounding:
            return self._suffix != ".webp"  # which stores RGB only
        log.warning("%s is grey, but its swap has colours and is written as RGB", self._source)
        return False

    def _keeps_format(self) -> bool:
        """Return whether the photo is written in the format of the source."""
        if is_film(self._source):
            return self._suffix == self._source.suffix.lower()
        if self._suffix == ".png":
            return self._source.suffix.lower() == ".png"
        return self._suffix in tiff.SUFFIXES and tiff.is_tiff(self._source)

    def _write_film(self, frame: Frame, original: FilmImage) -> None:
        """Write an image in its own colour space; pixels without a change stay bit for bit."""
        if is_film(self._source):
            write_copy(self._temporary, self._source, frame, original)
            return
        pixels, _ = original.with_changes(frame)
        alpha, levels = original.alpha, original.alpha_levels()
        if alpha is not None and levels is not None:  # a label is opaque
            alpha = np.where(frame.with_solid(levels) == levels, alpha, original.largest)
            alpha = alpha.astype(pixels.dtype)
        self._write_deep(
            pixels, original.is_gray, None if frame.is_opaque else alpha,
            _read_metadata(self._source, original),
        )  # fmt: skip

    def _write_deep(
        self, pixels: npt.NDArray[Any], is_gray: bool, alpha: npt.NDArray[Any] | None,
        metadata: "_Metadata",
    ) -> None:  # fmt: skip
        """Write a PNG or a TIFF with more than 8 bits per channel.

        Args:
            pixels: RGB, (H, W, 3).
            is_gray: Whether the source stores grey levels.
            alpha: The alpha channel in the same type, (H, W); None for none.
            metadata: What to keep of the source.
        """
        if is_gray and self._may_be_gray(pixels):
            pixels = np.ascontiguousarray(pixels[..., 0])
        elif alpha is not None:
            pixels = np.dstack([pixels, alpha])
        if self._suffix in tiff.SUFFIXES:
            source = self._source if tiff.is_tiff(self._source) else None
            tiff.write(self._temporary, pixels, source, metadata.profile)
            return
        order = {2: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[
            2 if pixels.ndim == 2 else pixels.shape[2]
        ]
        _, png = cv2.imencode(".png", pixels if order is None else cv2.cvtColor(pixels, order))
        self._write_png(png.tobytes(), metadata)

    def _write_png(self, data: bytes, metadata: "_Metadata") -> None:
        """Write a PNG and insert the source's metadata right after the header chunk."""
        chunks: list[bytes] = []
        if self._source.suffix.lower() == ".png":
            chunks += _chunks(self._source.read_bytes())
        if metadata.profile:
            chunks.append(_chunk(b"iCCP", b"profile\0\0" + zlib.compress(metadata.profile)))
        if metadata.exif:
            chunks.append(_chunk(b"eXIf", metadata.exif.removeprefix(b"Exif\0\0")))
        head = len(PNG_MARK) + 25
        self._temporary.write_bytes(data[:head] + b"".join(chunks) + data[head:])


@dataclass(frozen=True, slots=True, eq=False)
class _Metadata:
    """The metadata and alpha channel that a rewritten photo keeps.

    Attributes:
        exif: EXIF data without the orientation, which is already applied; empty if there is none.
        profile: ICC colour profile; empty if there is none.
        alpha: Upright alpha channel, (H, W); None if there is none.
        density: Horizontal and vertical dots per inch; empty if unknown or out of range.
        is_gray: Whether the photo stores grey levels with 8 bits.
    """

    exif: bytes = b""
    profile: bytes = b""
    alpha: Image | None = None
    density: tuple[float, ...] = ()
    is_gray: bool = False


def _read_metadata(source: Path, original: Image | PixelSource) -> _Metadata:
    deep = original if isinstance(original, DeepPhoto | FilmImage) else None
    if deep and is_film(source):
        return _Metadata()
    if deep and tiff.is_tiff(source):  # Pillow cannot open every 16-bit TIFF
        alpha = deep.alpha() if isinstance(deep, DeepPhoto) else None
        return _Metadata(b"", tiff.profile_of(source), alpha)
    alpha = deep.alpha() if isinstance(deep, DeepPhoto) else None
    with opened_photo(source) as photo:
        if not deep:
            alpha = _alpha(photo)
        exif = photo.getexif()
        exif.pop(ORIENTATION, None)
        # A TIFF's tags also describe how the old pixels are stored, so do not copy them.
        exif_data = _exif_bytes(exif, source) if len(exif) and photo.format != "TIFF" else b""
        is_gray = photo.mode in GRAY_MODES
        # The output is RGB or grey, so drop the profile of any other.
        has_profile = photo.mode in ("RGB", "RGBA", "P") or is_gray or deep
        profile = (photo.info.get("icc_profile") if has_profile else None) or b""
        return _Metadata(exif_data, profile, alpha, density=_density(photo), is_gray=is_gray)


def _density(photo: Pillow.Image) -> tuple[float, ...]:
    """Return horizontal and vertical dots per inch.

    They are empty if they are unknown, or if one of the output formats cannot store them.
    """
    density = tuple(float(dots) for dots in photo.info.get("dpi", ()))
    return density if len(density) == 2 and all(2 <= dots < 65535 for dots in density) else ()


def _exif_bytes(exif: Pillow.Exif, source: Path) -> bytes:
    """Serialise EXIF data; warn and return no bytes if it is invalid."""
    try:
        return exif.tobytes()
    except Exception as error:  # malformed tags raise many exception types
        log.warning("the EXIF data of %s is damaged and was not copied: %s", source, error)
        return b""


def _alpha(photo: Pillow.Image) -> Image | None:
    """Return a photo's upright alpha channel, (H, W); None if it has none."""
    if not _has_alpha(photo):
        return None
    return np.asarray(ImageOps.exif_transpose(photo).convert("RGBA").getchannel("A"), np.uint8)


def _has_alpha(photo: Pillow.Image) -> bool:
    return bool("A" in photo.getbands() or "transparency" in photo.info)


def _chunk(kind: bytes, data: bytes) -> bytes:
    """Build a PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _chunks(data: bytes) -> Iterator[bytes]:
    """Yield the chunks of a PNG to copy to the output, with lengths and checksums."""
    offset = len(PNG_MARK)
    while offset + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        chunk = data[offset : offset + 12 + length]
        intact = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind in KEPT_CHUNKS and len(chunk) == 12 + length and intact:
            payload = chunk[8:-4]
            # The pixels are already upright, so reset or drop every stored orientation.
            if not payload.startswith(RAW_EXIF):
                yield _chunk(kind, XMP_ORIENTATION.sub(rb"\g<1>1", payload))
        offset += 12 + length


def read_photo(path: Path, colorspace: str | None = None) -> Frame:
    """Read a photo as RGB, rotated upright by its EXIF orientation.

    Args:
        path: The photo.
        colorspace: Its colour space if it has more than 8 bits per channel; None takes that of the
            file, see :func:`film.read_film`.

    Raises:
        InputError: If the file is missing, damaged, too large or not an image, or if its colour
            space is not known.
        SettingsError: If there is no such colour space, or a library is not installed.
    """
    try:
        found = read_film(path, colorspace) or read_deep(path, colorspace)
        if found:
            return Frame(found, 0, Fraction(0), path)
        if colorspace not in (None, AS_STORED):
            raise ValueError(
                f"it has 8 bits per channel, too few for --colorspace {colorspace}; give images "
                "with 10 bits or more, or leave the option out"
            )
        with opened_photo(path) as photo:
            check_pixels(*photo.size)
            # An MPO stores several views of one scene, so it needs no warning.
            if getattr(photo, "is_animated", False) and photo.format != "MPO":
                log.warning("%s contains several images; only the first is read", path)
            upright = ImageOps.exif_transpose(photo)
            image = np.asarray(_to_rgb(upright, path))
    except FaceswapError:
        raise
    except UnidentifiedImageError as error:
        empty = not path.stat().st_size
        what = "is empty: copy it again" if empty else "is not an image this program can read"
        raise InputError(f"{path} {what}") from error
    except Exception as error:  # decoders raise many types for a damaged file
        message = reason(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"{path} cannot be read: {message}") from error
    return Frame(image, 0, Fraction(0), path)


def has_alpha(path: Path) -> bool:
    """Return whether a photo stores transparency; that of an EXR or a DPX does not count.

    Raises:
        InputError: If it is not a photo that can be read.
    """
    try:
        if is_film(path):
            return False
        with opened_photo(path) as photo:
            return _has_alpha(photo)
    except (OSError, ValueError):  # Pillow cannot open every 16-bit TIFF
        return alpha_of(read_photo(path)) is not None


def alpha_of(photo: Frame) -> Alpha | None:
    """Return the upright alpha channel of a photo at its depth, (H, W); None if it has none.

    Raises:
        InputError: If the photo can no longer be read.
    """
    if isinstance(photo.pixels, FilmImage):
        return photo.pixels.alpha_levels()
    if isinstance(photo.pixels, DeepPhoto):
        return photo.pixels.pixels[..., 3] if photo.pixels.pixels.shape[2] == 4 else None
    try:
        with opened_photo(photo.source) as opened:
            return _alpha(opened)
    except (OSError, ValueError) as error:
        raise InputError(f"{photo.source} cannot be read: {error}") from error


def opened_photo(path: Path) -> Pillow.Image:
    """Open a photo of one of the formats that are read, by content.

    Raises:
        OSError: If it is not such a photo, or cannot be read.
        ValueError: If the file is damaged.
    """
    return Pillow.open(path, formats=PHOTO_FORMATS)


def _to_rgb(photo: Pillow.Image, path: Path) -> Pillow.Image:
    """Convert to 8-bit RGB, and scale 16-bit grey, which Pillow alone would clip to white."""
    if photo.mode.startswith("I"):
        levels = np.asarray(photo, np.float64) / EIGHT_TO_SIXTEEN_BITS
        return Pillow.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8)).convert("RGB")
    if photo.mode == "F":
        raise ValueError("floating-point pixels are not supported; save it with 8 or 16 bits")
    if photo.mode in ("CMYK", "LAB"):
        log.warning("%s has %s colours, which are converted to RGB", path, photo.mode)
        return _by_profile(photo)
    return photo.convert("RGB")


def _by_profile(photo: Pillow.Image) -> Pillow.Image:
    """Convert a photo to sRGB by its ICC profile, or by a formula if it has none that fits."""
    profile = photo.info.get("icc_profile")
    if profile:
        with suppress(ImageCms.PyCMSError, OSError):
            converted = ImageCms.profileToProfile(
                photo, BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
    return photo.convert("RGB")
