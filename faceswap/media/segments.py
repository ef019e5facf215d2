"""A conversion under way, on disk: finished segments of its outputs, so that a kill loses little.

The folder lies beside the output and is named after it and after all that decides what comes out:
source, model, settings. It holds the encoded segments, a line about each (``done.jsonl``), and what
the tracker knows (``faces.jsonl``).
"""

import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import av
import cv2
import numpy.typing as npt

from faceswap.errors import BusyError, OutputError
from faceswap.files import (
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
from faceswap.media import colorspace
from faceswap.media.codecs import Encoding, add_video, stored_frame, tags_for
from faceswap.media.frame import Frame
from faceswap.media.photos import deep_pixels
from faceswap.media.reader import Decoded

log = logging.getLogger(__name__)


SEGMENT_FRAMES = 120  # frames: what a kill can cost


def folder_for(path: Path, key: dict[str, Any]) -> Path:
    """Where the segments of an output lie.

    Args:
        path: The output.
        key: All that decides what comes out, JSON-ready.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return path.with_name(f".{path.name}.{digest[:12]}.parts")


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The finished segments of a conversion that was stopped and can be continued.

    Attributes:
        folder: Where they are stored; deleting it discards them.
        frames: How many frames they hold.
    """

    folder: Path
    frames: int


def unfinished(path: Path) -> list[Unfinished]:
    """List the stopped conversions to an output, each with other settings than the next.

    A folder that another process is writing is skipped. One without a finished segment holds
    nothing that could be continued, so it is deleted.

    Args:
        path: The output.
    """
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{12}}\.parts")
    found = []
    for folder in sorted(child for child in path.parent.iterdir() if name.fullmatch(child.name)):
        if folder.is_symlink() or not folder.is_dir():
            continue
        try:
            lock = _locked(folder)
        except BusyError:
            continue
        except OutputError as error:
            log.warning("cannot tell whether %s holds an unfinished conversion: %s", folder, error)
            continue
        done = folder / "done.jsonl"
        if not done.is_file() or not done.stat().st_size:
            _delete(folder, lock)
            continue
        lock.close()
        found.append(Unfinished(folder, _count_frames(done)))
    return found


def _count_frames(done: Path) -> int:
    """Count the frames of the segments listed in a file, up to the first damaged line."""
    frames = 0
    for line in read_lines(done):
        try:
            frames += len(_checked(line, done)["times"])
        except OutputError:
            break
    return frames


