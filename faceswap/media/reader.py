"""Read photos and videos frame by frame; find them in folders.

PyAV reads video, Pillow photos. Times are exact fractions of a second.
"""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from faceswap.errors import InputError
from faceswap.files import reason
from faceswap.media import colorspace
from faceswap.media.frame import Frame
from faceswap.media.photos import MAX_PIXELS, PHOTO_SUFFIXES, check_pixels
from faceswap.types import FloatImage, Image, Rect

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
     ".wmv", ".flv", ".3gp", ".ogv", ".mxf"}
)  # fmt: skip
# FFmpeg tells formats by content. Left out are lists of other files and addresses to open (concat,
# hls, dash, sdp, ...), with which a file from a stranger would read files of the user's.
FORMATS = (
    "mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "asf", "flv", "mxf", "ogg", "gif",
    "apng", "nut", "dv", "ivf", "h264", "hevc", "obu", "m4v", "mjpeg", "vc1", "rm", "swf", "gxf",
    "wtv", "yuv4mpegpipe",
)  # fmt: skip
PLAIN = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}

HDR = {16: "PQ, SMPTE ST 2084", 18: "HLG, ARIB STD-B67"}  # AVColorTransferCharacteristic


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A decoded video frame, upright, that is converted to RGB only where it is asked to be."""

    frame: av.VideoFrame

    @property
    def turns(self) -> int:
        """Counter-clockwise quarter turns that bring the stored frame upright."""
        return round(self.frame.rotation / 90) % 4

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, upright."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.turns % 2 else (height, width)

    def rgb(self, rect: Rect) -> Image:
        """The pixels of a rect, (H, W, 3)."""
        return self._rect(rect, deep=False)

    def rgb_float(self, rect: Rect) -> FloatImage:
        """The same with all the depth that is stored."""
        if colorspace.is_deep(self.frame):
            light: FloatImage = self._rect(rect, deep=True).astype(np.float32)
            return light / np.float32(colorspace.DEEP_SCALE)
        return self.rgb(rect).astype(np.float32)

    def gray(self) -> Image:
        """The whole frame without colour, (H, W)."""
        return np.ascontiguousarray(np.rot90(colorspace.gray_of(self.frame), self.turns))

    def _rect(self, rect: Rect, deep: bool) -> npt.NDArray[Any]:
        stored = colorspace.turned(rect, -self.turns, *self.shape)
        pixels = colorspace.rgb_rect(self.frame, stored, deep)
        return np.ascontiguousarray(np.rot90(pixels, self.turns))


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video says of itself: stored size (before rotation), frames (0 unknown), sound.

    ``start`` is the time of its first frame, ``seconds`` how long it is, if it says so.
    """

    width: int
    height: int
    frames: int
    has_audio: bool
    start: Fraction = Fraction(0)
    seconds: Fraction | None = None


def kind_of(path: Path) -> Literal["folder", "photo", "video"]:
    """Tell a folder, a photo and a video apart by name; an unknown suffix counts as video.

    Raises:
        InputError: If nothing is there.
    """
    if path.is_dir():
        return "folder"
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a photo, a video or a folder of them")
    return "photo" if path.suffix.lower() in PHOTO_SUFFIXES else "video"


def files_in(folder: Path, suffixes: frozenset[str], skip: Collection[Path] = ()) -> list[Path]:
    """Files with these suffixes below a folder, sorted; not hidden ones, nor any below ``skip``."""
    skipped = {path.resolve() for path in skip}
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and skipped.isdisjoint(path.resolve().parents)
    )


