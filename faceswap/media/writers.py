"""Write photos and videos, and carry over the source's metadata and other streams.

A video is encoded in segments (:mod:`faceswap.media.segments`), which are joined at the end. Frames
keep their own timestamps; those of an excerpt are shifted, so that it begins at 0.
"""

import filecmp
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from faceswap.arrays import Image
from faceswap.errors import InputError, NoFacesError, OutputError
from faceswap.files import Publish, Publisher, atomic_write, make_folder, reason, temporary_beside
from faceswap.media import colorspace, sources
from faceswap.media.animations import FOREVER, write_animation
from faceswap.media.codecs import ANIMATIONS, CONTAINERS, Encoding, choose_encoding, shown_for
from faceswap.media.footage import Animation, Footage, ImageSequence
from faceswap.media.frame import Frame
from faceswap.media.muxer import Muxer, Segment
from faceswap.media.photos import PhotoWriter
from faceswap.media.reader import Decoded
from faceswap.media.segments import (
    SEGMENT_FRAMES,
    ImageSequenceWriter,
    SegmentStore,
    SegmentWriter,
    VideoSegmentWriter,
)

log = logging.getLogger(__name__)


QUALITY = 18  # visually lossless
VIDEO_SUFFIXES = frozenset({*CONTAINERS, *ANIMATIONS} - {".png"})


class FrameWriter(Protocol):
    """Takes the frames of one output in order."""

    def write(self, frame: Frame) -> None:
        """Append one frame."""


@dataclass(frozen=True, slots=True)
class StreamTarget:
    """Where and how one video stream is written.

    Attributes:
        path: A file, or the folder of an image sequence.
        publisher: Returns what moves a finished file into place.
        encoding: How the segments of the stream are encoded.
        sound: Whether to copy the source's other streams.
        quality: Quality of a WebP animation, on the scale of x264's constant rate factor.
        images: Returns the file name of a frame's image, if a folder of images is written.
    """

    path: Path
    publisher: Publisher
    encoding: Encoding
    sound: bool = False
    quality: int = QUALITY
    images: Callable[[Frame], str] | None = None


def default_video_suffix(source: Path) -> str:
    """Return the output suffix for a source.

    A GIF, an animated PNG and an animated WebP stay what they are. A video keeps its suffix if it
    is in CONTAINERS, and otherwise gets .mov, because Matroska rounds timestamps to 1 ms and cannot
    store audio that starts at a negative time.
    """
    suffix = source.suffix.lower()
    animation = sources.animation_of(source)
    if animation:
        fitting = {"gif": (".gif",), "webp": (".webp",), "png": (".png", ".apng")}[animation]
        return source.suffix if suffix in fitting else fitting[0]
    return source.suffix if suffix in CONTAINERS else ".mov"


