"""Join encoded segments into a video, and add the source's other streams, tags and chapters.

Audio and subtitles are copied packet by packet. Audio is transcoded only if the output container
cannot store it.
"""

import logging
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from faceswap.media.audio import AudioTranscoder
from faceswap.media.codecs import Encoding, add_video, keeping_priority
from faceswap.media.reader import PLAIN

log = logging.getLogger(__name__)


CONTAINER_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
TIMECODE = "timecode"  # muxers create their own timecode track from this tag
ATTACHING = frozenset({".mkv"})  # containers that can hold attachments, such as subtitle fonts
KEPT_TAGS = ("language", "handler_name", "title")


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished segment of a video, which can be decoded without the other segments.

    Attributes:
        path: The encoded file.
        times: Timestamps of its frames in display order, in the source's time base.
        last: Duration of the last frame in the same units; 0 if unknown.
        delay: The encoder's reordering delay in frames; 0 without B-frames.
        skipped: Number of video packets in the file before those of the segment.
        order: The place of each packet's frame in ``times``; None if the file holds only this
            segment, so that its own timestamps tell.
        has_lengths: Whether the parts of the packets begin with their lengths, not start codes.
    """

    path: Path
    times: list[int]
    last: int
    delay: int
    skipped: int = 0
    order: tuple[int, ...] | None = None
    has_lengths: bool = False


def packets_of(segments: list[Segment], time_base: Fraction, shift: int) -> Iterator[Any]:
    """Yield the packets of all segments in order, with continuous timestamps.

    The n-th packet is decoded when frame n - ``delay`` is shown. These are the decoding times that
    one encoder would have produced for the whole video.

    Args:
        segments: All segments, in order.
        time_base: Time base of their timestamps.
        shift: Subtracted from every timestamp.
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
        for packet, time in _timed_packets(segment, time_base):
            packet.time_base = time_base
            packet.pts, packet.dts = time - shift, decoding.popleft() - shift
            packet.duration = lengths[time]
            yield packet


def _timed_packets(segment: Segment, time_base: Fraction) -> Iterator[tuple[Any, int]]:
    """Yield the packets of a segment with the timestamps of their frames."""
    with av.open(f"file:{segment.path}", options=PLAIN) as opened:
        container: Any = opened
        stream = container.streams.video[0]
        packets: Iterator[Any] = (one for one in container.demux(stream) if one.size)
        if segment.order is not None:
            end = segment.skipped + len(segment.order)
            some: Iterator[Any] = islice(packets, segment.skipped, end)
            for packet, place in zip(some, segment.order, strict=True):
                copied = _with_start_codes(packet) if segment.has_lengths else packet
                yield copied, segment.times[place]
            return
        # The segment container cannot store negative timestamps, so it may have shifted them.
        offset: int | None = None
        in_order = iter(segment.times)
        for packet in packets:
            if not segment.delay:  # packets are in display order, and Matroska rounds times
                yield packet, next(in_order)
                continue
            time = round(packet.pts * packet.time_base / time_base)
            offset = time - segment.times[0] if offset is None else offset
            yield packet, time - offset


def _with_start_codes(packet: Any) -> Any:
    """Return a copy of an H.264 or H.265 packet with start codes instead of lengths.

    Muxers expect start codes, as encoders write them (ITU-T H.264, annex B), and turn them into
    lengths of four bytes again (ISO/IEC 14496-15).
    """
    data, units, at = bytes(packet), bytearray(), 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        units += b"\0\0\0\1" + data[at + 4 : end]
        at = end
    copied: Any = av.Packet(bytes(units))
    copied.is_keyframe = packet.is_keyframe
    return copied


