"""Footage that is read frame by frame: a video file, or numbered images that are frames of a shot.

Everything that follows faces through time works on :class:`Footage` and does not know which of the
two it reads.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import dropwhile, pairwise
from pathlib import Path
from typing import Any, Protocol, Self

import av
import cv2
import numpy as np

from faceswap.arrays import Image
from faceswap.errors import InputError, SettingsError
from faceswap.media import animations, colorspace, film, reader, sources
from faceswap.media.film import FilmImage
from faceswap.media.frame import Frame
from faceswap.media.photos import DeepPhoto, alpha_of, deep_pixels, has_alpha, read_photo
from faceswap.media.reader import Decoded, StreamDescription, VideoDescription, VideoInfo
from faceswap.media.views import AS_STORED

RATE = Fraction(24)  # frames per second of a sequence whose rate nobody stated
PATTERN = re.compile(r"%0?(\d*)d|(#+|@+)")  # shot.%04d.png, shot.####.png, shot.@@@@.png
NUMBERED = re.compile(r"(.*?)(\d+)([^\d]*)", re.DOTALL)
COMPARED = 8  # neighbouring images that are compared to find out whether they show motion
THUMB, ALIKE = (32, 18), 12.0  # their size, and the mean difference of alike ones (0-255)


class Footage(Protocol):
    """Frames in order, with exact times.

    Attributes:
        path: The file, or the pattern of the images; messages name it.
    """

    @property
    def path(self) -> Path: ...

    @property
    def first_file(self) -> Path:
        """The file that outputs are said to be made from: the video, or the first image."""

    def probe(self) -> VideoInfo:
        """Return size, number of frames, start and duration, without decoding all frames."""

    def read(self, first: int = 0) -> Iterator[Frame]:
        """Yield the frames from an index on."""

    def first_at(self, seconds: Fraction) -> int:
        """Return the index of the first frame at or after a time on the source's own timeline."""

    def times(self) -> list[Fraction]:
        """Return the time of each frame in seconds, on the source's own timeline."""

    def sample(self, count: int, exact: bool = True) -> Iterator[Frame]:
        """Yield frames evenly spaced; see :func:`reader.sample_video`."""

    def has_alpha(self) -> bool:
        """Return whether the frames are transparent, as far as the format tells."""

    def opened(self) -> AbstractContextManager[tuple[Any, Any]]:
        """Open a container and its video stream, which an output takes its properties from."""

    def identity(self) -> list[Any]:
        """Return JSON values that change if the footage is changed."""

    def number_of(self, index: int) -> int:
        """Return the number by which a user knows a frame: its index, or its image's number."""

    def pixel_aspect(self) -> float:
        """Return the width of a pixel over its height, upright; 1 if it is not stated."""


@dataclass(frozen=True)
class VideoFile:
    """A video or an animation that FFmpeg decodes.

    Attributes:
        path: The file.
        colorspace: Its colour space; see :func:`reader.read_video`.
        hardware: Whether to decode it on graphics hardware that gives the same frames.
    """

    path: Path
    colorspace: str | None = None
    hardware: bool = False

    @property
    def first_file(self) -> Path:
        return self.path

    def probe(self) -> VideoInfo:
        return reader.probe(self.path)

    @cached_property
    def _index(self) -> "reader.FrameIndex | None":
        return reader.index_of(self.path)

    @cached_property
    def _accelerator(self) -> str | None:
        return reader.accelerator_of(self.path) if self.hardware else None

    def read(self, first: int = 0) -> Iterator[Frame]:
        if first and self._index:
            return reader.read_from(
                self.path, first, self._index, self.colorspace, self._accelerator
            )
        frames = reader.read_video(self.path, self.colorspace, self._accelerator)
        return dropwhile(lambda frame: frame.index < first, frames)

    def first_at(self, seconds: Fraction) -> int:
        return bisect_left(self.times(), seconds)

    def times(self) -> list[Fraction]:
        if self._index:
            return [time * self._index.time_base for time in self._index.times]
        return [frame.time for frame in self.read()]

    def sample(self, count: int, exact: bool = True) -> Iterator[Frame]:
        return reader.sample_video(self.path, count, exact, self.colorspace)

    def has_alpha(self) -> bool:
        with self.opened() as (_, video):
            return colorspace.has_alpha(reader.pixel_format(video))

    def opened(self) -> AbstractContextManager[tuple[Any, Any]]:
        return reader.opened(self.path)

    def identity(self) -> list[Any]:
        status = self.path.stat()
        return [str(self.path.resolve()), status.st_size, status.st_mtime_ns]

    def number_of(self, index: int) -> int:
        return index

    def pixel_aspect(self) -> float:
        with self.opened() as (_, video):
            stated = float(video.sample_aspect_ratio or 1)
        with closing(reader.read_video(self.path, AS_STORED)) as frames:
            first = next(frames)
        assert isinstance(first.pixels, Decoded), "read from a video"
        return 1 / stated if first.pixels.turns % 2 else stated


