"""Read videos frame by frame.

The times of frames are exact fractions of a second.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import dropwhile, islice
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import numpy.typing as npt
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.error import FFmpegError
from msgspec import UNSET, Meta, UnsetType

from faceswap.arrays import FloatImage, Image, Rect
from faceswap.errors import InputError, SettingsError
from faceswap.media import colorspace
from faceswap.media.frame import (
    MAX_PIXELS,
    Alpha,
    Frame,
    check_pixels,
    gray_of_rgb,
    rounded,
)
from faceswap.media.sources import animation_of
from faceswap.media.views import AS_STORED, HDR, View, hdr_view, view_of
from faceswap.types import Count

log = logging.getLogger(__name__)

# FFmpeg detects formats by content. Playlists (concat, hls, dash, sdp, ...) are left out, because
# they name other files and URLs: a stranger's file could make us read the user's files.
FORMATS = (
    "mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "asf", "flv", "mxf", "ogg", "gif",
    "apng", "nut", "dv", "ivf", "h264", "hevc", "obu", "m4v", "mjpeg", "vc1", "rm", "swf", "gxf",
    "wtv", "yuv4mpegpipe",
)  # fmt: skip
UNTIMED = ("avi", "h264", "hevc", "m4v", "mpegvideo", "obu", "vc1")  # packets without true times
# GIFs: browsers show a frame without a delay for a tenth of a second, as FFmpeg does. It would also
# do so with a hundredth of a second, which is kept here.
PLAIN = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file", "min_delay": "1"}
# FFmpeg's own decoders of these codecs drop the alpha plane, which is a second stream.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}

# Margin that is converted to RGB around a requested rect, as a share of its sides, and the largest
# share of the frame that is kept for the next request.
AROUND, KEPT = 0.1, 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A decoded, upright video frame that converts only the pixels a caller asks for to RGB.

    It keeps what it converted last, and some pixels around it: the stages of a conversion ask for
    rects that overlap.

    Attributes:
        frame: The frame as it is stored.
        view: How its colours are shown; None if they are those of a display.
    """

    frame: av.VideoFrame
    view: View | None = None
    _kept: dict[bool, tuple[Rect, npt.NDArray[Any]]] = field(default_factory=dict)  # by depth

    @property
    def turns(self) -> int:
        """Counter-clockwise quarter turns that rotate the stored frame upright."""
        return round(self.frame.rotation / 90) % 4

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, upright."""
        height, width = self.frame.height, self.frame.width
        return (width, height) if self.turns % 2 else (height, width)

    def rgb(self, rect: Rect) -> Image:
        """Return the pixels of a rect, (H, W, 3)."""
        is_deep_rgb = colorspace.is_deep(self.frame) and colorspace.is_rgb(self.frame.format.name)
        if self.view or is_deep_rgb:
            return rounded(self.rgb_float(rect))  # as in photos; swscale would truncate
        return self._rect(rect, deep=False)

    def rgb_float(self, rect: Rect) -> FloatImage:
        """Return the same pixels at the stored bit depth, scaled to 0..255.

        With a view, they may be below 0 and above 255.
        """
        deep = colorspace.is_deep(self.frame)
        levels: FloatImage = self._rect(rect, deep).astype(np.float32)
        if self.view:  # which has its own share in what is kept
            return levels
        return levels / np.float32(colorspace.deep_scale(self.frame)) if deep else levels

    def coded(self, levels: FloatImage) -> FloatImage:
        """Return levels that a display shows (H, W, 3) in the colour space of the frame, 0..255."""
        if self.view is None:
            return levels
        return self.view.stored(levels) * np.float32(255)

    def gray(self) -> Image:
        """Return the grey levels of the whole frame, (H, W)."""
        if colorspace.is_rgb(self.frame.format.name):
            return gray_of_rgb(self.rgb((0, 0, *self.shape[::-1])))
        gray = colorspace.gray_of(self.frame, self.view)
        return np.ascontiguousarray(np.rot90(gray, self.turns))

    def alpha(self) -> Alpha | None:
        """Return the alpha channel of the whole frame, (H, W); None if it has none."""
        alpha = colorspace.alpha_of(self.frame)
        return None if alpha is None else np.ascontiguousarray(np.rot90(alpha, self.turns))

    def _rect(self, rect: Rect, deep: bool) -> npt.NDArray[Any]:
        kept = self._kept.get(deep)
        if kept is None or not _holds(kept[0], rect):
            kept = self._converted(_grown(rect, *self.shape), deep)
        (x, y, _, _), pixels = kept
        left, top, right, bottom = rect
        return pixels[top - y : bottom - y, left - x : right - x].copy()

    def _converted(self, rect: Rect, deep: bool) -> tuple[Rect, npt.NDArray[Any]]:
        """Convert a rect, and keep it if it is a small part of the frame."""
        stored = colorspace.turned(rect, -self.turns, *self.shape)
        pixels = colorspace.rgb_rect(self.frame, stored, deep)
        if self.view:
            levels = 255 * (colorspace.deep_scale(self.frame) if deep else 1)
            pixels = self.view.shown(pixels.astype(np.float32) / np.float32(levels))
        converted = rect, np.ascontiguousarray(np.rot90(pixels, self.turns))
        height, width = self.shape
        if pixels[..., 0].size <= KEPT * height * width:
            self._kept[deep] = converted
        return converted


def _holds(outer: Rect, inner: Rect) -> bool:
    """Return whether a rect lies in another."""
    return (
        outer[0] <= inner[0] and outer[1] <= inner[1]
        and outer[2] >= inner[2] and outer[3] >= inner[3]
    )  # fmt: skip


def _grown(rect: Rect, height: int, width: int) -> Rect:
    """Grow a rect by ``AROUND``, within a frame."""
    left, top, right, bottom = rect
    x, y = round(AROUND * (right - left)), round(AROUND * (bottom - top))
    return max(left - x, 0), max(top - y, 0), min(right + x, width), min(bottom + y, height)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Size, frame count and duration of a video, read from its header.

    Attributes:
        width: Stored width in pixels, before rotation.
        height: Stored height in pixels, before rotation.
        frames: Number of frames, estimated if the header holds only duration and rate; 0 if
            unknown.
        start: Time of the first frame in seconds.
        seconds: Duration in seconds, without sound that outlasts the frames where the header tells
            the two apart; None if unknown.
    """

    width: int
    height: int
    frames: int
    start: Fraction = Fraction(0)
    seconds: Fraction | None = None


