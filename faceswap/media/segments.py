"""Store finished segments of a conversion on disk, so that a killed run can be resumed.

The folder is beside the output. Its name holds the beginning of the output's name and a hash of the
whole name and of everything that determines the result: source, model and settings. It contains a
description of the conversion (``conversion.json``), the encoded segments, one line about each
(``done.jsonl``), the track log (``faces.jsonl``), and an empty file once the output is written
(``output-begun``).
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import IO, Annotated, Any, Protocol

import av
import cv2
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from faceswap.errors import BusyError, OutputError
from faceswap.files import (
    MAX_STEM,
    append_lines,
    drop_torn_line,
    fsync,
    lock_file,
    make_folder,
    parse_json,
    read_lines,
    write_bytes,
    writing,
)
from faceswap.media import colorspace, exr
from faceswap.media.codecs import Encoding, add_video, keeping_priority, stored_frame, tags_for
from faceswap.media.footage import decoded
from faceswap.media.frame import Frame, rounded
from faceswap.media.photos import PhotoWriter, deep_pixels
from faceswap.media.reader import Decoded
from faceswap.types import Count

log = logging.getLogger(__name__)


ABOUT, DONE, BEGUN = "conversion.json", "done.jsonl", "output-begun"
SHARDS = "shards.json"  # in the folder of a conversion that several machines share
PARTS = re.compile(r"\..*\.[0-9a-f]{12}\.parts", re.DOTALL)
SEGMENT_FRAMES = 120  # frames per segment; a kill loses the unfinished segment
MAX_SEGMENT_PACKETS = 10_000  # upper bound; subtracted from each dts, so that dts <= pts


def folder_for(path: Path, key: dict[str, Any]) -> Path:
    """Return the folder for the segments of an output.

    Args:
        path: The output.
        key: Everything that determines the result; must be JSON-serialisable.
    """
    digest = digest_of([path.name, key])
    return path.with_name(f".{path.name[:MAX_STEM]}.{digest[:12]}.parts")


def digest_of(key: Any) -> str:
    """Return the SHA-256 of a JSON-serialisable value, hexadecimal."""
    text = json.dumps(key, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The finished segments of a conversion that was stopped and can be resumed."""

    folder: Annotated[Path, Meta(description="The folder with the segments.")]
    output: Annotated[Path, Meta(description="The output of the conversion.")]
    source: Annotated[Path, Meta(description="The footage that is converted.")]
    frames: Annotated[Count, Meta(description="Frames in the segments.")]
    bytes: Annotated[Count, Meta(description="Size of the folder.")]
    stopped: Annotated[str, Meta(description="When the last segment was finished (ISO 8601).")]
    wrote_output: Annotated[
        bool,
        Meta(
            description="Whether it had begun to write its output, so that a file there is its own."
        ),
    ] = False


def unfinished(folder: Path, with_shards: bool = False) -> list[Unfinished]:
    """List the unfinished conversions whose outputs are in a folder.

    A conversion that another process is running is skipped, and so is one whose segments cannot be
    locked, with a warning. A conversion without a finished segment has nothing to resume, so its
    folder is deleted, unless it is made in shards.

    Args:
        folder: The folder of the outputs.
        with_shards: Whether to list conversions that are made in shards, once their segments are
            being joined. Other machines may be working on them.

    Raises:
        OSError: If the folder or a list of segments cannot be read.
    """
    found = []
    for parts in sorted(child for child in folder.iterdir() if PARTS.fullmatch(child.name)):
        in_shards = (parts / SHARDS).exists()
        if parts.is_symlink() or not parts.is_dir() or (in_shards and not with_shards):
            continue
        try:
            lock = _lock_folder(parts)
        except BusyError:
            continue
        except OutputError as error:
            log.warning("cannot check whether %s holds an unfinished conversion: %s", parts, error)
            continue
        done = parts / DONE
        if not done.is_file() or not done.stat().st_size:
            if in_shards:
                lock.close()
            else:
                _delete_folder(parts, lock)
            continue
        lock.close()
        output, source = _described(parts)
        size = sum(file.stat().st_size for file in parts.rglob("*") if file.is_file())
        stopped = datetime.fromtimestamp(done.stat().st_mtime, UTC).isoformat(timespec="seconds")
        begun = (parts / BEGUN).exists()
        found.append(
            Unfinished(parts, folder / output, source, _count_frames(done), size, stopped, begun)
        )
    return found


def _described(parts: Path) -> tuple[str, Path]:
    """Return the name of the output and the source of an unfinished conversion.

    If the description is damaged, the folder's own name takes the place of the output's.
    """
    try:
        about = parse_json((parts / ABOUT).read_text(encoding="utf-8"))
        return Path(str(about["output"])).name, Path(str(about["source"]))
    except (KeyError, OSError, TypeError, ValueError):
        return parts.name, Path()