@dataclass(frozen=True)
class Animation(VideoFile):
    """A GIF, an animated PNG or an animated WebP, which has no index and is decoded in order."""

    @cached_property
    def plays(self) -> int:
        """How often it is played; :data:`animations.FOREVER` if it never ends."""
        return animations.plays_of(self.path)

    @cached_property
    def _survey(self) -> tuple[VideoInfo, list[Fraction], bool]:
        """Description, times of the frames, and whether a pixel of any frame is transparent."""
        times, length, shape, transparent = [], Fraction(0), (0, 0), False
        for frame in self.read():
            assert isinstance(frame.pixels, Decoded)
            native: Any = frame.pixels.frame
            times.append(frame.time)
            length, shape = native.duration * native.time_base, frame.shape
            if not transparent:
                alpha = frame.pixels.alpha()
                transparent = alpha is not None and alpha.min() < np.iinfo(alpha.dtype).max
        seconds = times[-1] + length - times[0]
        return VideoInfo(shape[1], shape[0], len(times), times[0], seconds), times, transparent

    def probe(self) -> VideoInfo:
        return self._survey[0]

    def read(self, first: int = 0) -> Iterator[Frame]:
        if self.format != "webp":
            frames = reader.read_video(self.path)
        else:
            frames = (
                reader.to_frame(native, index, self.path)
                for index, native in enumerate(animations.read_webp(self.path))
            )
        return dropwhile(lambda frame: frame.index < first, frames)

    @cached_property
    def format(self) -> str | None:
        """The file's format, see :func:`sources.animation_of`."""
        return sources.animation_of(self.path)

    def times(self) -> list[Fraction]:
        return self._survey[1]

    def has_alpha(self) -> bool:
        return self._survey[2]

    def sample(self, count: int, exact: bool = True) -> Iterator[Frame]:  # noqa: ARG002 - each is exact
        total = len(self.times())
        wanted = [int(total * (number + 0.5) / count) for number in range(count)]
        places = defaultdict(list)
        for number, index in enumerate(wanted):
            places[index].append(number)
        for frame in self.read():
            for number in places[frame.index]:
                yield replace(frame, index=number)

    def opened(self) -> AbstractContextManager[tuple[Any, Any]]:
        if self.format != "webp":
            return reader.opened(self.path)
        info = self.probe()
        assert info.seconds is not None
        return animations.one_frame_video(
            info.width, info.height, "rgba", info.seconds, animations.TIME_BASE
        )


def video_at(path: Path, colorspace: str | None = None, hardware: bool = False) -> VideoFile:
    """Return the footage of a video or an animation.

    Args:
        path: The file.
        colorspace: The colour space of a video; see :func:`reader.read_video`.
        hardware: Whether to decode a video on graphics hardware that gives the same frames.

    Raises:
        SettingsError: If a colour space is stated for an animation, which can only be sRGB.
    """
    if not sources.animation_of(path):
        return VideoFile(path, colorspace, hardware)
    if colorspace not in (None, AS_STORED):
        raise SettingsError(f"{path} is an animation, so --colorspace {colorspace} does not apply")
    return Animation(path)


def describe(path: Path) -> VideoDescription:
    """Describe a video or an animation: its upright size, duration and streams.

    Raises:
        InputError: If it cannot be read, or none of its frames can be decoded.
    """
    footage = video_at(path)
    if not isinstance(footage, Animation):
        return reader.describe_video(path)
    info = footage.probe()
    assert info.seconds is not None
    name = {"png": "apng"}.get(str(footage.format), str(footage.format))
    stream = StreamDescription("video", name, float(info.frames / info.seconds))
    with footage.opened() as (_, video):
        stored = reader.pixel_format(video)
    return VideoDescription(
        name, float(info.seconds), stored, info.width, info.height, info.frames, None, [stream]
    )


