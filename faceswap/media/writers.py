"""Write photos and videos, with all that is not picture taken over from the source.

A video is encoded segment by segment (:mod:`faceswap.segments`) and put together at the end, every frame at
its own time.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from faceswap.errors import InputError, NoFacesError, OutputError
from faceswap.files import Publish, atomic_write, make_folder, reason, temporary_beside
from faceswap.media import colorspace
from faceswap.media.codecs import ANIMATIONS, CONTAINERS, Encoding, choose_encoding, shown_for
from faceswap.media.frame import Frame
from faceswap.media.muxer import Muxer, Segment, write_animation
from faceswap.media.photos import PhotoWriter
from faceswap.media.reader import Decoded, opened
from faceswap.media.segments import (
    SEGMENT_FRAMES,
    ImageSequenceWriter,
    SegmentStore,
    SegmentWriter,
    VideoSegmentWriter,
)
from faceswap.types import Image

log = logging.getLogger(__name__)


QUALITY = 18  # visually lossless
VIDEO_SUFFIXES = frozenset({*CONTAINERS, *ANIMATIONS})


class FrameWriter(Protocol):
    """Takes the frames of one output in order."""

    def write(self, frame: Frame) -> None:
        """Append one frame."""


@dataclass(frozen=True, slots=True)
class StreamTarget:
    """Where one stream of pictures goes.

    Attributes:
        path: A file, or a folder of pictures.
        encoding: How it is encoded.
        sound: Whether the source's other streams come along.
        quality: For animations.
        pictures: Whether it is a folder of pictures.
    """

    path: Path
    encoding: Encoding
    sound: bool = False
    quality: int = QUALITY
    image_sequence: bool = False


def default_video_suffix(source: Path) -> str:
    """The output container for a source: the same where we encode for it, else QuickTime.

    (Matroska rounds times to a millisecond and cannot hold a negative start of sound.)
    """
    suffix = source.suffix.lower()
    return source.suffix if suffix in CONTAINERS else ".mov"


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Turn the disk's refusal to give the source, which was there before, into an InputError."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str | Path) and Path(error.filename) == source:
            raise InputError(f"{source} cannot be read: {reason(error)}") from error
        raise


@contextmanager
def writing_media(path: Path) -> Iterator[None]:
    """Turn refusals of the disk or of FFmpeg into an OutputError."""
    try:
        yield
    except (FFmpegError, OSError) as error:
        words = error.strerror if isinstance(error, FFmpegError) else reason(error)
        raise OutputError(f"cannot write {path}: {words}") from error


@contextmanager
def photo_writer(path: Path, source: Path, publish: Publish) -> Iterator[FrameWriter]:
    """Open the writer of a photo; all that is not pixels is taken from ``source``.

    The photo appears under its name when the block ends well.

    Args:
        path: The photo; its suffix chooses the format.
        source: The original.
        publish: Moves the finished file into place.

    Raises:
        InputError: If the source has vanished.
        OutputError: If the disk refuses.
    """
    with publish(path) as temporary, writing_media(path), _reading(source):
        yield PhotoWriter(temporary, source)


def copy_file(source: Path, path: Path) -> None:
    """Copy a file byte for byte in one step.

    Raises:
        InputError: If it cannot be read.
        OutputError: If the disk refuses.
    """
    with atomic_write(path) as temporary, writing_media(path), _reading(source):
        shutil.copyfile(source, temporary)


@contextmanager
def open_video(
    targets: dict[str, StreamTarget], source: Path, publish: Publish, folder: Path, *,
    resume: bool = True, excerpt: bool = False, end: Fraction | None = None,
) -> Iterator["VideoOutput"]:  # fmt: skip
    """Open the writer of a video and of what goes with it, such as its matte.

    When the block ends well, everything is put together and appears under its name; if it does not,
    the finished segments stay for the next run.

    Args:
        targets: Where each stream of pictures goes; ``video`` is the first.
        source: The footage.
        publish: Moves finished files into place.
        folder: Of the parts.
        resume: Whether segments stay if the block is interrupted.
        excerpt: Whether only a segment of the source is written, beginning at time 0.
        end: The source's time at which an excerpt ends.

    Raises:
        OutputError: If the disk refuses, or another process writes the same.
    """
    segments = SegmentStore(folder)
    done = False
    try:
        with opened(source) as (_, video):
            output = VideoOutput(targets, video, segments)
            try:
                yield output
                output.finish()
            except BaseException as error:
                output.abandon()
                done = isinstance(error, NoFacesError)
                raise
        for name, target in targets.items():
            _complete(name, target, source, publish, segments, excerpt, end)
        done = True
    finally:
        segments.close(keep=resume and not done and bool(segments.notes))


class VideoOutput:
    """Encodes the frames of a video's streams, segment by segment.

    Attributes:
        segments: What is finished.
        faces: How many faces all frames so far hold.
        without_face: How many frames hold none.
    """

    def __init__(
        self, targets: dict[str, StreamTarget], video: Any, segments: SegmentStore
    ) -> None:
        self._targets, self._video, self.segments = targets, video, segments
        self._streams: dict[str, SegmentWriter] = {}
        self._times: list[int] = []
        self._last = self._rotation = 0
        self._is_interlaced = False
        self._count()

    @property
    def frames(self) -> int:
        """How many frames have been written."""
        return sum(len(note["times"]) for note in self.segments.notes) + len(self._times)

    def write(self, frames: dict[str, Frame], faces: int = 0) -> None:
        """Append one frame to each stream.

        Raises:
            OutputError: If the disk or the encoder refuses.
        """
        picture = frames["video"].pixels
        assert isinstance(picture, Decoded), "a frame of a video"
        native: Any = picture.frame
        if native.interlaced_frame and not self._is_interlaced:
            self._is_interlaced = True
            log.warning("%s is interlaced; its output holds the same lines but cannot say so to "
                        "players: deinterlace it first", frames["video"].source)  # fmt: skip
        for name, target in self._targets.items():
            with writing_media(target.path):
                if name not in self._streams:
                    self._streams[name] = self._begin(name, target)
                self._streams[name].write(frames[name])
        before = self._times[-1] if self._times else None
        self._last, self._rotation = shown_for(native, self._video, before), native.rotation
        self._times.append(native.pts)
        self.faces += faces
        self.without_face += not faces
        if len(self._times) == SEGMENT_FRAMES:
            self.finish()

    def forget(self, segments: int) -> None:
        """Keep only the first segments: the others will be made again.

        Raises:
            OutputError: If the disk refuses.
        """
        self.segments.keep(segments)
        self._count()

    def _count(self) -> None:
        """Take over the faces counted in finished parts."""
        self.faces = sum(note["faces"] for note in self.segments.notes)
        self.without_face = sum(note["without_face"] for note in self.segments.notes)
        self._counted = self.faces, self.without_face

    def _begin(self, name: str, target: StreamTarget) -> SegmentWriter:
        number = len(self.segments.notes)
        path = self.segments.path(name, number)
        if target.image_sequence:
            return ImageSequenceWriter(path, number * SEGMENT_FRAMES)
        return VideoSegmentWriter(path, self._video, target.encoding)

    def finish(self) -> None:
        """Finish the segment under way.

        Raises:
            OutputError: If the disk or the encoder refuses.
        """
        if not self._times:
            return
        delays = {}
        for name, stream in self._streams.items():
            with writing_media(self._targets[name].path):
                delays[name] = stream.finish()
        faces, without_face = self._counted
        self.segments.add({
            "times": self._times, "last": self._last, "rotation": self._rotation, "delays": delays,
            "faces": self.faces - faces, "without_face": self.without_face - without_face,
        })  # fmt: skip
        self._counted = self.faces, self.without_face
        self._times, self._streams = [], {}

    def abandon(self) -> None:
        """Let go of the segment under way."""
        for stream in self._streams.values():
            with suppress(FFmpegError, OSError):  # the error that led here is the one to report
                stream.finish()


def _complete(
    name: str, target: StreamTarget, source: Path, publish: Publish, segments: SegmentStore, excerpt: bool,
    end: Fraction | None,
) -> None:  # fmt: skip
    """Put a stream's segments together."""
    ready = [
        Segment(segments.path(name, number), note["times"], note["last"], note["delays"][name])
        for number, note in enumerate(segments.notes)
    ]
    if not ready:
        return
    if target.image_sequence:
        _move_images([segment.path for segment in ready], target.path, publish)
        return
    with (
        publish(target.path) as temporary,
        opened(source) as (container, video),
        writing_media(target.path),
    ):
        if target.path.suffix.lower() in ANIMATIONS:
            write_animation(ready, temporary, video, target.quality)
            return
        start = Fraction(ready[0].times[0] * video.time_base)
        muxer = Muxer(
            temporary, target.path, container, video, target.encoding,
            segments.notes[0]["rotation"], target.sound, (start, end) if excerpt else None,
        )  # fmt: skip
        try:
            muxer.run(ready)
        finally:
            muxer.close()


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but the pictures of an earlier run.

    Raises:
        OutputError: Naming what else it holds.
    """
    if folder.is_file():
        raise OutputError(f"the output {folder} is a file; pictures need a folder")
    for path in folder.iterdir() if folder.is_dir() else ():
        if not (path.stem.isdecimal() and path.suffix == ".png"):
            raise OutputError(f"{folder} holds {path.name}; pictures need a new or an empty folder")


def _move_images(folders: list[Path], target: Path, publish: Publish) -> None:
    """Sign copies of all pictures in a folder of their own, then put it in the target's place."""
    check_folder(target)
    staging = temporary_beside(target)
    make_folder(staging)
    try:
        with writing_media(target):
            for picture in sorted(path for folder in folders for path in folder.glob("*.png")):
                with publish(staging / picture.name) as temporary:
                    shutil.copyfile(picture, temporary)
            if target.is_dir():
                shutil.rmtree(target)
            staging.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_clip(
    path: Path, images: Iterable[Image], rate: int, sound: npt.NDArray[np.int16], sample_rate: int
) -> None:
    """Write a new H.264 clip with mono AAC sound.

    Args:
        path: An .mp4 file.
        images: Frames of one even size, (H, W, 3) RGB.
        rate: Frames per second.
        sound: Samples (N,).
        sample_rate: Samples per second.

    Raises:
        OutputError: If the disk refuses.
    """
    encoding = choose_encoding(".mp4", "auto", QUALITY, hardware=False)
    with (
        atomic_write(path) as temporary,
        writing_media(path),
        av.open(f"file:{temporary}", "w") as out,
    ):
        video: Any = out.add_stream(encoding.encoder, rate=rate, options=dict(encoding.options))
        audio: Any = out.add_stream("aac", rate=sample_rate, layout="mono")
        video.pix_fmt = "yuv420p"
        for number, image in enumerate(images):
            if not number:
                video.height, video.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format="yuv420p", interpolation=colorspace.EXACT)
            frame.pts, frame.time_base = number, Fraction(1, rate)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        chunk = av.AudioFrame.from_ndarray(sound[np.newaxis], format="s16", layout="mono")
        chunk.sample_rate, chunk.pts = sample_rate, 0
        out.mux(audio.encode(chunk))
        out.mux(audio.encode(None))