@contextmanager
def opened(path: Path, accelerator: str | None = None) -> Iterator[tuple[Any, Any]]:
    """Open a video; yield its container and its first video stream that is not a cover image.

    Args:
        path: The video.
        accelerator: The kind of hardware that decodes it, from :func:`accelerator_of`; None for the
            processor.

    Raises:
        InputError: If it cannot be opened, has no video stream that can be decoded, or has frames
            of more than MAX_PIXELS pixels.
    """
    try:
        # FFmpeg takes an animated PNG with long metadata for a photo.
        kind = "apng" if animation_of(path) == "png" else None
        hardware = HWAccel(accelerator, allow_software_fallback=True) if accelerator else None
        container = av.open(
            f"file:{path}", format=kind, metadata_errors="replace", options=PLAIN,
            hwaccel=hardware,
        )  # fmt: skip
    except (FFmpegError, OSError, MemoryError) as error:
        message = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} is not a video this program can read: {message}") from error
    with container:
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            others = [str(s.type) for s in container.streams if s.type != "video"]
            others += ["a cover image"] * (len(container.streams) > len(others))
            types = ", ".join(others) or "nothing"
            raise InputError(f"{path} has no video stream; it contains {types}")
        context = streams[0].codec_context
        if context is None or not context.width or context.pix_fmt is None:
            raise InputError(f"{path} uses a video codec this program cannot decode")
        try:
            check_pixels(context.width, context.height)
        except ValueError as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        context.options = _limit()
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def _limit() -> dict[str, str]:
    """Return decoder options that refuse huge frames, because later ones may be larger."""
    return {"max_pixels": str(MAX_PIXELS)}


def _alpha_decoder(stream: Any) -> str | None:
    """Return the decoder that keeps the transparency of a stream if the usual one does not."""
    if stream.metadata.get("alpha_mode") != "1":
        return None
    return ALPHA_DECODERS.get(stream.codec_context.name)


def pixel_format(stream: Any) -> str:
    """Return the pixel format of a video stream's decoded frames."""
    return "yuva420p" if _alpha_decoder(stream) else str(stream.codec_context.pix_fmt)