@contextmanager
def _reading_source(source: Path) -> Iterator[None]:
    """Turn an operating system error about the source file into an InputError."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str | Path) and Path(error.filename) == source:
            raise InputError(f"{source} cannot be read: {reason(error)}") from error
        raise


@contextmanager
def writing_media(path: Path) -> Iterator[None]:
    """Turn an error of the operating system or of FFmpeg into an OutputError."""
    try:
        yield
    except (FFmpegError, OSError) as error:
        message = error.strerror if isinstance(error, FFmpegError) else reason(error)
        raise OutputError(f"cannot write {path}: {message}") from error


@contextmanager
def photo_writer(path: Path, source: Path, publish: Publish) -> Iterator[FrameWriter]:
    """Open the writer of a photo, which takes its metadata from ``source``.

    The photo appears at ``path`` only if the block succeeds.

    Args:
        path: The photo to write; its suffix sets the format.
        source: The original photo.
        publish: Moves the finished file into place.

    Raises:
        InputError: If the source can no longer be read.
        OutputError: If the photo cannot be written.
    """
    with publish(path) as temporary, writing_media(path), _reading_source(source):
        yield PhotoWriter(temporary, source)


def copy_file(source: Path, path: Path) -> None:
    """Copy a file atomically.

    Raises:
        InputError: If the source cannot be read.
        OutputError: If the copy cannot be written.
    """
    with atomic_write(path) as temporary, writing_media(path), _reading_source(source):
        shutil.copyfile(source, temporary)


@contextmanager
def open_video(
    targets: dict[str, StreamTarget], footage: Footage, folder: Path, *, resume: bool = True,
    excerpt: bool = False, end: Fraction | None = None, join: bool = True,
) -> Iterator["VideoOutput"]:  # fmt: skip
    """Open a writer for a video and its companion streams, such as the matte.

    If the block succeeds, join the segments and publish the outputs. If anything fails, keep the
    finished segments for the next run, unless ``resume`` is false or the block raised NoFacesError.

    Args:
        targets: Where each stream is written, by name; must contain ``video``.
        footage: The source.
        folder: Folder of the segments.
        resume: Whether to keep the finished segments if the block fails.
        excerpt: Whether to write only part of the source, with timestamps from 0.
        end: Time in the source at which the excerpt ends, in seconds; None for the source's end.
        join: Whether to join and publish; otherwise the segments are kept.

    Raises:
        InputError: If the source cannot be read.
        BusyError: If another process is writing the output.
        OutputError: If the output cannot be written, or the finished segments are damaged.
        SettingsError: If the encoder that a plug-in chose cannot be used in the container.
    """
    segments = SegmentStore(folder, targets["video"].path, footage.path)
    done = False
    try:
        with footage.opened() as (_, video):
            output = VideoOutput(targets, video, segments)
            try:
                yield output
                output.finish()
            except BaseException as error:
                output.abandon()
                done = isinstance(error, NoFacesError)
                raise
        if not join:
            return
        segments.begin_output()
        for name, target in targets.items():
            _join_segments(name, target, footage, segments, excerpt, end)
        done = True
    finally:
        segments.close(keep=resume and not done and bool(segments.notes))


class VideoOutput:
    """Encodes the frames of all streams of a video, segment by segment.

    Attributes:
        segments: The finished segments.
    """

    def __init__(
        self, targets: dict[str, StreamTarget], video: Any, segments: SegmentStore
    ) -> None:
        self._targets, self._video, self.segments = targets, video, segments
        self._streams: dict[str, SegmentWriter] = {}
        self._times: list[int] = []
        self._last_duration = self._rotation = 0
        self._is_interlaced = False
        self._records: list[Any] = []
        self._marked: list[str] = []  # stems of images with a watermark

    @property
    def frames(self) -> int:
        """Number of frames written so far, including those of a resumed run."""
        return sum(len(note["times"]) for note in self.segments.notes) + len(self._times)

    @property
    def records(self) -> list[Any]:
        """What was noted about each frame so far, including those of a resumed run."""
        finished = [record for note in self.segments.notes for record in note["records"]]
        return finished + self._records

    def write(self, frames: dict[str, Frame], record: Any = None) -> None:
        """Append one frame to each stream.

        Args:
            frames: The frame of each stream, by name.
            record: What to note about it, as a JSON value.

        Raises:
            InputError: If the frame is an image that can no longer be read.
            OutputError: If the frame cannot be encoded or written.
            SettingsError: If the encoder that a plug-in chose cannot be used for segments.
        """
        for name, target in self._targets.items():
            with writing_media(target.path), _reading_source(frames[name].source):
                if name not in self._streams:
                    self._streams[name] = self._open_segment(name, target)
                self._streams[name].write(frames[name])
        name_of = self._targets["video"].images
        if name_of and frames["video"].luma is not None:
            self._marked.append(Path(name_of(frames["video"])).stem)
        self._note_time(frames["video"])
        self._records.append(record)
        if len(self._times) == SEGMENT_FRAMES:
            self.finish()

    def _note_time(self, frame: Frame) -> None:
        if not isinstance(frame.pixels, Decoded):  # an image of a sequence
            self._times.append(round(frame.time / self._video.time_base))
            self._last_duration = round(1 / (self._video.average_rate * self._video.time_base))
            return
        native: Any = frame.pixels.frame
        if native.interlaced_frame and not self._is_interlaced:
            self._is_interlaced = True
            log.warning("%s is interlaced: the output keeps both fields but is not flagged as "
                        "interlaced; deinterlace it first", frame.source)  # fmt: skip
        before = self._times[-1] if self._times else None
        self._last_duration = shown_for(native, self._video, before)
        self._rotation = native.rotation
        self._times.append(native.pts)

    def forget(self, segments: int) -> None:
        """Keep only this many segments, so that the later ones are rendered again.

        Raises:
            OutputError: If the list of segments cannot be written.
        """
        self.segments.keep(segments)

    def _open_segment(self, name: str, target: StreamTarget) -> SegmentWriter:
        number = len(self.segments.notes)
        path = self.segments.path(name, number)
        if target.images:
            return ImageSequenceWriter(path, target.images)
        return VideoSegmentWriter(path, self._video, target.encoding)

    def finish(self) -> None:
        """Finish and record the current segment; do nothing if it has no frame.

        Raises:
            OutputError: If the segment cannot be encoded or written.
        """
        if not self._times:
            return
        delays = {}
        for name, stream in self._streams.items():
            with writing_media(self._targets[name].path):
                delays[name] = stream.finish()
        self.segments.add({
            "times": self._times, "last": self._last_duration, "rotation": self._rotation,
            "delays": delays, "records": self._records, "marked": self._marked,
        })  # fmt: skip
        self._times, self._streams, self._records, self._marked = [], {}, [], []

    def abandon(self) -> None:
        """Close the encoders of the current segment without recording it."""
        for stream in self._streams.values():
            with suppress(FFmpegError, OSError):  # report the error that led here, not this one
                stream.finish()


def _join_segments(
    name: str, target: StreamTarget, footage: Footage, segments: SegmentStore, excerpt: bool,
    end: Fraction | None,
) -> None:  # fmt: skip
    """Join a stream's segments into its output and publish it."""
    finished = [
        Segment(segments.path(name, number), note["times"], note["last"], note["delays"][name])
        for number, note in enumerate(segments.notes)
    ]
    if not finished:
        return
    if target.images:
        folders = [segment.path for segment in finished]
        marked = {stem for note in segments.notes for stem in note["marked"]}
        _publish_images(folders, target, footage, marked)
        return
    with (
        target.publisher(footage.first_file, True)(target.path) as temporary,
        footage.opened() as (container, video),
        writing_media(target.path),
    ):
        if target.path.suffix.lower() in ANIMATIONS:
            plays = footage.plays if isinstance(footage, Animation) else FOREVER
            write_animation(finished, temporary, video, target.quality, plays)
            return
        start = Fraction(finished[0].times[0] * video.time_base)
        muxer = Muxer(
            temporary, target.path, container, video, target.encoding,
            segments.notes[0]["rotation"], target.sound, (start, end) if excerpt else None,
        )  # fmt: skip
        try:
            muxer.run(finished)
        finally:
            muxer.close()


