"""Put a video together: encoded segments, and everything of the source that is not picture.

Sound and subtitles are copied packet for packet; only sound that the container does not take is
coded anew.
"""

import logging
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from faceswap.media.audio import AudioTranscoder
from faceswap.media.codecs import Encoding, add_video
from faceswap.media.reader import PLAIN

log = logging.getLogger(__name__)


CONTAINER_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
TIMECODE = "timecode"  # from this tag a container makes what it needs, a track of its own say
ATTACHING = frozenset({".mkv"})  # fonts of subtitles, say
KEPT_TAGS = ("language", "handler_name", "title")


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished segment of a video: encoded frames, to be decoded by themselves.

    Attributes:
        path: The file.
        times: Time stamps of its frames in order, in the source's time base.
        last: How long the last of them is shown; 0 if not known.
        delay: By how many frames the encoder sent its packets out of order.
    """

    path: Path
    times: list[int]
    last: int
    delay: int


def packets_of(segments: list[Segment], time_base: Fraction, shift: int) -> Iterator[Any]:
    """The packets of all segments in order, with times that run on from segment to segment.

    A packet is decoded ``delay`` frames before the frame is shown whose place it takes: so decoding
    times are those of one encoder that had made all parts.

    Args:
        segments: All segments, in order.
        time_base: Of their times.
        shift: Taken off every time.
    """
    delay = max(segment.delay for segment in segments)
    start = [*segments[0].times, *(segments[1].times if len(segments) > 1 else [])][:2]
    step = start[1] - start[0] if len(start) > 1 else 1
    decoding = deque(start[0] - (delay - number) * step for number in range(delay))
    for number, segment in enumerate(segments):
        decoding.extend(segment.times)
        following = segments[number + 1].times[0] if number + 1 < len(segments) else None
        ends = [
            *segment.times[1:],
            segment.times[-1] + segment.last if following is None else following,
        ]
        lengths = {time: end - time for time, end in zip(segment.times, ends, strict=True)}
        with av.open(f"file:{segment.path}", options=PLAIN) as opened:
            container: Any = opened
            later: int | None = None  # the part's file may begin later, for it knows no time < 0
            for packet in container.demux(video=0):
                if packet.dts is None and not packet.size:
                    continue
                time = round(packet.pts * packet.time_base / time_base)
                later = time - segment.times[0] if later is None else later
                time -= later
                packet.time_base = time_base
                packet.pts, packet.dts = time - shift, decoding.popleft() - shift
                packet.duration = lengths[time]
                yield packet


class Muxer:
    """Writes a video file from segments and from the other streams of its source.

    Args:
        temporary: The file.
        path: What an error names.
        source: The source's open container.
        video: Its video stream.
        encoding: How the segments were encoded.
        rotation: Degrees by which players turn the picture.
        sound: Whether sound and subtitles are copied.
        span: Copy only what begins from the first time on and before the second, in seconds, and
            begin at time 0; None: all.
    """

    def __init__(
        self,
        temporary: Path,
        path: Path,
        source: Any,
        video: Any,
        encoding: Encoding,
        rotation: int = 0,
        sound: bool = True,
        span: tuple[Fraction, Fraction | None] | None = None,
    ) -> None:
        suffix = temporary.suffix.lower()
        flags = {}
        if suffix in (".mp4", ".m4v", ".mov"):
            flags = {"movflags": "+faststart", "movie_timescale": str(_timescale(source, video))}
        self._path, self._source, self._span = path, source, span
        form = "mp4" if suffix == ".m4v" else None  # FFmpeg's own choice for it takes no H.265
        self._out = av.open(f"file:{temporary}", "w", format=form, options=flags)
        for name, value in source.metadata.items():
            if name not in CONTAINER_TAGS and name.lower() != TIMECODE:
                self._out.metadata[name] = value
        self._out.metadata.update(_timecode(source, video, span[0] if span else None))
        self._out.set_chapters(self._chapters())
        self._video = add_video(self._out, video, encoding)
        self._video.metadata.update({k: v for k, v in video.metadata.items() if k in KEPT_TAGS})
        self._check_shape(video, encoding)
        if rotation:
            self._video.set_display_rotation(rotation)
        self._time_base = Fraction(video.time_base)
        self._recoders: dict[Any, AudioTranscoder] = {}
        self._copies = self._copy_streams(video) if sound else {}
        self._packets: Iterable[Any] = source.demux(*self._copies) if self._copies else ()
        self._others = iter(self._packets)
        self._waiting: Any = None
        self._latest: dict[Any, int] = {}  # time stamp of the last packet of each copied stream
        self._warned: set[str] = set()

    def _check_shape(self, video: Any, encoding: Encoding) -> None:
        """Say so where a picture will be squeezed: Matroska's muxer leaves that to the codec."""
        shape = video.sample_aspect_ratio or 1
        knows = encoding.encoder.startswith(("libx26", "h264_", "hevc_"))
        if shape != 1 and not knows and self._out.format.name in ("matroska", "webm"):
            log.warning(
                "pixels %s times as wide as high cannot be written into %s with %s: its picture "
                "will look squeezed; use .mov, or --codec h264", shape, self._path, encoding.encoder
            )  # fmt: skip

    def _chapters(self) -> list[Any]:
        chapters: list[Any] = list(self._source.chapters())
        if not self._span:
            return chapters
        start, end = self._span
        kept = []
        for chapter in chapters:
            base = Fraction(chapter["time_base"])
            last = chapter["end"] if end is None else min(chapter["end"], int(end / base))
            first = max(chapter["start"], int(start / base))
            if first < last:
                offset = int(start / base)
                kept.append(chapter | {"start": first - offset, "end": last - offset})
        return kept

    def _copy_streams(self, video: Any) -> dict[Any, Any]:
        """Add an output stream per sound and subtitle track; say which does not fit."""
        copies = {}
        for stream in self._source.streams:
            if stream is video or (stream.type == "data" and TIMECODE in stream.metadata):
                continue
            if stream.type == "attachment" and self._path.suffix.lower() in ATTACHING:
                self._out.add_attachment(stream.name or "", stream.mimetype or "", stream.data)
                continue
            copy = self._fitting(stream)
            if copy is not None:
                copy.metadata.update(stream.metadata)
                copy.disposition = stream.disposition
                copies[stream] = copy
        return copies

    def _fitting(self, stream: Any) -> Any:
        """An output stream for a source's: a copy of it, else one coded anew, else None."""
        if stream.type not in ("audio", "subtitle"):
            log.warning("%s stream %d is left out", stream.type, stream.index)
            return None
        suffix = self._path.suffix.lower()
        with suppress(ValueError, FFmpegError):
            return self._out.add_stream_from_template(stream)
        name = getattr(stream.codec_context, "name", "unknown")
        words = f"{stream.type} stream {stream.index} ({name}) does not fit into {suffix}"
        try:
            transcoder = AudioTranscoder(self._out, stream, suffix)
        except (ValueError, FFmpegError):
            log.warning("%s and is left out", words)
            return None
        log.warning("%s: it is coded anew as %s", words, transcoder.name)
        self._recoders[stream] = transcoder
        return transcoder.stream

    def run(self, segments: list[Segment]) -> None:
        """Write everything."""
        shift = segments[0].times[0] if self._span else 0
        for packet in packets_of(segments, self._time_base, shift):
            time = (packet.pts + shift) * self._time_base
            packet.stream = self._video
            self._out.mux(packet)
            self._copy_until(time)
        self._copy_until(None)
        for transcoder in self._recoders.values():
            for packet in transcoder.end():
                self._out.mux(packet)

    def close(self) -> None:
        """Close the file."""
        self._out.close()

    def _copy_until(self, time: Fraction | None) -> None:
        """Copy the other streams' packets up to a time; None: all that remain."""
        while True:
            packet, self._waiting = self._waiting, None
            if packet is None:
                packet = self._next_packet()
            if packet is None:
                return
            if packet.dts is None or _is_gap(packet):  # the demuxer's end mark; silence
                continue
            begins = packet.dts * packet.time_base
            if time is not None and begins > time:
                self._waiting = packet
                return
            latest = self._latest.get(packet.stream, packet.dts - 1)
            if packet.dts < latest + (not self._may_coincide(packet.stream)):
                self._warn_once("time stamps of its sound run backwards there: packets left out")
                continue
            self._latest[packet.stream] = packet.dts
            if self._span and not _cut(packet, *self._span):
                continue
            for fitting in self._fitted(packet):
                self._out.mux(fitting)

    def _may_coincide(self, stream: Any) -> bool:
        """Whether packets of a stream may begin together: signs of one subtitle, say.

        (Of sound, where times are rounded to milliseconds that its packets fall short of.)
        """
        loose = self._out.format.name in ("matroska", "webm")
        return loose or stream.type == "subtitle" or stream in self._recoders

    def _fitted(self, packet: Any) -> Iterable[Any]:
        """A packet as the output takes it."""
        if packet.stream in self._recoders:
            return self._recoders[packet.stream].feed(packet)
        packet.stream = self._copies[packet.stream]
        return (packet,)

    def _next_packet(self) -> Any:
        """The source's next packet that is not picture; None at its end or where it is broken."""
        try:
            return next(self._others, None)
        except FFmpegError as error:
            self._warn_once(f"its sound cannot be read to the end: {error.strerror}")
            self._others = iter(())
            return None

    def _warn_once(self, words: str) -> None:
        if words not in self._warned:
            self._warned.add(words)
            log.warning("the source of %s is damaged; %s", self._path, words)


