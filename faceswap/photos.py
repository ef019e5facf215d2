"""What an eight-bit RGB reader would lose of a photo: 16 bits, transparency, profile, EXIF."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image as Pillow
from PIL import ImageOps

from faceswap.types import Frame, Image, Light, Window, rounded

Deep = npt.NDArray[np.uint16]  # (H, W, 3) RGB or (H, W, 4) with transparency

TIFFS = (".tif", ".tiff")
PNG_MARK = b"\x89PNG\r\n\x1a\n"
# What a PNG says of its pixels and of itself, and can be taken over as it is.
KEPT_CHUNKS = (
    b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME",
)  # fmt: skip
WITH_ALPHA = (".png", ".webp", *TIFFS)
ORIENTATION = 0x0112  # EXIF tag
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

    def rgb(self, window: Window) -> Image:
        """The pixels of a window, (H, W, 3)."""
        return rounded(self.light(window))

    def light(self, window: Window) -> Light:
        """The same with all their depth."""
        left, top, right, bottom = window
        light: Light = self.pixels[top:bottom, left:right, :3].astype(np.float32)
        return light / np.float32(257)

    def gray(self) -> Image:
        """All of it without colour, (H, W)."""
        height, width = self.shape
        return np.asarray(
            cv2.cvtColor(self.rgb((0, 0, width, height)), cv2.COLOR_RGB2GRAY), np.uint8
        )


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
        pixels = _read_tiff(path)
    elif suffix == ".png" and _png_depth(path) == 16:
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if stored is None:
            raise ValueError("the picture is damaged or truncated")
        order = cv2.COLOR_BGRA2RGBA if stored.shape[-1] == 4 else cv2.COLOR_BGR2RGB
        pixels = cv2.cvtColor(stored, order) if stored.ndim == 3 else stored
    else:
        return None
    if pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        return None
    return DeepPhoto(np.ascontiguousarray(pixels))


def _read_tiff(path: Path) -> npt.NDArray[Any]:
    """The pixels of a TIFF's first picture."""
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            check_pixels(int(page.imagewidth), int(page.imagelength))
            return np.asarray(page.asarray())
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
        deep = isinstance(frame.picture, DeepPhoto) and not _is_layer(frame)
        if deep and self._suffix in (".png", *TIFFS):
            self._write_deep(frame)
            return
        extra: dict[str, Any] = {}
        with Pillow.open(self._source) as photo:
            if photo.format != "TIFF":  # whose tags also tell how the old pixels are stored
                exif = photo.getexif()
                exif.pop(ORIENTATION, None)  # it is applied already
                extra["exif"] = exif.tobytes()
            if photo.mode in ("RGB", "RGBA", "P"):  # a profile of other channels would not fit
                extra["icc_profile"] = photo.info.get("icc_profile")
            alpha = _alpha(photo) if self._suffix in WITH_ALPHA else None
        extra = {key: value for key, value in extra.items() if value}
        if self._suffix in (".jpg", ".jpeg"):
            extra |= {"quality": 95, "subsampling": 0}
        elif self._suffix == ".webp":
            extra |= {"lossless": True, "exact": True}
        image: Any = frame.changes[0][1] if _is_layer(frame) else frame.image
        if image.shape[2] == 3 and alpha is not None:
            image = np.dstack([image, alpha])
        Pillow.fromarray(image).save(self._temporary, **extra)

    def _write_deep(self, frame: Frame) -> None:
        assert isinstance(frame.picture, DeepPhoto)
        height, width = frame.shape
        light = frame.light((0, 0, width, height)) * np.float32(257)
        fine = np.clip(np.rint(light), 0, 65535).astype(np.uint16)
        fine = np.dstack([fine, frame.picture.pixels[..., 3:]])
        if self._suffix in TIFFS:
            with tifffile.TiffFile(self._source) as old:
                tags: Any = getattr(old.pages[0], "tags", {})
                profile = tags.get(34675)  # the ICC profile
                resolution = [tags.get(number) for number in (282, 283)]
            extra: dict[str, Any] = {"iccprofile": profile.value} if profile else {}
            if all(resolution):
                extra["resolution"] = tuple(tag.value for tag in resolution)
            if fine.shape[2] == 4:
                extra["extrasamples"] = ["unassalpha"]
            tifffile.imwrite(self._temporary, fine, photometric="rgb", **extra)
            return
        order = cv2.COLOR_RGBA2BGRA if fine.shape[2] == 4 else cv2.COLOR_RGB2BGR
        _, png = cv2.imencode(".png", cv2.cvtColor(fine, order))
        kept = _chunks(self._source.read_bytes()) if self._source.suffix.lower() == ".png" else ()
        data = png.tobytes()
        head = len(PNG_MARK) + 25  # with the header chunk
        self._temporary.write_bytes(data[:head] + b"".join(kept) + data[head:])


def _is_layer(frame: Frame) -> bool:
    """Whether the frame was repainted with transparency of its own."""
    return bool(frame.changes) and frame.changes[0][1].shape[2] == 4


def _alpha(photo: Pillow.Image) -> Image | None:
    """A photo's transparency, upright, (H, W)."""
    if "A" not in photo.getbands() and "transparency" not in photo.info:
        return None
    return np.asarray(ImageOps.exif_transpose(photo).convert("RGBA").getchannel("A"), np.uint8)


def _chunks(data: bytes) -> Iterator[bytes]:
    """The chunks of a PNG to take over, whole."""
    place = len(PNG_MARK)
    while place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        whole = data[place : place + 12 + length]
        intact = zlib.crc32(whole[4:-4]) == int.from_bytes(whole[-4:], "big")
        if kind in KEPT_CHUNKS and len(whole) == 12 + length and intact:
            yield whole
        place += 12 + length