def accelerator_of(path: Path) -> str | None:
    """Return the kind of graphics hardware that decodes a video to the same frames.

    The first frame is decoded by the processor, too, and compared. Hardware is not used for frames
    that are rotated or interlaced, because what says so would be lost.

    Returns:
        A name of FFmpeg, such as "cuda"; None if no hardware does it.

    Raises:
        InputError: If it is not a readable video.
    """
    with opened(path) as (container, stream):
        known = _first(container, stream)
    if known is None or known.rotation or known.interlaced_frame:
        return None
    for kind in hwdevices_available():
        with suppress(FFmpegError, InputError, OSError, RuntimeError, ValueError):
            with opened(path, kind) as (container, stream):
                found = _first(container, stream)
                is_used = _is_accelerated(stream)
            if is_used and found is not None and colorspace.are_equal(found, known):
                return kind
    return None


def _is_accelerated(stream: Any) -> bool:
    return bool(stream.codec_context.is_hwaccel)


def _first(container: Any, stream: Any) -> Any:
    """Return the first frame of a stream; None if none can be decoded."""
    decode = _decoding(stream, {})
    for packet in container.demux(stream):
        with suppress(FFmpegError):
            for frame in decode(packet):
                return frame
    return None


def _decoding(stream: Any, tags: colorspace.Tags) -> Callable[[Any], list[Any]]:
    """Return a function that decodes a packet of a stream; an empty one ends the stream.

    Args:
        stream: The stream.
        tags: Its colour tags from :func:`_tags_of`, for frames that lack some.
    """
    name = _alpha_decoder(stream)
    context: Any = av.CodecContext.create(name, "r") if name else None
    if context is not None:
        context.options = _limit()

    def decode(packet: Any) -> list[Any]:
        if context is None:
            found = [colorspace.planar(frame) for frame in packet.decode()]
        else:
            found = context.decode(packet if packet.size else None)
        return [colorspace.complete_tags(frame, tags) for frame in found]

    return decode


def _tags_of(stream: Any, path: Path) -> colorspace.Tags:
    """Return the colour tags of a stream before anything is decoded, which may drop them.

    Raises:
        InputError: If its colours are stored in a way that cannot be converted.
    """
    tags = colorspace.tags_of(stream.codec_context)
    kind = colorspace.UNKNOWN_MATRICES.get(tags["colorspace"])
    if kind and not colorspace.is_rgb(str(stream.codec_context.pix_fmt)):
        raise InputError(
            f"{path} stores its colours as {kind}, which this program cannot convert: convert it "
            "to BT.2020 or BT.709 first"
        )
    if tags["color_trc"] in HDR and tags["colorspace"] == colorspace.NO_TAGS["colorspace"]:
        tags["colorspace"] = colorspace.BT2020
    return tags


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
        whole = Fraction(container.duration, av.time_base) if container.duration else None
        length = stream.duration * Fraction(stream.time_base) if stream.duration else whole
        return VideoInfo(stream.width, stream.height, frames, start, length)


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """One stream of a video."""

    type: str
    codec: str | None
    frames_per_second: Annotated[float | UnsetType, Meta(description="Video streams only.")] = UNSET
    sample_rate: Annotated[
        Count | UnsetType, Meta(description="Samples per second; audio streams only.")
    ] = UNSET
    channels: Annotated[Count | UnsetType, Meta(description="Audio streams only.")] = UNSET
    language: Annotated[str | UnsetType, Meta(description="Omitted if unknown.")] = UNSET


@dataclass(frozen=True, slots=True)
class VideoDescription:
    """The properties of a video; width and height are those of the upright frames.

    The colour space is that of HDR; it is None for SDR.
    """

    container: str
    seconds: Annotated[float | None, Meta(description="Duration; null if unknown.")]
    pixel_format: str | None
    width: Count
    height: Count
    frames: Annotated[
        int | None,
        Meta(description="Number of frames, estimated if the header has none; null if unknown."),
    ]
    colorspace: str | None
    streams: list[StreamDescription]


def describe_video(path: Path) -> VideoDescription:
    """Describe a video: its upright size, duration and streams.

    Raises:
        InputError: If it is not a readable video, or none of its frames can be decoded.
    """
    with opened(path) as (container, video):
        space = HDR.get(video.codec_context.color_trc)
        name, stored = container.format.name, pixel_format(video)
        seconds = container.duration / av.time_base if container.duration else None
        streams = [_describe_stream(stream) for stream in container.streams]
    height, width = next(islice(read_video(path, AS_STORED), 1)).shape  # upright
    frames = probe(path).frames or None
    return VideoDescription(name, seconds, stored, width, height, frames, space, streams)