def photos_in(folder: Path, skip: Collection[Path] = ()) -> list[Path]:
    """Photos below a folder, sorted by path."""
    return files_in(folder, PHOTO_SUFFIXES, skip)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video for reading; yield its container and its first real video stream.

    Raises:
        InputError: If it cannot be opened or holds no video stream.
    """
    try:
        container = av.open(f"file:{path}", metadata_errors="replace", options=PLAIN)
    except (FFmpegError, OSError, MemoryError) as error:
        raise InputError(
            f"{path} is not a video this program can read: {reason(error)}"
            if isinstance(error, OSError)
            else f"{path} is not a video this program can read: {error}"
        ) from error
    with container:
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            held = ", ".join(stream.type for stream in container.streams) or "nothing"
            raise InputError(f"{path} has no video stream; it holds {held}")
        context = streams[0].codec_context
        if context is None or not context.width or context.pix_fmt is None:
            raise InputError(f"{path} is coded in a way this program cannot decode")
        try:
            check_pixels(context.width, context.height)
        except ValueError as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        context.options = {"max_pixels": str(MAX_PIXELS)}  # frames may grow later on
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def probe(path: Path) -> VideoInfo:
    """Read a video's header.

    Raises:
        InputError: If it is not a readable video.
    """
    with opened(path) as (container, stream):
        frames = stream.frames
        if not frames and container.duration and stream.average_rate:
            frames = round(container.duration / av.time_base * stream.average_rate)
        start = Fraction(stream.start_time or 0) * Fraction(stream.time_base)
        length = Fraction(container.duration, av.time_base) if container.duration else None
        sound = bool(container.streams.audio)
        return VideoInfo(stream.width, stream.height, frames, sound, start, length)


def describe_video(path: Path) -> dict[str, Any]:
    """What a video says of itself, as JSON-ready values: its size upright, length and streams.

    Raises:
        InputError: If it is not a readable video.
    """
    with opened(path) as (container, video):
        streams = [_describe_stream(stream) for stream in container.streams]
        facts = {
            "container": container.format.name,
            "seconds": container.duration / av.time_base if container.duration else None,
            "pixel_format": video.codec_context.pix_fmt,
        }
    height, width = next(islice(read_video(path), 1)).shape  # upright
    size = {"width": width, "height": height, "frames": probe(path).frames or None}
    return facts | size | {"streams": streams}


def _describe_stream(stream: Any) -> dict[str, Any]:
    context = stream.codec_context
    facts = {"type": stream.type, "codec": getattr(context, "name", None)}
    if stream.type == "video" and stream.average_rate:
        facts["frames_per_second"] = float(stream.average_rate)
    if stream.type == "audio" and context:
        facts |= {"sample_rate": context.sample_rate, "channels": context.channels}
    return facts | {"language": stream.language} if stream.language else facts


def read_video(path: Path, every: int = 1) -> Iterator[Frame]:
    """Decode a video frame by frame, upright, with exact times; damaged packets are skipped.

    Args:
        path: The video.
        every: Yield only frames 0, every, 2 * every, ...

    Raises:
        InputError: If it is not a readable video or no frame of it can be decoded.
    """
    with opened(path) as (container, stream):
        _refuse_hdr(stream.codec_context, path)
        index, packets, damaged = 0, 0, 0
        last: int | None = None
        ahead: int | None = None
        for packet in _packets(container, stream, path):
            packets += bool(packet.size)
            try:
                decoded = packet.decode()
            except FFmpegError:  # of many kinds: not only data, also sizes that no codec takes
                damaged += 1
                continue
            for native in decoded:
                if container.format.name == "avi" and native.pts is not None:
                    # It holds packets as they are decoded; their places are no times to show them.
                    if ahead is None and native.dts is not None:
                        ahead = native.dts - native.pts
                    if ahead is not None:
                        native.pts = None if native.dts is None else native.dts - ahead
                last = _repair_time(native, last, stream)
                if index % every == 0:
                    yield _to_frame(native, index, path)
                index += 1
        if not index:
            raise InputError(f"{path} holds no frame that can be decoded")
        if damaged or packets < stream.frames:  # an edit list hides frames, but not packets
            whole = max(stream.frames, packets)
            log.warning("%s is damaged: %d of %d frames could be read", path, index, whole)


def _packets(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """The packets of a stream, up to where the file can no longer be taken apart."""
    try:
        yield from container.demux(stream)
    except (FFmpegError, OSError, MemoryError) as error:
        log.warning("%s is damaged, and read only up to there: %s", path, error)


def _refuse_hdr(context: Any, path: Path) -> None:
    """A model learns from pictures in standard range; it would paint a face far too dark."""
    if context.color_trc in HDR:
        raise InputError(
            f"{path} is HDR ({HDR[context.color_trc]}), and faces are swapped in standard dynamic "
            "range: tone-map it first, for instance with FFmpeg's filters zscale and tonemap"
        )


def sample_video(path: Path, count: int, exact: bool = True) -> Iterator[Frame]:
    """Frames evenly spaced over a video, without decoding all of it; their index counts from 0.

    Args:
        path: The video.
        count: How many, the first and the last half a step from the ends.
        exact: If not, the key frame before each of these, each once: much quicker.

    Raises:
        InputError: If it is not a readable video, or does not say how long it is.
    """
    with opened(path) as (container, stream):
        _refuse_hdr(stream.codec_context, path)
        length = stream.duration
        if not length and container.duration:
            length = int(Fraction(container.duration, av.time_base) / stream.time_base)
        if not length:
            raise InputError(f"{path} does not say how long it is; convert all of it instead")
        seen: set[int | None] = set()
        for number in range(count):
            target = (stream.start_time or 0) + int(length * (number + 0.5) / count)
            latest: Any = None
            try:
                container.seek(target, stream=stream)  # to the key frame before
                for native in container.decode(stream):
                    if latest is not None and (native.pts is None or native.pts > target):
                        break
                    latest = native
                    if not exact:
                        break
            except FFmpegError as error:  # damaged here: what came before it will do
                log.warning("%s is damaged: %s", path, error)
            if latest is not None and (exact or latest.pts not in seen):
                seen.add(latest.pts)
                yield _to_frame(latest, number, path)


def _to_frame(native: av.VideoFrame, index: int, path: Path) -> Frame:
    time = Fraction(native.pts or 0) * Fraction(native.time_base or 0)
    return Frame(Decoded(native), index, time, path)


def _repair_time(native: av.VideoFrame, last: int | None, stream: Any) -> int:
    """Give a frame a time after the last one where the file gives none or one that runs back.

    (AVI keeps decoding times only; a raw stream has none at all.)
    """
    if native.time_base is None:
        native.time_base = stream.time_base or Fraction(1, 1000)
    if native.pts is None or (last is not None and native.pts <= last):
        known = native.dts
        if known is not None and (last is None or known > last):
            native.pts = known
        else:
            rate = stream.average_rate or Fraction(25)
            step = max(round(1 / rate / native.time_base), 1)
            native.pts = 0 if last is None else last + step
    return native.pts