class Muxer:
    """Writes a video file from segments and from the other streams of its source.

    Args:
        temporary: The file to write.
        path: The final path. Warnings name it, and its suffix decides what can be stored.
        source: The source's open container.
        video: The source's video stream.
        encoding: How the segments were encoded.
        rotation: Degrees by which players rotate the video counter-clockwise.
        sound: Whether to copy audio, subtitles and attachments.
        span: Start and end of an excerpt, in seconds of the source's time; an end of None is the
            end of the source. The output holds only this excerpt and begins at 0. Without a span
            it holds everything.

    Raises:
        SettingsError: If the encoder that a plug-in chose cannot be used in this container.
        FFmpegError: If the file cannot be created.
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
            timescale = _movie_timescale(source, video)
            flags = {"movflags": "+faststart", "movie_timescale": str(timescale)}
        self._path, self._source, self._span = path, source, span
        # FFmpeg's default muxer for .m4v rejects H.265.
        container_format = "mp4" if suffix == ".m4v" else None
        self._out = av.open(f"file:{temporary}", "w", format=container_format, options=flags)
        for name, value in source.metadata.items():
            if name not in CONTAINER_TAGS and name.lower() != TIMECODE:
                self._out.metadata[name] = value
        self._out.metadata.update(_timecode_tag(source, video, span[0] if span else None))
        self._out.set_chapters(self._chapters())
        self._video = add_video(self._out, video, encoding)
        self._video.metadata.update({k: v for k, v in video.metadata.items() if k in KEPT_TAGS})
        self._warn_if_squeezed(video, encoding)
        if rotation:
            self._video.set_display_rotation(rotation)
        self._time_base = Fraction(video.time_base)
        self._transcoders: dict[Any, AudioTranscoder] = {}
        self._copies = self._copy_streams(video) if sound else {}
        self._packets: Iterable[Any] = source.demux(*self._copies) if self._copies else ()
        self._other_packets = iter(self._packets)
        self._pending: Any = None
        self._latest: dict[Any, int] = {}  # last decoding time of each copied stream
        self._warned: set[str] = set()

    def _warn_if_squeezed(self, video: Any, encoding: Encoding) -> None:
        """Warn if the pixel aspect ratio is lost: in Matroska, only H.264 and H.265 store it."""
        aspect = video.sample_aspect_ratio or 1
        in_bitstream = encoding.encoder.startswith(("libx26", "h264_", "hevc_"))
        if aspect != 1 and not in_bitstream and self._out.format.name in ("matroska", "webm"):
            log.warning(
                "the pixel aspect ratio %s cannot be stored in %s with %s, so the video "
                "will look squeezed; use .mov, or .mkv with --codec h264",
                aspect, self._path, encoding.encoder,
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
        """Copy the attachments, and add an output stream for each audio and subtitle stream.

        Warn about the streams that are left out. Return the output streams by source stream.
        """
        copies = {}
        for stream in self._source.streams:
            if stream is video or (stream.type == "data" and TIMECODE in stream.metadata):
                continue
            if stream.type == "attachment" and self._path.suffix.lower() in ATTACHING:
                self._out.add_attachment(stream.name or "", stream.mimetype or "", stream.data)
                continue
            copy = self._add_output_stream(stream)
            if copy is not None:
                copy.metadata.update(stream.metadata)
                copy.disposition = stream.disposition
                copies[stream] = copy
        return copies

    def _add_output_stream(self, stream: Any) -> Any:
        """Add an output stream that copies or transcodes a source stream; None if neither works."""
        if stream.type not in ("audio", "subtitle"):
            log.warning(
                "%s stream %d is left out of %s: only audio, subtitles and, in .mkv, attachments "
                "can be copied", stream.type, stream.index, self._path,
            )  # fmt: skip
            return None
        suffix = self._path.suffix.lower()
        with suppress(ValueError, FFmpegError):
            return self._out.add_stream_from_template(stream)
        name = getattr(stream.codec_context, "name", "unknown")
        problem = f"{stream.type} stream {stream.index} ({name}) cannot be stored in {suffix}"
        try:
            transcoder = AudioTranscoder(self._out, stream, suffix)
        except (ValueError, FFmpegError):
            log.warning("%s; it is left out", problem)
            return None
        log.warning("%s; it is transcoded to %s", problem, transcoder.name)
        self._transcoders[stream] = transcoder
        return transcoder.stream

    def run(self, segments: list[Segment]) -> None:
        """Write the segments interleaved with the other streams, then the rest of those streams."""
        shift = segments[0].times[0] if self._span else 0
        with keeping_priority():
            self._out.start_encoding()  # opens the encoder, although it encodes nothing here
        for packet in packets_of(segments, self._time_base, shift):
            time = (packet.pts + shift) * self._time_base
            packet.stream = self._video
            self._out.mux(packet)
            self._copy_until(time)
        self._copy_until(None)
        for transcoder in self._transcoders.values():
            for packet in transcoder.end():
                self._out.mux(packet)

    def close(self) -> None:
        self._out.close()

    def _copy_until(self, time: Fraction | None) -> None:
        """Copy the other streams' packets up to a time in seconds; None copies all that remain."""
        while True:
            packet, self._pending = self._pending, None
            if packet is None:
                packet = self._next_packet()
            if packet is None:
                return
            # The demuxer's flush packet has no dts.
            if packet.dts is None or _is_empty_subtitle(packet):
                continue
            begins = packet.dts * packet.time_base
            if time is not None and begins > time:
                self._pending = packet
                return
            latest = self._latest.get(packet.stream, packet.dts - 1)
            if packet.dts < latest + (not self._may_share_time(packet.stream)):
                self._warn_once("packets whose timestamps repeat or run backwards are left out")
                continue
            self._latest[packet.stream] = packet.dts
            if self._span and not _fit_to_excerpt(packet, *self._span):
                continue
            for output in self._output_packets(packet):
                self._out.mux(output)

    def _may_share_time(self, stream: Any) -> bool:
        """Return whether packets of a stream may share a timestamp.

        Subtitles may overlap. Matroska rounds to 1 ms, which can be coarser than an audio packet.
        Transcoded audio gets new timestamps.
        """
        is_matroska = self._out.format.name in ("matroska", "webm")
        return is_matroska or stream.type == "subtitle" or stream in self._transcoders

    def _output_packets(self, packet: Any) -> Iterable[Any]:
        """Return the output packets for a source packet, transcoded if necessary."""
        if packet.stream in self._transcoders:
            return self._transcoders[packet.stream].feed(packet)
        packet.stream = self._copies[packet.stream]
        return (packet,)

    def _next_packet(self) -> Any:
        """Return the next packet of the other streams; None at the end or after a read error."""
        try:
            return next(self._other_packets, None)
        except FFmpegError as error:
            self._warn_once(f"audio and subtitles end early: {error.strerror}")
            self._other_packets = iter(())
            return None

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            log.warning("the source of %s is damaged: %s", self._path, message)