@dataclass(frozen=True)
class ImageSequence:
    """Numbered images that are the frames of one shot.

    Attributes:
        path: The pattern of the images, such as ``shots/shot.####.png``.
        files: The images, sorted by number.
        numbers: Their numbers. A gap in them is a gap in time.
        rate: Frames per second.
        colorspace: The colour space of the images; see :func:`photos.read_photo`.
    """

    path: Path
    files: tuple[Path, ...]
    numbers: tuple[int, ...]
    rate: Fraction = RATE
    colorspace: str | None = None

    @property
    def first_file(self) -> Path:
        return self.files[0]

    def taken(self, rate: Fraction | None, colorspace: str | None) -> Self:
        """Return the same images at another frame rate and in another colour space.

        Args:
            rate: Frames per second; None for what the first image states, or else 24.
            colorspace: The colour space; None for that of the files.
        """
        stated = rate or film.rate_of(self.files[0]) or self.rate
        return replace(self, rate=stated, colorspace=colorspace)

    @property
    def around_number(self) -> tuple[str, str]:
        """What is before and after the number in the names of the images."""
        first, pattern = self.files[0].name, self.path.name
        around = ((pattern[: at.start()], pattern[at.end() :]) for at in PATTERN.finditer(pattern))
        return next(  # a name may hold other signs of a pattern
            (before, after) for before, after in around
            if re.fullmatch(rf"{re.escape(before)}\d+{re.escape(after)}", first)
        )  # fmt: skip

    @property
    def gaps(self) -> list[tuple[int, int]]:
        """The first and the last number of each gap."""
        return [(a + 1, b - 1) for a, b in pairwise(self.numbers) if b - a > 1]

    def probe(self) -> VideoInfo:
        height, width = self._frame(0, 0).shape
        length = (self.numbers[-1] - self.numbers[0] + 1) / self.rate
        return VideoInfo(width, height, len(self.files), Fraction(0), length)

    def read(self, first: int = 0) -> Iterator[Frame]:
        shape: tuple[int, int] | None = None
        for index in range(first, len(self.files)):
            frame = self._frame(index, index)
            if shape not in (None, frame.shape):
                raise InputError(
                    f"{self.files[index]} has {frame.shape[1]}x{frame.shape[0]} pixels, but the "
                    f"images of {self.path} before it have {shape[1]}x{shape[0]}: "
                    "the frames of a sequence must have one size"
                )
            shape = frame.shape
            yield frame

    def _frame(self, at: int, index: int) -> Frame:
        return replace(
            read_photo(self.files[at], self.colorspace), index=index, time=self._time(at)
        )

    def _time(self, at: int) -> Fraction:
        return (self.numbers[at] - self.numbers[0]) / self.rate

    def first_at(self, seconds: Fraction) -> int:
        return bisect_left(self.times(), seconds)

    def times(self) -> list[Fraction]:
        return [self._time(at) for at in range(len(self.files))]

    def sample(self, count: int, exact: bool = True) -> Iterator[Frame]:  # noqa: ARG002 - each is exact
        for number in range(count):
            yield self._frame(int(len(self.files) * (number + 0.5) / count), number)

    def has_alpha(self) -> bool:
        return any(map(has_alpha, self.files))

    def opened(self) -> AbstractContextManager[tuple[Any, Any]]:
        """Open a video in memory whose only frame has the size and the depth of the images."""
        first = self._frame(0, 0)
        height, width = first.shape
        stored = animations.png_format(
            isinstance(first.pixels, DeepPhoto | FilmImage), self.has_alpha()
        )
        return animations.one_frame_video(width, height, stored, 1 / self.rate, 1 / self.rate)

    def identity(self) -> list[Any]:
        status = [file.stat() for file in self.files]
        facts = [
            [f.name, s.st_size, s.st_mtime_ns] for f, s in zip(self.files, status, strict=True)
        ]
        return [str(self.path.absolute()), str(self.rate), facts]

    def number_of(self, index: int) -> int:
        return self.numbers[index]

    def pixel_aspect(self) -> float:
        return film.pixel_aspect_of(self.files[0])


def identify(
    path: Path, images: str = "auto", rate: Fraction | None = None,
    colorspace: str | None = None, hardware: bool = False,
) -> tuple[str, Footage | None]:  # fmt: skip
    """Find out what a source is.

    Args:
        path: A photo, a video, a folder of images, or the pattern of an image sequence.
        images: How to take a folder: "auto", "sequence" or "photos".
        rate: Frames per second of an image sequence, if that is stated; then "auto" takes a folder
            as a sequence.
        colorspace: The colour space of the images or of the video; None for that of the files.
        hardware: Whether to decode a video on graphics hardware that gives the same frames.

    Returns:
        kind: "photo", "photos", "video" or "sequence".
        footage: A video's or a sequence's frames; None for photos.

    Raises:
        InputError: If the source does not exist or cannot be read, or a folder is to be taken as a
            sequence but is not one.
        SettingsError: If there is no such colour space, or the library that reads the images is not
            installed.
    """
    sequence = sequence_at(path)
    if sequence:
        return "sequence", sequence.taken(rate, colorspace)
    kind = sources.kind_of(path)
    if kind != "folder":
        return kind, None if kind == "photo" else video_at(path, colorspace, hardware)
    if images == "photos":
        return "photos", None
    sequence = sequence_in(path)
    if sequence:
        sequence = sequence.taken(rate, colorspace)
    must_be = images == "sequence" or rate is not None
    if must_be and not sequence:
        raise InputError(
            f"{path} is not an image sequence: it must hold only images whose names differ in one "
            "number, such as shot.0001.png; or give their pattern, such as shot.%04d.png"
        )
    if sequence and (must_be or shows_motion(sequence)):
        return "sequence", sequence
    return "photos", None


