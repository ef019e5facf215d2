"""Write photos and videos, with all that is not picture taken over from the source.

PyAV writes video, Pillow photos. Sound and subtitles are copied packet for packet, never decoded;
every frame keeps its own time.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError
from PIL import Image as Pillow

from faceswap.errors import OutputError
from faceswap.files import reason, replacing
from faceswap.media import PHOTO_SUFFIXES, Decoded, opened, quarter_turns
from faceswap.planes import (
    BT709,
    EXACT,
    STUDIO_RANGE,
    converted,
    is_planar_yuv,
    is_rgb,
    patched,
    pixel_format,
    tags_of,
)
from faceswap.signer import Signer
from faceswap.types import Frame, Image

log = logging.getLogger(__name__)

ENCODERS = {  # by suffix of the output: codec and its options for visually lossless quality
    ".mp4": ("libx264", {"crf": "18", "preset": "veryfast"}),
    ".m4v": ("libx264", {"crf": "18", "preset": "veryfast"}),
    ".mov": ("libx264", {"crf": "18", "preset": "veryfast"}),
    ".mkv": ("libx264", {"crf": "18", "preset": "veryfast"}),
    ".webm": ("libvpx-vp9", {"crf": "24", "b:v": "0", "deadline": "realtime", "cpu-used": "6"}),
}
CONTAINER_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})


class FrameWriter(Protocol):
    """Takes the frames of one output in order."""

    def write(self, frame: Frame) -> None:
        """Append one frame."""


def default_video_suffix(source: Path) -> str:
    """The output container for a source: the same where we encode for it, else QuickTime.

    (Matroska rounds times to a millisecond and cannot hold a negative start of sound.)
    """
    suffix = source.suffix.lower()
    return source.suffix if suffix in ENCODERS else ".mov"


def open_writer(
    path: Path, source: Path, signer: Signer, sound: bool = True
) -> AbstractContextManager[FrameWriter]:
    """Open the writer for ``path``'s suffix; all that is not picture is taken from ``source``.

    Without ``sound`` a video gets no sound and no subtitles. ``signer`` gives it credentials.

    The output appears under its name only when the block ends well. If Ctrl-C ends it, the frames
    so far are kept as ``<name>.partial<suffix>``.

    Raises:
        OutputError: If the suffix has no encoder or the disk refuses.
    """
    if path.suffix.lower() in PHOTO_SUFFIXES:
        return _photo_writer(path, source, signer)
    if path.suffix.lower() in ENCODERS:
        return _video_writer(path, source, signer, sound)
    known = ", ".join(sorted(set(ENCODERS) | PHOTO_SUFFIXES))
    raise OutputError(f"cannot write {path}: unknown suffix '{path.suffix}'; use one of {known}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn refusals of the disk or of FFmpeg into an OutputError."""
    try:
        yield
    except (FFmpegError, OSError) as error:
        words = error.strerror if isinstance(error, FFmpegError) else reason(error)
        raise OutputError(f"cannot write {path}: {words}") from error


@contextmanager
def _photo_writer(path: Path, source: Path, signer: Signer) -> Iterator[FrameWriter]:
    with replacing(path) as temporary:
        yield PhotoWriter(temporary, path, source)
        signer.sign(temporary, path, source)


class PhotoWriter:
    """Writes one photo with the EXIF data and colour profile of its source."""

    def __init__(self, temporary: Path, path: Path, source: Path) -> None:
        self._temporary, self._path, self._source = temporary, path, source

    def write(self, frame: Frame) -> None:
        """Write the photo; call once."""
        extra: dict[str, Any] = {}
        with Pillow.open(self._source) as photo:
            if photo.format != "TIFF":  # whose tags also tell how the old pixels are stored
                exif = photo.getexif()
                exif.pop(0x0112, None)  # the orientation is applied already
                extra["exif"] = exif.tobytes()
            if photo.mode in ("RGB", "RGBA", "P"):  # a profile of other channels would not fit
                extra["icc_profile"] = photo.info.get("icc_profile")
        extra = {key: value for key, value in extra.items() if value}
        if self._path.suffix.lower() in (".jpg", ".jpeg"):
            extra |= {"quality": 95, "subsampling": 0}
        elif self._path.suffix.lower() == ".webp":
            extra |= {"lossless": True}
        with _writing(self._path):
            Pillow.fromarray(frame.image).save(self._temporary, **extra)