def _timescale(source: Any, video: Any) -> int:
    """Ticks a second in which the times at which all streams begin are whole numbers.

    FFmpeg's own thousand would move them by up to half a millisecond.
    """
    own = Fraction(video.time_base).denominator
    rates = [s.rate for s in source.streams.audio if s.codec_context and s.rate]
    common = math.lcm(1000, own, *rates)
    return common if common < 2**31 else own


def _timecode(source: Any, video: Any, first: Fraction | None) -> dict[str, str]:
    """The tag that says the timecode of the first frame, at the time ``first``; empty if unknown.

    One that makes no sense would stop the container from being written.
    """
    tags = [*video.metadata.items(), *source.metadata.items()]
    code = next((value for name, value in tags if name.lower() == TIMECODE), None)
    if code is None:
        return {}
    base, rate = Fraction(video.time_base), Fraction(video.average_rate or 0)
    skipped = 0 if first is None else round((first - (video.start_time or 0) * base) * rate)
    try:
        return {TIMECODE: moved(code, skipped, rate)}
    except ValueError as error:
        log.warning("the timecode is left out: %s", error)
        return {}


def _cut(packet: Any, start: Fraction, end: Fraction | None) -> bool:
    """Move a packet into the time of an excerpt; False if it does not belong there.

    A subtitle is shown there as long as it was within these times; sound cannot be cut.
    """
    base = packet.time_base
    first, last = math.ceil(start / base), None if end is None else math.ceil(end / base)
    if packet.stream.type == "subtitle" and packet.duration and packet.dts < first:
        packet.duration -= min(first - packet.dts, packet.duration)
        packet.pts = packet.dts = first
        if not packet.duration:
            return False
    if packet.dts < first or (last is not None and packet.dts >= last):
        return False
    if packet.stream.type == "subtitle" and last is not None:
        packet.duration = min(packet.duration, last - packet.dts)
    offset = round(start / base)
    if packet.pts is not None:
        packet.pts -= offset
    packet.dts -= offset
    return True