def _describe_stream(stream: Any) -> StreamDescription:
    context = stream.codec_context
    is_video = stream.type == "video" and stream.average_rate
    is_audio = stream.type == "audio" and context
    return StreamDescription(
        type=stream.type,
        codec=getattr(context, "name", None),
        frames_per_second=float(stream.average_rate) if is_video else UNSET,
        sample_rate=context.sample_rate if is_audio else UNSET,
        channels=context.channels if is_audio else UNSET,
        language=stream.language or UNSET,
    )


def read_video(
    path: Path, colorspace: str | None = None, accelerator: str | None = None
) -> Generator[Frame]:
    """Decode a video to upright frames with exact times; skip damaged packets.

    Args:
        path: The video.
        colorspace: Its colour space; None for HDR if its tags say so, or else that of a display.
        accelerator: See :func:`opened`.

    Raises:
        InputError: If it is not a readable video, none of its frames can be decoded, or it is HDR
            and OpenColorIO is not installed.
        SettingsError: If there is no such colour space, or OpenColorIO is not installed.
    """
    with opened(path, accelerator) as (container, stream):
        view, tags = _view(stream, path, colorspace), _tags_of(stream, path)
        index, packets, damaged = 0, 0, 0
        last: int | None = None
        avi_offset: int | None = None
        decode = _decoding(stream, tags)
        for packet in _packets(container, stream, path):
            packets += bool(packet.size)
            try:
                decoded = decode(packet)
            except FFmpegError:  # of any kind: a damaged packet can even claim an impossible size
                damaged += 1
                continue
            for native in decoded:
                if container.format.name == "avi" and native.pts is not None:
                    # AVI stores decode order only, so derive presentation times from dts.
                    if avi_offset is None and native.dts is not None:
                        avi_offset = native.dts - native.pts
                    if avi_offset is not None:
                        native.pts = None if native.dts is None else native.dts - avi_offset
                last = _repair_time(native, last, stream)
                yield to_frame(native, index, path, view)
                index += 1
        if not index:
            raise InputError(f"{path} has no frame that can be decoded")
        if damaged or packets < stream.frames:  # count packets: an edit list can hide frames
            total = max(stream.frames, packets)
            log.warning("%s is damaged: %d of %d frames could be read", path, index, total)


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """The times of all frames of a video, found without decoding it.

    Attributes:
        times: Timestamps of the frames in display order, in units of ``time_base``.
        keys: Those of the key frames.
        time_base: Seconds per unit.
    """

    times: list[int]
    keys: list[int]
    time_base: Fraction

    def seek_point(self, index: int) -> int | None:
        """Return the timestamp to seek to before a frame is decoded; None for the beginning.

        This is the last but one key frame before it. What some encoders mark as a key frame can be
        decoded exactly only after the frames before it.
        """
        before = bisect_left(self.keys, self.times[index] + 1)
        return self.keys[before - 2] if before >= 2 else None


def index_of(path: Path) -> FrameIndex | None:
    """Read the times of all frames from the packets of a video.

    Returns:
        The index; None if the packets do not hold the times of the frames, as in AVI and in damaged
        files.

    Raises:
        InputError: If it is not a readable video.
    """
    with opened(path) as (container, stream):
        if container.format.name in UNTIMED:
            return None
        times, keys = [], []
        try:
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                if packet.pts is None or packet.is_corrupt or packet.is_discard:
                    return None
                times.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        except (FFmpegError, OSError, MemoryError):
            return None
        if not times or len(set(times)) < len(times) or len(times) < stream.frames:
            return None
        return FrameIndex(sorted(times), sorted(keys), Fraction(stream.time_base))