def copy_file(source: Path, path: Path) -> None:
    """Copy a file byte for byte in one step.

    Raises:
        OutputError: If the disk refuses.
    """
    with replacing(path) as temporary, _writing(path):
        shutil.copyfile(source, temporary)


@contextmanager
def _video_writer(path: Path, source: Path, signer: Signer, sound: bool) -> Iterator[FrameWriter]:
    with replacing(path) as temporary, opened(source) as (container, stream):
        with _writing(path):
            writer = VideoWriter(temporary, path, container, stream, sound)
        try:
            yield writer
        except KeyboardInterrupt:
            if not writer.started:
                writer.abandon()
                raise
            partial = path.with_name(f"{path.stem}.partial{path.suffix}")
            with _writing(partial):
                writer.close(whole=False)
                signer.sign(temporary, partial, source)
                temporary.replace(partial)
            log.warning("the frames done so far are in %s", partial)
            raise
        except BaseException:
            writer.abandon()
            raise
        with _writing(path):
            writer.close()
        signer.sign(temporary, path, source)


class VideoWriter:
    """Encodes frames at their own times and copies every other stream of the source."""

    def __init__(self, temporary: Path, path: Path, source: Any, video: Any, sound: bool) -> None:
        suffix = temporary.suffix.lower()
        codec, options = ENCODERS[suffix]
        flags = {"movflags": "+faststart"} if suffix in (".mp4", ".m4v", ".mov") else {}
        self._path = path  # what an error names
        self._out = av.open(f"file:{temporary}", "w", options=flags)
        tags = {k: v for k, v in source.metadata.items() if k not in CONTAINER_TAGS}
        self._out.metadata.update(tags)
        with suppress(AttributeError):  # chapters came with PyAV 14.3
            self._out.set_chapters(source.chapters())
        self._video: Any = self._out.add_stream(codec, rate=video.average_rate, options=options)
        self._copy_settings(video, codec)
        self._copies = self._copy_streams(source, video) if sound else {}
        self._packets = source.demux(*self._copies) if self._copies else iter(())
        self._waiting: Any = None
        self._latest: dict[Any, int] = {}  # time stamp of the last packet of each copied stream
        self._durations: dict[int, int] = {}
        self._warned: set[str] = set()
        self.started = False

    def _copy_settings(self, video: Any, codec: str) -> None:
        context, original = self._video.codec_context, video.codec_context
        context.width, context.height = original.width, original.height
        context.pix_fmt = pixel_format(original, codec)
        context.time_base = self._video.time_base = video.time_base
        if video.sample_aspect_ratio:
            context.sample_aspect_ratio = video.sample_aspect_ratio
        self._tags = tags_of(original)
        if is_rgb(original.pix_fmt) and not is_rgb(context.pix_fmt):
            self._tags |= {"colorspace": BT709, "color_range": STUDIO_RANGE}
        for tag, value in self._tags.items():
            setattr(context, tag, value)
        self._video.metadata.update(
            {k: v for k, v in video.metadata.items() if k in ("language", "handler_name", "title")}
        )

    def _copy_streams(self, source: Any, video: Any) -> dict[Any, Any]:
        """Add an output stream per sound and subtitle track; say which does not fit."""
        copies = {}
        for stream in source.streams:
            if stream.type not in ("audio", "subtitle"):
                if stream.type in ("video", "attachment") and stream is not video:
                    log.warning("%s stream %d is left out", stream.type, stream.index)
                continue
            try:
                copy = self._out.add_stream_from_template(stream)
            except (ValueError, FFmpegError):
                log.warning(
                    "%s stream %d (%s) does not fit into %s and is left out",
                    stream.type, stream.index, getattr(stream.codec_context, "name", "unknown"),
                    self._path.suffix,
                )  # fmt: skip
                continue
            copy.metadata.update(stream.metadata)
            with suppress(AttributeError):
                copy.disposition = stream.disposition
            copies[stream] = copy
        return copies

    def write(self, frame: Frame) -> None:
        """Encode one frame; a frame whose image nobody replaced is not converted to RGB and back.

        Raises:
            OutputError: If the disk or the encoder refuses.
        """
        with _writing(self._path):
            self._write(frame, frame.native)

    def _write(self, frame: Frame, native: Decoded) -> None:
        old = native.frame
        if not self.started:
            if old.rotation:
                self._video.set_display_rotation(old.rotation)
            self.started = True
        new = old if frame.image is native.image else self._from_rgb(frame, old)
        if new.format.name != self._video.codec_context.pix_fmt:
            new = self._reformat(new, old)
        new.pict_type = 0  # let the encoder choose, not the source's encoder
        new.pts, new.time_base = old.pts, old.time_base
        if old.pts is not None and old.duration:
            self._durations[old.pts] = old.duration
        self._mux(self._video.encode(new))
        self._copy_until(Fraction(old.pts or 0) * Fraction(old.time_base or 0))

    def _from_rgb(self, frame: Frame, like: av.VideoFrame) -> av.VideoFrame:
        turns = quarter_turns(like)
        same = like.format.name == self._video.codec_context.pix_fmt
        if frame.changed and same and not turns and is_planar_yuv(like):
            return patched(frame.image, frame.changed, like)
        stored = np.ascontiguousarray(np.rot90(frame.image, -turns))
        return self._reformat(av.VideoFrame.from_ndarray(stored, format="rgb24"), like)

    def _reformat(self, frame: av.VideoFrame, like: av.VideoFrame) -> av.VideoFrame:
        tags = self._tags if is_rgb(like.format.name) else tags_of(like)
        return converted(frame, self._video.codec_context.pix_fmt, tags)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            duration = self._durations.pop(packet.pts, None)
            if duration:
                packet.duration = duration  # else the last frame would get an average one
            self._out.mux(packet)

    def _copy_until(self, time: Fraction | None) -> None:
        """Copy the other streams' packets up to a time; None: all that remain."""
        while True:
            packet, self._waiting = self._waiting, None
            if packet is None:
                packet = self._next_packet()
            if packet is None:
                return
            if packet.dts is None:  # the demuxer's end mark
                continue
            if time is not None and packet.dts * packet.time_base > time:
                self._waiting = packet
                return
            if packet.dts <= self._latest.get(packet.stream, packet.dts - 1):
                self._warn_once("time stamps of its sound run backwards there: packets left out")
                continue
            self._latest[packet.stream] = packet.dts
            packet.stream = self._copies[packet.stream]
            self._out.mux(packet)

    def _next_packet(self) -> Any:
        """The source's next packet that is not picture; None at its end or where it is broken."""
        try:
            return next(self._packets, None)
        except FFmpegError as error:
            self._warn_once(f"its sound cannot be read to the end: {error.strerror}")
            self._packets = iter(())
            return None

    def _warn_once(self, words: str) -> None:
        if words not in self._warned:
            self._warned.add(words)
            log.warning("the source of %s is damaged; %s", self._path, words)

    def close(self, whole: bool = True) -> None:
        """Finish the file; ``whole`` copies sound beyond the last frame too."""
        if self.started:
            self._mux(self._video.encode(None))
            if whole:
                self._copy_until(None)
        self._out.close()

    def abandon(self) -> None:
        """Close a file that nobody will keep."""
        with suppress(FFmpegError, OSError):  # the error that led here is the one to report
            self._out.close()


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
    with replacing(path) as temporary, _writing(path), av.open(str(temporary), "w") as out:
        codec, options = ENCODERS[".mp4"]
        video: Any = out.add_stream(codec, rate=rate, options=options)
        audio: Any = out.add_stream("aac", rate=sample_rate, layout="mono")
        video.pix_fmt = "yuv420p"
        for number, image in enumerate(images):
            if not number:
                video.height, video.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format="yuv420p", interpolation=EXACT)
            frame.pts, frame.time_base = number, Fraction(1, rate)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        chunk = av.AudioFrame.from_ndarray(sound[np.newaxis], format="s16", layout="mono")
        chunk.sample_rate, chunk.pts = sample_rate, 0
        out.mux(audio.encode(chunk))
        out.mux(audio.encode(None))