def _is_gap(packet: Any) -> bool:
    """Whether it only says that no subtitle is shown: the output's container says so by itself."""
    context = packet.stream.codec_context
    return (
        packet.size == 2 and getattr(context, "name", "") == "mov_text" and not any(bytes(packet))
    )


def write_animation(segments: list[Segment], temporary: Path, video: Any, quality: int) -> None:
    """Write segments of lossless RGB as an animated GIF or WebP.

    A GIF gets 256 colours of its own for every frame.
    """
    is_gif = temporary.suffix.lower() == ".gif"
    with av.open(f"file:{temporary}", "w", options={"loop": "0"}) as out:
        options = {} if is_gif else {"quality": str(max(100 - quality, 1))}
        stream: Any = out.add_stream(
            "gif" if is_gif else "libwebp_anim", rate=video.average_rate, options=options
        )
        stream.pix_fmt = "pal8" if is_gif else "bgra"
        shift = segments[0].times[0]
        graph: Any = None
        for frame in _pictures(segments, Fraction(video.time_base)):
            frame.pts -= shift
            if graph is None:
                stream.width, stream.height = frame.width, frame.height
                stream.time_base = stream.codec_context.time_base = video.time_base
                graph = _palettes(frame, video) if is_gif else False
            if graph:
                graph.push(frame)
                frame = graph.pull()
            else:
                frame = frame.reformat(format="bgra")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def _pictures(segments: list[Segment], time_base: Fraction) -> Iterator[Any]:
    for segment in segments:
        with av.open(f"file:{segment.path}", options=PLAIN) as opened:
            container: Any = opened
            for frame, time in zip(container.decode(video=0), segment.times, strict=True):
                frame.pts, frame.time_base = time, time_base
                yield frame


def _palettes(frame: Any, video: Any) -> Any:
    """A filter that gives every frame the 256 colours that suit it best."""
    graph = av.filter.Graph()
    begin = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=video.time_base
    )
    fork = graph.add("split")
    colors = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "new=1")
    end = graph.add("buffersink")
    begin.link_to(fork)
    fork.link_to(colors, 0, 0)
    fork.link_to(use, 1, 0)
    colors.link_to(use, 0, 1)
    use.link_to(end)
    graph.configure()
    return graph


FORM = re.compile(r"(\d\d):([0-5]\d):([0-5]\d)([:;.,])(\d\d)")


def moved(code: str, frames: int, rate: Fraction) -> str:
    """The address of a frame that comes so many frames later.

    Args:
        code: Hours, minutes, seconds and frames, such as 01:00:00:00; a semicolon before the frames
            says that two numbers are dropped in nine minutes of ten (four at 60 a second).
        frames: How many.
        rate: Frames per second.

    Raises:
        ValueError: If it is no address at this rate.
    """
    found, whole = FORM.fullmatch(code), round(rate)
    if not found or int(found[5]) >= whole or (found[4] != ":" and whole % 30):
        raise ValueError(f"{code} is no timecode at {float(rate):g} frames a second")
    dropped = whole // 15 if found[4] != ":" else 0  # numbers a minute
    minutes = 60 * int(found[1]) + int(found[2])
    number = (60 * minutes + int(found[3])) * whole + int(found[5])
    number += frames - dropped * (minutes - minutes // 10)
    ten = 600 * whole - 9 * dropped  # frames in ten minutes
    number %= 144 * ten  # a day
    tens, rest = divmod(number, ten)
    number += dropped * (9 * tens + max(rest - dropped, 0) // (60 * whole - dropped))
    seconds, frame = divmod(number, whole)
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    return f"{hours:02}:{minutes:02}:{seconds:02}{found[4]}{frame:02}"