class SegmentStore:
    """The finished segments in a folder that this process alone writes.

    Attributes:
        notes: What is known about each segment: its frames' ``times``, ``last`` (how long the last is
            shown), ``rotation``, ``delays`` by stream, ``faces`` and ``without_face``.

    Raises:
        OutputError: If another process writes them, or the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_folder(folder)
        self._lock = _locked(folder)
        self.notes: list[dict[str, Any]] = []
        try:
            self._read(folder / "done.jsonl")
        except BaseException:
            self._lock.close()
            raise

    def _read(self, done: Path) -> None:
        if done.is_file():
            drop_torn_line(done)
        lines = read_lines(done) if done.is_file() else []
        for line in lines:
            note = _checked(line, done)
            names = (self.path(stream, len(self.notes)) for stream in note["delays"])
            if not note["times"] or not all(name.exists() for name in names):
                break
            self.notes.append(note)
        if len(self.notes) < len(lines):
            self.keep(len(self.notes))

    def path(self, stream: str, number: int) -> Path:
        """The file, or the folder of pictures, of a segment of a stream."""
        return self.folder / f"{stream}-{number:05d}.part"

    def keep(self, count: int) -> None:
        """Forget all but the first parts.

        Raises:
            OutputError: If the disk refuses.
        """
        self.notes = self.notes[:count]
        lines = "".join(f"{json.dumps(note)}\n" for note in self.notes)
        write_bytes(self.folder / "done.jsonl", lines.encode())

    def add(self, note: dict[str, Any]) -> None:
        """Note that a segment is finished.

        Raises:
            OutputError: If the disk refuses.
        """
        append_lines(self.folder / "done.jsonl", [json.dumps(note)], lasting=True)
        self.notes.append(note)

    def close(self, keep: bool) -> None:
        """Let others write; unless ``keep``, delete everything."""
        if keep:
            self._lock.close()
        else:
            _delete(self.folder, self._lock)


def _locked(folder: Path) -> IO[bytes]:
    return lock_file(folder / "lock", f"the conversion in {folder} is under way")


def _delete(folder: Path, lock: IO[bytes]) -> None:
    """Delete a folder of segments, and let its lock go."""
    if os.name != "posix":  # an open file cannot be deleted there
        lock.close()
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
    lock.close()  # not before, or the next to write would lose what it has begun


def _checked(line: str, path: Path) -> dict[str, Any]:
    try:
        note: dict[str, Any] = parse_json(line)
        times = [int(time) for time in note["times"]]
        delays = {str(name): int(delay) for name, delay in note["delays"].items()}
        numbers = {name: int(note[name]) for name in ("last", "rotation", "faces", "without_face")}
        if sorted(set(times)) != times or not all(0 <= d < 1000 for d in delays.values()):
            raise ValueError("times or delays out of order")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OutputError(
            f"{path} is damaged ({error}), so this conversion cannot go on where it was stopped: "
            f"delete {path.parent} to begin it again"
        ) from error
    return {"times": times, "delays": delays} | numbers


class SegmentWriter(Protocol):
    """One segment of one stream of pictures, being written."""

    def write(self, frame: Frame) -> None:
        """Append one frame."""

    def finish(self) -> int:
        """Close the segment; return by how many frames its packets came out of order."""


class VideoSegmentWriter:
    """Encodes a segment of a video into a file; it begins anew, so that segments can be made alone."""

    def __init__(self, path: Path, video: Any, encoding: Encoding) -> None:
        path.unlink(missing_ok=True)
        self._path = path
        container = "mov" if encoding.encoder == "prores_ks" else "nut"  # which has no name for it
        self._out = av.open(f"file:{path}", "w", format=container)
        self._stream = add_video(self._out, video, encoding)
        self._context = self._stream.codec_context
        self._upright = encoding.upright
        self._tags = tags_for(video, self._context.pix_fmt, encoding.encoder)
        self._started = False
        self._order: list[int] = []

    def write(self, frame: Frame) -> None:
        """Append one frame."""
        assert isinstance(frame.pixels, Decoded), "a frame of a video"
        if not self._started and self._upright:
            self._context.height, self._context.width = frame.shape
        self._started = True
        old = frame.pixels.frame
        new = stored_frame(frame, self._context.pix_fmt, self._tags, self._upright)
        new.pict_type = 0  # let the encoder choose, not the source's encoder
        new.pts, new.time_base = old.pts, old.time_base
        self._mux(self._stream.encode(new))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self._order.append(packet.pts)
            self._out.mux(packet)

    def finish(self) -> int:
        """Close the file; return by how many frames its packets came out of order."""
        try:
            if self._started:
                self._mux(self._stream.encode(None))
        finally:
            self._out.close()
        fsync(self._path)
        rank = {time: number for number, time in enumerate(sorted(self._order))}
        return max((place - rank[time] for place, time in enumerate(self._order)), default=0)


class ImageSequenceWriter:
    """Writes a segment of a video as numbered PNGs; 16 bits deep if the source is deeper than 8."""

    def __init__(self, folder: Path, first: int) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._folder, self._number = folder, first

    def write(self, frame: Frame) -> None:
        """Append one frame."""
        assert isinstance(frame.pixels, Decoded), "a frame of a video"
        pixels: npt.NDArray[Any]
        if frame.layer is not None:
            pixels = frame.layer[..., [2, 1, 0, 3]]
        elif colorspace.is_deep(frame.pixels.frame):
            pixels = deep_pixels(frame)[..., ::-1]
        else:
            pixels = frame.image[..., ::-1]
        _, png = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])
        self._number += 1
        path = self._folder / f"{self._number:06d}.png"
        path.write_bytes(png.tobytes())
        fsync(path)

    def finish(self) -> int:
        """Nothing is left to do."""
        return 0
