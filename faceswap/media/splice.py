"""Replace frames of a finished output without touching the others.

Of a video, only the frames from the first replaced one to the next key frame are encoded again.
They were decoded from the output itself, except for the replaced ones. All other packets are copied
as they are. In a folder of images, only the replaced images are written.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from faceswap.errors import InputError, OutputError
from faceswap.media.footage import Footage, VideoFile
from faceswap.media.frame import Frame
from faceswap.media.muxer import Muxer, Segment
from faceswap.media.reader import Decoded, opened
from faceswap.media.segments import ImageSequenceWriter, VideoSegmentWriter
from faceswap.media.writers import StreamTarget, publish_images, writing_media


@dataclass(frozen=True, slots=True)
class PacketList:
    """The video packets of a file in decoding order.

    Attributes:
        ranks: The number of the frame in each packet, in display order from 0.
        keys: Whether each packet is a key frame.
        last: How long the last frame is shown, in seconds; 0 if unknown.
        has_lengths: Whether the parts of the packets begin with their lengths, not start codes, as
            in H.264 and H.265 in MP4 and Matroska.
    """

    ranks: list[int]
    keys: list[bool]
    last: Fraction
    has_lengths: bool

    @classmethod
    def of(cls, path: Path) -> "PacketList":
        """Read the list of a video file.

        Raises:
            InputError: If it is not a readable video.
        """
        with opened(path) as (container, stream):
            found = [packet for packet in container.demux(stream) if packet.size]
            context = stream.codec_context
            has_parts = context.name.startswith(("h264", "hevc"))
            has_lengths = has_parts and bytes(context.extradata or b"")[:1] == b"\x01"
            times = [packet.pts for packet in found]
            if not found or None in times:
                raise InputError(f"{path} does not tell the times of its frames")
            order = np.argsort(times)
            ranks = np.empty(len(order), int)
            ranks[order] = np.arange(len(order))
            last = Fraction((found[int(order[-1])].duration or 0) * stream.time_base)
            keys = [packet.is_keyframe for packet in found]
            return cls(ranks.tolist(), keys, last, has_lengths)

    def kept(self, replaced: Sequence[int]) -> list[range]:
        """Return the packets that need not be encoded again if some frames are replaced.

        Args:
            replaced: The numbers of these frames, sorted.

        Returns:
            Ranges of packets. Each begins with a key frame, and its packets show the frames of the
            same numbers. Whole groups of pictures without a replaced frame are kept, and of each
            other group the packets that show and need only frames before the first replaced one.
        """
        wanted = np.asarray(replaced)
        kept: list[range] = []
        for group in self._groups():
            inside = wanted[(wanted >= group.start) & (wanted < group.stop)]
            end = group.stop if not len(inside) else self._closed(group, int(inside[0]))
            if end == group.start:
                continue
            if kept and kept[-1].stop == group.start:
                kept[-1] = range(kept[-1].start, end)
            else:
                kept.append(range(group.start, end))
        return kept

    def _groups(self) -> Iterator[range]:
        """Yield closed groups of pictures, whose packets show the frames of the same numbers."""
        starts = [at for at, is_key in enumerate(self.keys) if is_key or not at]
        begin = 0
        highest = -1
        for start, stop in pairwise([*starts, len(self.keys)]):
            highest = max(highest, *self.ranks[start:stop])
            if highest == stop - 1:  # everything up to here is shown before what follows
                yield range(begin, stop)
                begin = stop

    def _closed(self, group: range, limit: int) -> int:
        """Return the end of the packets of a group that show only frames before a limit.

        These packets show every frame before that end, so none is missing among them.
        """
        end, highest = group.start, group.start - 1
        for at in group:
            highest = max(highest, self.ranks[at])
            if highest >= limit:
                break
            if highest == at:
                end = at + 1
        return end


class Splice(Protocol):
    """Takes the new frames of one stream, in order, and then puts them into its output."""

    def write(self, number: int, frame: Frame) -> None:
        """Replace a frame; its number counts the frames of the output from 0."""

    def finish(self) -> None:
        """Encode what is left to encode; the output is not touched yet."""

    def publish(self, footage: Footage) -> None:
        """Write the output with the replaced frames in place of the old one.

        Raises:
            OutputError: If it cannot be written.
        """


class VideoSplice:
    """Replaces frames of one video file.

    Args:
        target: The stream; its path is the file.
        replaced: The numbers of the frames that will be written, sorted.
        times: Timestamps of all frames in the time base of the source.
        video: The source's video stream.
        folder: A folder for what is encoded.
        excerpt: Whether the output holds only a part of the source, with timestamps from 0.
        end: The end of that part on the source's timeline in seconds; None for the source's end.

    Raises:
        InputError: If the file is not a video with as many frames as there are timestamps.
    """

    def __init__(
        self, target: StreamTarget, replaced: Sequence[int], times: list[int], video: Any,
        folder: Path, *, excerpt: bool = False, end: Fraction | None = None,
    ) -> None:  # fmt: skip
        self._target, self._times, self._video, self._folder = target, times, video, folder
        self._excerpt, self._end = excerpt, end
        self._packets = PacketList.of(target.path)
        if len(self._packets.ranks) != len(times):
            raise InputError(
                f"{target.path} has {len(self._packets.ranks)} frames, but its report lists "
                f"{len(times)}: convert the footage again"
            )
        self._kept = self._packets.kept(replaced)
        self._new = self._gaps()
        self._segments: list[Segment] = []
        self._writer: VideoSegmentWriter | None = None
        self._current = range(0)
        self._old: Iterator[Frame] = iter(())
        self._next = 0  # number of the next frame of the current gap
        self._time_base = Fraction(video.time_base)

    def _gaps(self) -> list[range]:
        """Return the frames that are encoded again; before each gap, packets show all frames."""
        ends = [0, *(kept.stop for kept in self._kept)]
        starts = [*(kept.start for kept in self._kept), len(self._times)]
        return [range(end, start) for end, start in zip(ends, starts, strict=True) if end < start]

    def write(self, number: int, frame: Frame) -> None:
        if number not in self._current:
            self.finish()
            self._current = next(gap for gap in self._new if number in gap)
            self._next = self._current.start
            self._writer = VideoSegmentWriter(self._part, self._video, self._target.encoding)
            self._old = VideoFile(self._target.path).read(self._next)
        self._copy_until(number)
        assert self._writer is not None, "opened above"
        next(self._old)
        self._writer.write(frame)
        self._next += 1

    def _copy_until(self, number: int) -> None:
        """Encode the old frames before a frame."""
        while self._next < number:
            assert self._writer is not None, "a gap is open"
            frame = next(self._old)
            assert isinstance(frame.pixels, Decoded), "read from a video"
            native: Any = frame.pixels.frame
            native.pts, native.time_base = self._times[self._next], self._time_base
            self._writer.write(frame)
            self._next += 1

    def finish(self) -> None:
        if self._writer is None:
            return
        self._copy_until(self._current.stop)
        delay = self._writer.finish()
        times = self._times[self._current.start : self._current.stop]
        self._segments.append(Segment(self._part, times, self._last, delay))
        self._writer = None

    @property
    def _part(self) -> Path:
        """The file that holds the new packets of the current gap."""
        return self._folder / f"{self._target.path.name}-{self._current.start}.part"

    @property
    def _last(self) -> int:
        return round(self._packets.last / self._time_base)

    def publish(self, footage: Footage) -> None:
        path = self._target.path
        segments = sorted([*self._segments, *map(self._copied, self._kept)],
                          key=lambda segment: segment.times[0])  # fmt: skip
        first = next(VideoFile(path).read())
        assert isinstance(first.pixels, Decoded), "read from a video"
        span = (self._times[0] * self._time_base, self._end) if self._excerpt else None
        with (
            self._target.publisher(path, True)(path) as temporary,
            footage.opened() as (container, video),
            writing_media(path),
        ):
            muxer = Muxer(
                temporary, path, container, video, self._target.encoding,
                round(first.pixels.frame.rotation), self._target.sound, span,
            )  # fmt: skip
            try:
                muxer.run(segments)
            finally:
                muxer.close()
            if _headers_of(temporary) != _headers_of(path):  # the old packets need the old headers
                raise OutputError(
                    f"frames of {path} cannot be replaced, because another release of the encoder "
                    "made it: convert the footage again"
                )

    def _copied(self, kept: range) -> Segment:
        ranks = self._packets.ranks[kept.start : kept.stop]
        order = tuple(rank - kept.start for rank in ranks)
        delay = max(place - rank for place, rank in enumerate(order))
        times = self._times[kept.start : kept.stop]
        return Segment(
            self._target.path, times, self._last, delay, kept.start, order,
            self._packets.has_lengths,
        )  # fmt: skip


def _headers_of(path: Path) -> bytes:
    with opened(path) as (_, stream):
        return bytes(stream.codec_context.extradata or b"")


class ImageSplice:
    """Replaces images of a folder.

    Args:
        target: The stream; its path is the folder.
        folder: A folder for the new images; it must not exist.

    Raises:
        InputError: If the folder does not exist.
    """

    def __init__(self, target: StreamTarget, folder: Path) -> None:
        assert target.images is not None, "the stream consists of images"
        if not target.path.is_dir():
            raise InputError(f"{target.path} does not exist")
        self._target, self._folder = target, folder
        self._writer = ImageSequenceWriter(folder, target.images)
        self._name_of = target.images
        self._marked: set[str] = set()

    def write(self, number: int, frame: Frame) -> None:  # noqa: ARG002 - the frame names its image
        self._writer.write(frame)
        if frame.luma is not None:
            self._marked.add(Path(self._name_of(frame)).stem)

    def finish(self) -> None:
        """Do nothing: the images are written."""

    def publish(self, footage: Footage) -> None:
        target = self._target
        with writing_media(target.path):
            publish_images(
                self._folder.iterdir(), target.path, footage, target.publisher, self._marked
            )
            shutil.rmtree(self._folder)
