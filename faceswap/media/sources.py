"""Find out what a file is, and list the photos and videos of a folder.

Files are judged by their first bytes, because suffixes lie: a photo from a browser may be called
``.jfif`` or have no suffix at all, and a ``.png`` may be an animation.
"""

import logging
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from faceswap.errors import InputError
from faceswap.files import reason

log = logging.getLogger(__name__)

MAX_CHUNKS = 4096  # that are looked at before the pixels of a PNG
HEAD = 4096  # bytes that are read of each file
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
     ".wmv", ".flv", ".3gp", ".ogv", ".mxf"}
)  # fmt: skip
# A file of unknown content that has one of these suffixes is taken for a damaged photo.
PHOTO_HINTS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".jp2",
     ".heic", ".heif", ".hif", ".exr", ".dpx"}
)  # fmt: skip
SIDECAR = ".c2pa"  # suffix of a file with the credentials of the file beside it
Content = Literal["photo", "animation", "video"]

PNG_MARK = b"\x89PNG\r\n\x1a\n"
PHOTO_MARKS = (
    b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+",
    b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"v/1\x01", b"SDPX", b"XPDS",
)  # fmt: skip
VIDEO_MARKS = (
    b"\x1a\x45\xdf\xa3", b"FLV", b"OggS", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"\x30\x26\xb2\x75",
    b"\x06\x0e\x2b\x34", b"nut/multimedia", b"YUV4MPEG2", b"DKIF",
)  # fmt: skip
# Brands of ISO base media files (ISO/IEC 14496-12, 23008-12 and AV1 Image File Format) that hold
# images; any other brand means a video.
IMAGE_BRANDS = frozenset(
    {b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"jp2 ", b"hevc", b"hevx",
     b"msf1"}
)  # fmt: skip
ANIMATED_BRANDS, AUDIO_BRANDS = frozenset({b"avis"}), frozenset({b"M4A ", b"M4B "})
OLD_QUICKTIME = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})  # first atoms
TS_PACKET = 188  # bytes of an MPEG transport stream's packets, each of which begins with 0x47


def content_of(path: Path) -> Content | None:
    """Return whether a file holds a photo, an animation or a video, judged by its first bytes.

    A GIF, an animated PNG or WebP, and an AVIF sequence are animations. The result is None if the
    file is none of these, or its format is not known. Whether the rest of the file can be read is
    not checked.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
        if head.startswith(PNG_MARK):
            return "animation" if _is_animated_png(file) else "photo"
        return _content(head)


def animation_of(path: Path) -> Literal["gif", "png", "webp"] | None:
    """Return the format of an animation that can be written as well; None for any other file.

    It is None, too, if the file cannot be read; its reader says why.
    """
    try:
        if content_of(path) != "animation":
            return None
        with path.open("rb") as file:
            head = file.read(len(PNG_MARK))
    except OSError:
        return None
    if head.startswith(PNG_MARK):
        return "png"
    if head.startswith(b"RIFF"):
        return "webp"
    return "gif" if head.startswith(b"GIF") else None  # AVIF is only read


def _is_animated_png(file: BinaryIO) -> bool:
    """Return whether a PNG has an acTL chunk, which may follow long metadata, before its pixels."""
    file.seek(len(PNG_MARK))
    for _ in range(MAX_CHUNKS):
        length, kind = int.from_bytes(file.read(4), "big"), file.read(4)
        if kind == b"acTL":
            return True
        if kind == b"IDAT" or len(kind) < 4:
            return False
        file.seek(length + 4, os.SEEK_CUR)
    return False


def _content(head: bytes) -> Content | None:
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "animation"
    if head.startswith(b"RIFF"):
        kind = head[8:12]
        if kind == b"WEBP":
            is_extended = head[12:16] == b"VP8X" and len(head) > 20
            return "animation" if is_extended and head[20] & 2 else "photo"
        return "video" if kind == b"AVI " else None
    if head[4:8] in OLD_QUICKTIME:
        return "video"
    if head[4:8] == b"ftyp":
        return _content_by_brand(head[8:12])
    if head.startswith(PHOTO_MARKS):
        return "photo"
    is_ts = len(head) > 2 * TS_PACKET and head[0] == head[TS_PACKET] == head[2 * TS_PACKET] == 0x47
    return "video" if head.startswith(VIDEO_MARKS) or is_ts else None


def _content_by_brand(brand: bytes) -> Content | None:
    if brand in AUDIO_BRANDS:
        return None
    if brand in ANIMATED_BRANDS:
        return "animation"
    return "photo" if brand in IMAGE_BRANDS else "video"


def kind_of(path: Path) -> Literal["folder", "photo", "video"]:
    """Classify a path as a folder, a photo or a video.

    An animation counts as a video. A file whose content is not known counts as what its suffix
    says, so that the reader can say what is wrong with it.

    Raises:
        InputError: If the path does not exist or cannot be read.
    """
    try:
        if path.is_dir():
            return "folder"
        content = content_of(path)
    except FileNotFoundError as error:
        raise InputError(
            f"{path} does not exist; give a photo, a video or a folder of them"
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {reason(error)}") from error
    is_photo = content == "photo" or (content is None and path.suffix.lower() in PHOTO_HINTS)
    return "photo" if is_photo else "video"


@dataclass(slots=True)
class FolderContent:
    """What :func:`search` found in a folder, each list sorted by path.

    Attributes:
        photos: Photos.
        videos: Videos and animations.
        others: All other files.
    """

    photos: list[Path] = field(default_factory=list)
    videos: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def search(folder: Path, skip: Collection[Path] = ()) -> FolderContent:
    """List the photos and videos below a folder, by content.

    Links to files and folders are followed, but no folder is searched twice. Files and folders
    whose names begin with a dot are left out, as are sidecars and folders in ``skip``.

    Args:
        folder: The folder.
        skip: Folders to leave out.
    """
    found = FolderContent()
    for path in _files_below(folder, {path.resolve() for path in skip}):
        try:
            content = content_of(path)
        except OSError:  # the reader says why it cannot be read
            content = None
        suffix = path.suffix.lower()
        if content == "photo" or (content is None and suffix in PHOTO_HINTS):
            found.photos.append(path)
        elif content or suffix in VIDEO_SUFFIXES:
            found.videos.append(path)
        elif suffix != SIDECAR:
            found.others.append(path)
    return found


def _files_below(folder: Path, skipped: set[Path]) -> list[Path]:
    """Return the visible files below a folder, sorted by path."""
    files: list[Path] = []
    visited: set[Path] = set()
    for name, folders, names in os.walk(folder, followlinks=True):
        here = Path(name)
        real = here.resolve()
        if real in visited or real in skipped:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [child for child in folders if not child.startswith(".")]
        files += [here / child for child in names if not child.startswith(".")]
    return sorted(path for path in files if path.is_file())