def _movie_timescale(source: Any, video: Any) -> int:
    """Return the ticks per second at which the video and audio start times are whole numbers.

    FFmpeg's default of 1000 would shift start times by up to half a millisecond. If the number does
    not fit into 31 bits, only the video's start time is exact.
    """
    video_ticks = Fraction(video.time_base).denominator
    rates = [s.rate for s in source.streams.audio if s.codec_context and s.rate]
    common = math.lcm(1000, video_ticks, *rates)
    return common if common < 2**31 else video_ticks


def _timecode_tag(source: Any, video: Any, first: Fraction | None) -> dict[str, str]:
    """Return the timecode tag of the output's first frame; empty if the source has no timecode.

    ``first`` is that frame's time in seconds, or None for the source's first frame. An invalid
    timecode is dropped, because the muxer would refuse to write the file.
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


def _fit_to_excerpt(packet: Any, start: Fraction, end: Fraction | None) -> bool:
    """Shift a packet to an excerpt's timestamps; return False if it lies outside the excerpt.

    Subtitles are trimmed to the excerpt. Audio packets cannot be cut, so only those that begin in
    the excerpt are kept.
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


def _is_empty_subtitle(packet: Any) -> bool:
    """Return whether a packet is mov_text's empty filler; the muxer writes its own fillers."""
    context = packet.stream.codec_context
    return (
        packet.size == 2 and getattr(context, "name", "") == "mov_text" and not any(bytes(packet))
    )


FORM = re.compile(r"(\d\d):([0-5]\d):([0-5]\d)([:;.,])(\d\d)")


def moved(code: str, frames: int, rate: Fraction) -> str:
    """Advance an SMPTE ST 12-1 timecode by a number of frames.

    Args:
        code: Hours, minutes, seconds and frames, such as 01:00:00:00. A semicolon, a full stop or a
            comma before the frames marks drop-frame timecode: two frame numbers (four at 60 fps)
            are skipped each minute, except every tenth.
        frames: Frames to advance; may be negative.
        rate: Frames per second.

    Raises:
        ValueError: If ``code`` is not a valid timecode at this rate.
    """
    found, fps = FORM.fullmatch(code), round(rate)
    if not found or int(found[5]) >= fps or (found[4] != ":" and fps % 30):
        raise ValueError(f"{code} is not a valid timecode at {float(rate):g} fps")
    dropped = fps // 15 if found[4] != ":" else 0  # frame numbers skipped per minute
    minutes = 60 * int(found[1]) + int(found[2])
    number = (60 * minutes + int(found[3])) * fps + int(found[5])
    number += frames - dropped * (minutes - minutes // 10)
    per_ten_minutes = 600 * fps - 9 * dropped  # frames
    number %= 144 * per_ten_minutes  # wrap around after a day
    tens, rest = divmod(number, per_ten_minutes)
    number += dropped * (9 * tens + max(rest - dropped, 0) // (60 * fps - dropped))
    seconds, frame = divmod(number, fps)
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    return f"{hours:02}:{minutes:02}:{seconds:02}{found[4]}{frame:02}"