def discard(conversions: Iterable[Unfinished]) -> None:
    """Delete the segments of unfinished conversions.

    Raises:
        BusyError: If another process has resumed one of them meanwhile.
        OutputError: If a folder cannot be deleted.
    """
    for each in conversions:
        _delete_folder(each.folder, _lock_folder(each.folder))


def _count_frames(done: Path) -> int:
    """Count the frames of the segments listed in a file, up to the first damaged line."""
    frames = 0
    for line in read_lines(done):
        try:
            frames += len(_parse_note(line, done)["times"])
        except OutputError:
            break
    return frames


class SegmentStore:
    """The finished segments in a folder, which is locked against other processes.

    Args:
        folder: The folder; see :func:`folder_for`.
        output: The output of the conversion.
        source: The footage that is converted.

    Attributes:
        notes: One record per segment: ``times`` of its frames, ``last`` (duration of the last
            frame), ``rotation``, ``delays`` by stream, and ``records``, what the caller noted about
            each frame. A segment whose file is missing is dropped, and so are all after it.

    Raises:
        BusyError: If another process holds the lock.
        OutputError: If the folder cannot be written, or ``done.jsonl`` is damaged.
    """

    def __init__(self, folder: Path, output: Path, source: Path) -> None:
        self.folder = folder
        make_folder(folder)
        self._lock = _lock_folder(folder)
        self.notes: list[dict[str, Any]] = []
        try:
            about = {"output": output.name, "source": str(source.absolute())}
            write_bytes(folder / ABOUT, json.dumps(about).encode())
            self._load(folder / DONE)
        except BaseException:
            self._lock.close()
            raise

    def _load(self, done: Path) -> None:
        if done.is_file():
            drop_torn_line(done)
        lines = read_lines(done) if done.is_file() else []
        for line in lines:
            note = _parse_note(line, done)
            paths = (self.path(stream, len(self.notes)) for stream in note["delays"])
            if not note["times"] or not all(path.exists() for path in paths):
                break
            self.notes.append(note)
        if len(self.notes) < len(lines):
            self.keep(len(self.notes))

    def path(self, stream: str, number: int) -> Path:
        """Return the path of a stream's segment: a file, or a folder of images."""
        return self.folder / f"{stream}-{number:05d}.part"

    def keep(self, count: int) -> None:
        """Keep only the first ``count`` segments in the list.

        Raises:
            OutputError: If the list cannot be written.
        """
        self.notes = self.notes[:count]
        lines = "".join(f"{json.dumps(note)}\n" for note in self.notes)
        write_bytes(self.folder / DONE, lines.encode())

    def add(self, note: dict[str, Any]) -> None:
        """Record a finished segment.

        Raises:
            OutputError: If the list cannot be written.
        """
        append_lines(self.folder / DONE, [json.dumps(note)], lasting=True)
        self.notes.append(note)

    @property
    def wrote_output(self) -> bool:
        """Whether :meth:`begin_output` was called, in this run or in an interrupted one."""
        return (self.folder / BEGUN).exists()

    def begin_output(self) -> None:
        """Note that the output is written from now on, so that a file there is this run's own.

        Raises:
            OutputError: If that cannot be noted.
        """
        write_bytes(self.folder / BEGUN, b"")

    def close(self, keep: bool) -> None:
        """Release the lock, and delete the folder unless ``keep``."""
        if keep:
            self._lock.close()
        else:
            _delete_folder(self.folder, self._lock)


def _lock_folder(folder: Path) -> IO[bytes]:
    return lock_file(folder / "lock", f"the conversion in {folder} is under way")


def _delete_folder(folder: Path, lock: IO[bytes]) -> None:
    """Delete a folder of segments and release its lock."""
    if os.name != "posix":  # Windows cannot delete an open file
        lock.close()
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
    lock.close()  # last, so that no other process starts to write here during the deletion


def _parse_note(line: str, path: Path) -> dict[str, Any]:
    try:
        note: dict[str, Any] = parse_json(line)
        times = [int(time) for time in note["times"]]
        delays = {str(name): int(delay) for name, delay in note["delays"].items()}
        numbers = {name: int(note[name]) for name in ("last", "rotation")}
        records = list(note["records"])
        marked = [str(stem) for stem in note.get("marked", ())]
        if len(records) != len(times):
            raise ValueError("the number of records differs from that of frames")
        if sorted(set(times)) != times or not all(0 <= d < 1000 for d in delays.values()):
            raise ValueError("times are not increasing, or delays are out of range")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OutputError(
            f"{path} is damaged ({error}), so this conversion cannot be resumed: "
            f"delete {path.parent} to start over"
        ) from error
    lists = {"times": times, "records": records, "marked": marked}
    return {"delays": delays} | lists | numbers


