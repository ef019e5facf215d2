"""Write facesets: add faces, remove those of a source, and follow the names of sources.

The crops of an image are written before their lines in the list, so every complete line has its
crop. A kill leaves at most one torn line, and crops of one image that are not in the list.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2

from faceswap.errors import SettingsError
from faceswap.faces.geometry import AlignedFace
from faceswap.facesets.description import Description
from faceswap.facesets.faceset import (
    FORMAT,
    INDEX,
    SKIPPED,
    VERSION,
    face_key,
    read_header,
    read_records,
    source_key,
)
from faceswap.facesets.sourcelist import SOURCES
from faceswap.files import (
    append_lines,
    drop_torn_line,
    parse_json,
    read_lines,
    sweep,
    write_bytes,
    writing,
)
from faceswap.media.frame import Frame

Key = tuple[str, int]  # permanent key of the source, frame index in that file


def discard(folder: Path) -> None:
    """Delete a faceset's lists and the crops that they name, but no other files in its folder.

    Raises:
        OutputError: If a file cannot be deleted.
    """
    index = folder / INDEX
    with writing(folder):
        for line in read_lines(index) if index.is_file() else []:
            found = re.search(r'"file": "(\d+-\d+\.png)"', line)  # works for damaged lines too
            if found:
                (folder / found[1]).unlink(missing_ok=True)
        for name in (SKIPPED, SOURCES, INDEX):
            (folder / name).unlink(missing_ok=True)


class FacesetWriter:
    """Adds faces to a new or existing faceset and knows which images earlier runs have read.

    Args:
        folder: The faceset's folder, created if needed.
        size: Side of the crops in pixels.
        coverage: Fraction of a crop's side that the face's square covers.
        settings: Extraction settings, which must equal those of an existing faceset.
        detector: Names of the detectors, stored with each image in which they found no face.
        weights: Names of the pretrained weights that the extraction uses.

    Attributes:
        done: Keys of the images that earlier runs have read: the permanent key of the source and
            the frame index. An unreadable file has the frame index -1. Images without a face and
            unreadable files only count if the earlier run used the same detectors.
        crops: Number of crops of each source, by its permanent key.
        deleted: Number of faces in the list whose crops were deleted.
        sizes: Sizes of the sources in bytes by permanent key, as far as the lists tell.
        settings: Extraction settings of the existing faceset.

    Raises:
        InputError: If the existing faceset is damaged or has a newer format.
        SettingsError: If it was made with other settings.
        OutputError: If the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        coverage: float,
        settings: dict[str, Any],
        detector: str = "",
        weights: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.settings = settings
        self._detector = detector
        self._names: dict[str, str] = {}  # names of renamed sources, by permanent key
        sweep(folder)
        index = folder / INDEX
        header = {
            "format": FORMAT, "version": VERSION, "size": size, "coverage": coverage,
            "settings": settings, "weights": list(weights),
        }  # fmt: skip
        if index.is_file():
            self._resume(header)
        else:
            write_bytes(index, (json.dumps(header) + "\n").encode())
        self._load()

    @property
    def faces(self) -> int:
        """Number of faces in the faceset, without those whose crops were deleted."""
        return sum(self.crops.values())

    def _resume(self, header: dict[str, Any]) -> None:
        index = self.folder / INDEX
        drop_torn_line(index)
        self.settings = read_header(index)["settings"]
        changed = [
            f"{name} {self.settings.get(name)!r}, not {value!r}"
            for name, value in header["settings"].items()
            if self.settings.get(name) != value
        ]
        if changed:
            raise SettingsError(
                f"{self.folder} was extracted with {'; '.join(changed)}: pass another --output, "
                "or --restart to start over"
            )
        if (self.folder / SKIPPED).is_file():
            drop_torn_line(self.folder / SKIPPED)

    def _load(self) -> None:
        """Find out from the lists what earlier runs have done."""
        self.done: set[Key] = set()
        self.crops: Counter[str] = Counter()
        self.sizes: dict[str, int | None] = {}
        self.deleted = self._images = 0
        for record in _read_skipped(self.folder / SKIPPED):
            self._note_size(record["source"], record)
            if record.get("detector") == self._detector:
                self.done.add((record["source"], record["index"]))
        present = {path.name for path in self.folder.iterdir()}
        for record in read_records(self.folder / INDEX):
            source = source_key(record)
            self.done.add((source, record["index"]))
            self._note_size(source, record)
            if record["file"] in present:
                self.crops[source] += 1
            else:
                self.deleted += 1
            self._images = max(self._images, int(record["file"].split("-")[0]) + 1)

    def _note_size(self, source: str, record: dict[str, Any]) -> None:
        size = record.get("bytes")
        if isinstance(size, int) or source not in self.sizes:
            self.sizes[source] = size if isinstance(size, int) else None

    def forget(self, sources: Collection[str]) -> None:
        """Remove sources with their crops, so that they are read as if they were new.

        The crops go first. If the process is killed before their lines are removed, they look as if
        a user had deleted them, and the next run removes the lines.

        Args:
            sources: Their permanent keys.

        Raises:
            OutputError: If a file cannot be deleted or written.
        """
        if not sources:
            return
        index, skipped = self.folder / INDEX, self.folder / SKIPPED
        header, *lines = read_lines(index)
        kept = []
        for line, record in zip(lines, read_records(index), strict=True):
            if source_key(record) not in sources:
                kept.append(line)
                continue
            with writing(self.folder):
                (self.folder / record["file"]).unlink(missing_ok=True)
        _write_lines(index, [header, *kept])
        if skipped.is_file():
            left = [r for r in _read_skipped(skipped) if r["source"] not in sources]
            _write_lines(skipped, [json.dumps(record) for record in left])
        self._load()

    def rename(self, names: Mapping[str, str]) -> None:
        """Write the names that sources have now to the lines of their faces.

        The keys of the faces stay, because models name their held-out faces by them.

        Args:
            names: The names by permanent key. Sources that are not in it keep theirs.

        Raises:
            OutputError: If the list cannot be written.
        """
        self._names |= {key: name for key, name in names.items() if name != key}
        index = self.folder / INDEX
        header, *lines = read_lines(index)
        renamed = []
        for line, record in zip(lines, read_records(index), strict=True):
            name = names.get(source_key(record), record["source"])
            if name != record["source"]:
                line = json.dumps(record | {"source": name, "key": face_key(record)})
            renamed.append(line)
        if renamed != lines:
            _write_lines(index, [header, *renamed])

    def add(
        self,
        source: str,
        frame: Frame,
        faces: list[AlignedFace],
        pngs: list[bytes] | None = None,
        descriptions: list[Description] | None = None,
    ) -> None:
        """Store the faces of one image: first the crops, then all lines in one write.

        Args:
            source: The permanent key of the frame's file.
            frame: The frame that shows the faces.
            faces: The faces.
            pngs: The crops encoded by :func:`png_of`, if the caller already has them.
            descriptions: What the faces look like, if that is known.

        Raises:
            OutputError: If writing fails.
        """
        lines = []
        for number, aligned in enumerate(faces):
            name = f"{self._images:06d}-{number}.png"
            write_bytes(self.folder / name, png_of(aligned) if pngs is None else pngs[number])
            face, box = aligned.face, aligned.face.box
            record = {
                "file": name,
                "source": self._names.get(source, source),
                "index": frame.index,
                "bytes": _file_size(frame.source),
                "time": str(frame.time),
                "box": [round(v, 2) for v in (box.left, box.top, box.right, box.bottom)],
                "score": round(face.score, 4),
                "landmarks": face.landmarks.astype(float).round(2).tolist(),
                "matrix": aligned.matrix.round(8).tolist(),
                "placed_by": face.placed_by,
                "track": face.track,
                **(descriptions[number].to_json() if descriptions else {}),
            }
            if record["source"] != source:
                record["key"] = f"{source}#{frame.index}-{number}"
            lines.append(json.dumps(record))
        append_lines(self.folder / INDEX, lines)
        self.crops[source] += len(faces)
        self._images += 1

    def skip(self, source: str, index: int, why: str, path: Path | None = None) -> None:
        """List an image without a face, or an unreadable file, in ``skipped.jsonl``.

        Later runs read an image without a face again only if the detector has changed or they
        :meth:`forget` it. They always try an unreadable file again.

        Args:
            source: The permanent key of the image's file.
            index: The frame index; -1 for an unreadable file.
            why: Why it was skipped, such as "no face".
            path: The file, whose size is stored; None stores no size.

        Raises:
            OutputError: If writing fails.
        """
        record = {"source": source, "index": index, "why": why, "detector": self._detector}
        record |= {"bytes": _file_size(path)} if path else {}
        append_lines(self.folder / SKIPPED, [json.dumps(record)])


def _file_size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:  # the file is gone
        return None


def _read_skipped(path: Path) -> Iterator[dict[str, Any]]:
    """Read ``skipped.jsonl``. Damaged lines are ignored, so their images are searched again."""
    for line in read_lines(path) if path.is_file() else []:
        try:
            record = parse_json(line)
            if isinstance(record["source"], str) and isinstance(record["index"], int):
                yield record
        except (KeyError, TypeError, ValueError):
            continue


def _write_lines(path: Path, lines: list[str]) -> None:
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def png_of(aligned: AlignedFace) -> bytes:
    """Encode a face crop as PNG.

    OpenCV takes a third of the time that Pillow takes, for files of about the same size.
    """
    _, data = cv2.imencode(".png", aligned.image[..., ::-1])
    return data.tobytes()