def decoded(frame: Frame, time_base: Fraction) -> Frame:
    """Return a frame of an image sequence as if it had been decoded from a video.

    Its pixels have 16 bits per channel if the image has, and its changes stay.
    """
    return replace(frame, pixels=Decoded(native_of(replace(frame, changes=()), time_base)))


def native_of(frame: Frame, time_base: Fraction) -> av.VideoFrame:
    """Return an image as a video frame, with its time in a time base."""
    alpha = alpha_of(frame)
    if isinstance(frame.pixels, DeepPhoto | FilmImage):
        # Planar, because swscale's exact flags garble rgb48.
        native = av.VideoFrame.from_ndarray(deep_pixels(frame), format="gbrp16le")
    else:
        native = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.image), format="rgb24")
    if alpha is not None:
        native = colorspace.with_alpha(
            colorspace.converted(
                native, "gbrap16le" if alpha.dtype == np.uint16 else "rgba", colorspace.NO_TAGS
            ),
            alpha,
        )
    native.pts, native.time_base = round(frame.time / time_base), time_base
    return native


def sequence_at(path: Path) -> ImageSequence | None:
    """Return the images that a pattern such as ``shot.%04d.png`` or ``shot.####.png`` names.

    ``%04d`` and ``####`` stand for at least four digits, ``%d`` and ``#`` for any number of them.

    Returns:
        The sequence; None if the name holds no pattern, or is that of an existing file.

    Raises:
        InputError: If no file matches.
    """
    patterns = list(PATTERN.finditer(path.name))
    if not patterns or path.exists():
        return None
    for found in patterns:  # the others belong to the name
        digits = int(found[1] or 1) if found[2] is None else len(found[2])
        before, after = path.name[: found.start()], path.name[found.end() :]
        name = re.compile(rf"{re.escape(before)}(\d{{{digits},}}){re.escape(after)}")
        folder = path.parent
        files = sorted(
            (int(match[1]), file)
            for file in (folder.iterdir() if folder.is_dir() else ())
            if (match := name.fullmatch(file.name)) and file.is_file()
        )
        if files:
            return ImageSequence(path, *_columns(files))
    raise InputError(f"no file matches {path}; the digits stand for the number of the image")


def _columns(files: list[tuple[int, Path]]) -> tuple[tuple[Path, ...], tuple[int, ...]]:
    return tuple(file for _, file in files), tuple(number for number, _ in files)


def sequence_in(folder: Path) -> ImageSequence | None:
    """Return the numbered images of a folder if they are all that it holds at its top.

    All visible files at the top of the folder, beside sidecars with credentials, must be images
    whose names differ in one number only.
    Whether they show a shot is another question; see :func:`shows_motion`.
    """
    groups: dict[tuple[str, str], list[tuple[int, Path]]] = defaultdict(list)
    digits = 99
    for file in sorted(folder.iterdir()):
        is_record = file.suffix == sources.SIDECAR  # of intermediates and of some formats
        if file.name.startswith(".") or is_record or not file.is_file():
            continue
        name = NUMBERED.fullmatch(file.name)
        if not name or sources.content_of(file) != "photo":
            return None
        groups[name[1], name[3]].append((int(name[2]), file))
        digits = min(digits, len(name[2]))
    if len(groups) != 1:
        return None
    ((before, after), files), *_ = groups.items()
    files.sort()
    if len(files) < 2 or len({number for number, _ in files}) < len(files):  # 1.png and 01.png
        return None
    return ImageSequence(folder / f"{before}{'#' * digits}{after}", *_columns(files))


def shows_motion(sequence: ImageSequence) -> bool:
    """Return whether neighbouring images of a sequence look alike, as the frames of a shot do.

    Photos from a camera are numbered as well, but each shows something else.
    """
    pairs = [at for at in range(len(sequence.files) - 1)
             if sequence.numbers[at + 1] - sequence.numbers[at] == 1]  # fmt: skip
    if not pairs:
        return False
    chosen = [pairs[at * len(pairs) // COMPARED] for at in range(COMPARED)]
    sequence = replace(sequence, colorspace=AS_STORED)  # which nobody may have stated yet
    differences = []
    for at in sorted(set(chosen)):
        one, other = (sequence._frame(place, place) for place in (at, at + 1))
        if one.shape != other.shape:
            return False
        differences.append(float(np.abs(_thumbnail(one) - _thumbnail(other)).mean()))
    return float(np.median(differences)) < ALIKE


def _thumbnail(frame: Frame) -> Image:
    small = cv2.resize(frame.gray(), THUMB, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)