class SegmentWriter(Protocol):
    """Writes one segment of one video stream."""

    def write(self, frame: Frame) -> None:
        """Append one frame."""

    def finish(self) -> int:
        """Close the segment and return its encoder's reordering delay in frames."""


class VideoSegmentWriter:
    """Encodes one segment into a file, with a new encoder so that segments are independent.

    Args:
        path: The file of the segment; an existing one is replaced.
        video: The source's video stream.
        encoding: The encoder and its settings.

    Raises:
        SettingsError: If the encoder that a plug-in chose cannot be used for segments.
    """

    def __init__(self, path: Path, video: Any, encoding: Encoding) -> None:
        path.unlink(missing_ok=True)
        self._path = path
        # NUT has no codec tag for ProRes, and no place for the alpha plane of VP9.
        container = "mov" if encoding.encoder == "prores_ks" else "nut"
        if encoding.encoder == "libvpx-vp9" and encoding.alpha:
            container = "matroska"
        self._out = av.open(f"file:{path}", "w", format=container)
        self._stream = add_video(self._out, video, encoding)
        self._context = self._stream.codec_context
        self._upright = encoding.upright
        self._tags = tags_for(video, self._context.pix_fmt, encoding.encoder)
        self._started = False
        self._first = 0  # presentation time of the first frame
        self._order: list[int] = []

    def write(self, frame: Frame) -> None:
        """Append one frame."""
        if not isinstance(frame.pixels, Decoded):
            frame = decoded(frame, Fraction(self._stream.time_base))
        assert isinstance(frame.pixels, Decoded)
        if not self._started and self._upright:
            self._context.height, self._context.width = frame.shape
        native = frame.pixels.frame
        opening = nullcontext() if self._started else keeping_priority()
        if not self._started:
            self._started, self._first = True, native.pts or 0
        output = stored_frame(frame, self._context.pix_fmt, self._tags, self._upright)
        output.pict_type = 0  # let the encoder choose the frame type instead of the source's
        output.pts, output.time_base = native.pts, native.time_base
        with opening:
            packets = self._stream.encode(output)
        self._mux(packets)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            # The muxer recomputes decoding times for the whole video. Those of x265 are not
            # always increasing in a short segment, which NUT refuses, so just count packets here.
            if self._out.format.name == "nut":
                packet.dts = self._first - MAX_SEGMENT_PACKETS + len(self._order)
            self._order.append(packet.pts)
            self._out.mux(packet)

    def finish(self) -> int:
        """Close the file and return the encoder's reordering delay in frames."""
        try:
            if self._started:
                self._mux(self._stream.encode(None))
        finally:
            self._out.close()
        fsync(self._path)
        rank = {time: number for number, time in enumerate(sorted(self._order))}
        return max((place - rank[time] for place, time in enumerate(self._order)), default=0)


class ImageSequenceWriter:
    """Writes a segment as images.

    Frames of a video become PNGs, with alpha if the source has it, and with 16 bits per channel if
    the source has more than 8, but transparent layers always have 8. Frames of an image sequence
    keep their format and their metadata, and unchanged ones are copied.

    Args:
        folder: The folder of the segment; an existing one is replaced.
        name_of: Returns the file name of a frame; its suffix sets the format.
    """

    def __init__(self, folder: Path, name_of: Callable[[Frame], str]) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._folder, self._name_of = folder, name_of

    def write(self, frame: Frame) -> None:
        """Append one frame."""
        path = self._folder / self._name_of(frame)
        if isinstance(frame, exr.Drawn):
            frame.write_image(path)
        elif isinstance(frame.pixels, Decoded):
            path.write_bytes(_png(frame, frame.pixels))
        elif frame.is_untouched and path.suffix == frame.source.suffix:
            shutil.copyfile(frame.source, path)
        else:
            PhotoWriter(path, frame.source).write(frame)
        fsync(path)

    def finish(self) -> int:
        """Return 0, because images are never reordered."""
        return 0


def _png(frame: Frame, original: Decoded) -> bytes:
    pixels: npt.NDArray[Any]
    if frame.layer is not None:
        pixels = rounded(frame.layer[..., [2, 1, 0, 3]])
    else:
        is_deep = colorspace.is_deep(original.frame)
        pixels = (deep_pixels(frame) if is_deep else frame.image)[..., ::-1]
        alpha = None if frame.is_opaque else original.alpha()
        if alpha is not None:
            pixels = np.dstack([pixels, frame.with_solid(alpha)])
    _, png = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    return png.tobytes()