def check_folder(folder: Path, footage: Footage) -> None:
    """Refuse an output folder that holds anything but the images of an earlier run.

    Args:
        folder: The folder; nothing is wrong if it does not exist.
        footage: The source. The images of a sequence keep their names, frames of a video become
            numbered PNGs.

    Raises:
        OutputError: If it holds another file, or is a file itself.
    """
    if folder.is_file():
        raise OutputError(f"the output {folder} is a file; an image sequence needs a folder")
    stems = {file.stem for file in footage.files} if isinstance(footage, ImageSequence) else None
    for path in folder.iterdir() if folder.is_dir() else ():
        is_ours = is_numbered_frame(path) if stems is None else path.stem in stems
        if path.suffix != sources.SIDECAR and not is_ours:
            raise OutputError(
                f"{folder} holds {path.name}; an image sequence needs a new or empty folder"
            )


def numbered_frame(number: int, suffix: str = ".png") -> str:
    """Return the file name of a frame, from 1, of a video that becomes a folder of images."""
    return f"{number:06d}{suffix}"


def is_numbered_frame(path: Path) -> bool:
    """Return whether a file is named as a frame of a video that became a folder of images."""
    return path.stem.isdecimal() and path.suffix in (".png", ".exr")


def _publish_images(
    folders: list[Path], target: StreamTarget, footage: Footage, marked: set[str]
) -> None:
    """Publish all images into a staging folder, which then replaces the target folder."""
    check_folder(target.path, footage)
    staging = temporary_beside(target.path)
    make_folder(staging)
    try:
        with writing_media(target.path):
            images = (path for folder in folders for path in folder.iterdir())
            publish_images(images, staging, footage, target.publisher, marked)
            if target.path.is_dir():
                shutil.rmtree(target.path)
            staging.replace(target.path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def publish_images(
    images: Iterable[Path], folder: Path, footage: Footage, publisher: Publisher, marked: set[str]
) -> None:
    """Copy images into a folder, and sign those that are not copies of their originals.

    Args:
        images: The images of a sequence, or the frames of a video.
        folder: Where they are written under their own names.
        footage: What they were made from.
        publisher: Returns what moves a finished image into place.
        marked: Stems of the images that have a watermark.
    """
    originals = footage.files if isinstance(footage, ImageSequence) else ()
    by_stem = {file.stem: file for file in originals}
    for image in sorted(images):
        original, path = by_stem.get(image.stem, footage.path), folder / image.name
        is_copy = bool(by_stem) and filecmp.cmp(image, original, shallow=False)
        publish = atomic_write if is_copy else publisher(original, image.stem in marked)
        with publish(path) as temporary:
            shutil.copyfile(image, temporary)


def write_clip(
    path: Path, images: Iterable[Image], rate: int, sound: npt.NDArray[np.int16], sample_rate: int
) -> None:
    """Write an H.264 clip with mono AAC audio.

    Args:
        path: An .mp4 file.
        images: Frames, (H, W, 3) RGB, all of the same size; H and W are even.
        rate: Frames per second.
        sound: Samples, (N,).
        sample_rate: Samples per second.

    Raises:
        OutputError: If the clip cannot be written.
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