def read_from(
    path: Path, first: int, index: FrameIndex, colorspace: str | None = None,
    accelerator: str | None = None,
) -> Iterator[Frame]:  # fmt: skip
    """Decode a video from a frame on, without decoding all frames before it.

    The frames equal those of :func:`read_video`.

    Args:
        path: The video.
        first: Index of the first frame.
        index: The times of its frames.
        colorspace: See :func:`read_video`.
        accelerator: See :func:`opened`.

    Raises:
        InputError: If it is not a readable video.
        SettingsError: See :func:`read_video`.
    """
    if first >= len(index.times):
        return
    point, wanted = index.seek_point(first), index.times[first]
    if point is not None:
        with opened(path, accelerator) as (container, stream):
            view = _view(stream, path, colorspace)
            container.seek(point, stream=stream)
            number, last = first, None
            for native in _decoded(container, stream, path):
                if number == first and (native.pts is None or native.pts < wanted):
                    continue
                if number == first and native.pts != wanted:
                    break  # the packets lied, so decode from the beginning
                last = _repair_time(native, last, stream)
                yield to_frame(native, number, path, view)
                number += 1
            else:
                return
    yield from dropwhile(
        lambda frame: frame.index < first, read_video(path, colorspace, accelerator)
    )


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Yield the frames of a stream, without those of damaged packets."""
    decode = _decoding(stream, _tags_of(stream, path))
    for packet in _packets(container, stream, path):
        with suppress(FFmpegError):
            yield from decode(packet)


def _packets(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Yield the packets of a stream until the container can no longer be parsed."""
    try:
        yield from container.demux(stream)
    except (FFmpegError, OSError, MemoryError) as error:
        log.warning("%s is damaged; only the frames before the damage are read: %s", path, error)


def _view(stream: Any, path: Path, colorspace: str | None) -> View | None:
    """Return how the colours of a video are shown; None if they are those of a display."""
    if colorspace is not None:
        return view_of(colorspace)
    context = stream.codec_context
    try:
        return hdr_view(context.color_trc, context.color_primaries)
    except SettingsError as error:
        raise InputError(f"{path} is HDR, and {error}") from error


def sample_video(
    path: Path, count: int, exact: bool = True, colorspace: str | None = None
) -> Iterator[Frame]:
    """Yield frames evenly spaced over a video without decoding all of it.

    The index of a frame is the number of its position, from 0. A position at which nothing can be
    decoded is skipped.

    Args:
        path: The video.
        count: Number of positions; the first and the last are half a step from the ends.
        exact: Whether to yield the frame that is shown at each position. If False, yield the key
            frame before it, and no key frame twice, which is much faster.
        colorspace: See :func:`read_video`.

    Raises:
        InputError: If it is not a readable video, or its duration is unknown.
        SettingsError: See :func:`read_video`.
    """
    with opened(path) as (container, stream):
        view, tags = _view(stream, path, colorspace), _tags_of(stream, path)
        length = stream.duration
        if not length and container.duration:
            length = int(Fraction(container.duration, av.time_base) / stream.time_base)
        if not length:
            raise InputError(
                f"{path} has no known duration, so frames cannot be sampled from it: "
                "convert the whole video instead"
            )
        seen: set[int | None] = set()
        for number in range(count):
            target = (stream.start_time or 0) + int(length * (number + 0.5) / count)
            latest: Any = None
            try:
                container.seek(target, stream=stream)  # goes to the key frame before it
                decode = _decoding(stream, tags)  # the old one may hold later frames
                for native in (f for packet in container.demux(stream) for f in decode(packet)):
                    if latest is not None and (native.pts is None or native.pts > target):
                        break
                    latest = native
                    if not exact:
                        break
            except FFmpegError as error:  # use the last frame before the damage
                log.warning("%s is damaged: %s", path, error)
            if latest is not None and (exact or latest.pts not in seen):
                seen.add(latest.pts)
                yield to_frame(latest, number, path, view)


def to_frame(native: av.VideoFrame, index: int, path: Path, view: View | None = None) -> Frame:
    """Return a decoded frame with its time."""
    time = Fraction(native.pts or 0) * Fraction(native.time_base or 0)
    return Frame(Decoded(native, view), index, time, path)


def _repair_time(native: av.VideoFrame, last: int | None, stream: Any) -> int:
    """Give a frame a timestamp after ``last`` unless it has one, and return its timestamp.

    AVI stores decode times only, and a raw stream has no times at all.
    """
    if native.time_base is None:
        native.time_base = stream.time_base or Fraction(1, 1000)
    if native.pts is None or (last is not None and native.pts <= last):
        dts = native.dts
        if dts is not None and (last is None or dts > last):
            native.pts = dts
        else:
            rate = stream.average_rate or Fraction(25)
            step = max(round(1 / rate / native.time_base), 1)
            native.pts = 0 if last is None else last + step
    return native.pts
