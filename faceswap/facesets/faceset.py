"""Faceset on disk: a folder of face crops and ``faces.jsonl``, which describes them.

The crops of an image are written before their lines in the list, so every complete line has its
crop. A kill leaves at most one torn line, and crops of one image that are not in the list.
"""

import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from faceswap.arrays import Embedding, Points
from faceswap.config import DLIB_LANDMARKS, identity_name
from faceswap.errors import InputError, NoFacesError, SettingsError
from faceswap.faces.geometry import AlignedFace, resized, transform
from faceswap.facesets.description import EMBEDDED, Description, embedding_in
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
from faceswap.types import counted

log = logging.getLogger(__name__)


if TYPE_CHECKING:  # writing a faceset needs no torch, which takes 1-2 s to import
    from torch import Tensor

FORMAT, VERSION = "faceswap-faces", 1
INDEX, SKIPPED = "faces.jsonl", "skipped.jsonl"
CROP_NAME = re.compile(r"[0-9]{1,9}-[0-9]{1,9}\.png")
MAX_SIZE = 4096  # pixels, side of a crop
MAX_LANDMARK = 1e5  # pixels; a larger coordinate in the crop means that the list is damaged

Key = tuple[str, int]  # source file relative to the input, frame index in that file


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


def facesets_in(folder: Path) -> list[Path]:
    """Return the facesets below a folder."""
    return [index.parent for index in folder.rglob(INDEX)]


def index_in(folder: Path) -> Path:
    """Return the list of the faceset that a folder is, or contains as ``faces``."""
    if not (folder / INDEX).is_file() and (folder / "faces" / INDEX).is_file():
        folder = folder / "faces"
    return folder / INDEX


def read_header(index: Path) -> dict[str, Any]:
    """Read and check the first line of ``faces.jsonl``.

    Raises:
        InputError: If the file is not a face list, a value is out of range, or the format is newer.
    """
    lines = read_lines(index)
    try:
        header = parse_json(lines[0]) if lines else None
        if not isinstance(header, dict) or header["format"] != FORMAT:
            raise ValueError(f"the first line does not name the format {FORMAT}")
        if not isinstance(header["settings"], dict):
            raise ValueError("settings must be an object")
        if int(header["version"]) > VERSION:
            raise InputError(
                f"{index} has format version {header['version']}, but this program supports only "
                f"versions up to {VERSION}: update faceswap"
            )
        header["size"], header["coverage"] = int(header["size"]), float(header["coverage"])
        if not (1 <= header["size"] <= MAX_SIZE and 0.1 <= header["coverage"] <= 1):
            raise ValueError("size or coverage is out of range")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{index} is not a faceswap face list: {error}") from error
    return header


def weights_in(header: dict[str, Any]) -> list[str]:
    """Return the names of the weights that a faceset was extracted with; none in old facesets."""
    names = header.get("weights")
    return [str(name) for name in names] if isinstance(names, list) else []


def read_records(index: Path) -> Iterator[dict[str, Any]]:
    """Yield the faces of ``faces.jsonl``, one dict per face.

    Raises:
        InputError: If a line is damaged.
    """
    for number, line in enumerate(read_lines(index)[1:], start=2):
        try:
            record = parse_json(line)
            if not CROP_NAME.fullmatch(record["file"]):
                raise ValueError("file must be a plain name such as 000012-0.png")
            record["index"] = int(record["index"])
            record["source"] = str(record["source"])
            if "#" not in str(record.get("key", "#")):
                raise ValueError("key must be the key of a face, such as photo.jpg#0-0")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{index} line {number} is damaged: {error}; run faceswap extract with --restart"
            ) from error
        yield record


def _existing_index(folder: Path) -> Path:
    """Return the list of the faceset that a folder is or contains.

    Raises:
        InputError: If there is none.
    """
    index = index_in(folder)
    if not index.is_file():
        folder = index.parent
        source = folder.parent if folder.name == "faces" else folder
        raise InputError(
            f"{folder} contains no faceset ({INDEX}); create one: faceswap extract {source}"
        )
    return index


def _place(record: dict[str, Any]) -> tuple[str, int, str]:
    """Return by what the faces of a faceset are sorted. Renaming a source changes nothing."""
    return source_key(record), record["index"], record["file"]


def read_keys(folder: Path) -> dict[str, bool]:
    """Return the keys of all faces of a faceset in its order, and whether their crops exist.

    Args:
        folder: The faceset's folder, or a folder that contains it as ``faces``.

    Raises:
        InputError: If the folder is not a faceset, or its list is damaged.
    """
    index = _existing_index(folder)
    read_header(index)
    present = {path.name for path in index.parent.iterdir()}
    faces = sorted((*_place(r), face_key(r), r["file"] in present) for r in read_records(index))
    return {key: exists for *_, key, exists in faces}


def face_key(record: Mapping[str, Any]) -> str:
    """Return the permanent key of a face: its source, frame and number within the frame.

    Faces of a source that was renamed store theirs.
    """
    number = Path(record["file"]).stem.rpartition("-")[2]
    return str(record.get("key", f"{record['source']}#{record['index']}-{number}"))


def source_key(record: Mapping[str, Any]) -> str:
    """Return the permanent key of a face's source, by which ``sources.jsonl`` names it."""
    return face_key(record).rpartition("#")[0]


@dataclass(frozen=True, slots=True)
class Faceset:
    """The faces of one identity, sorted by source and frame.

    Attributes:
        name: The identity's name.
        crops: uint8 (N, 3, S, S) RGB.
        landmarks: float32 (N, 68, 2), pixels of the crops.
        keys: Permanent key of each face: its source, frame and number within the frame, such as
            "clip.mp4#12-0".
        coverage: Fraction of a crop's side that the face's square covers.
        times: float64 (N,), seconds in a video; 0 for photos.
        placed_by: What placed the landmarks of each face; see :class:`.geometry.Face`.
        embeddings: float32 (N, 128), face embeddings; NaN where none is stored.
    """

    name: str
    crops: "Tensor"
    landmarks: Points
    keys: list[str]
    coverage: float
    times: npt.NDArray[np.float64]
    placed_by: list[str]
    embeddings: npt.NDArray[np.float32]

    @classmethod
    def read(
        cls, folder: Path, crop_size: int | None = None, keys: Collection[str] | None = None
    ) -> Self:
        """Load a faceset and resize its crops to ``crop_size`` pixels if given.

        Faces whose crops were deleted are left out with a warning.

        Args:
            folder: The faceset's folder, or a folder that contains it as ``faces``.
            crop_size: Side of the loaded crops in pixels; None keeps the stored size.
            keys: Keys of the faces to load; None loads all.

        Raises:
            InputError: If the folder is not a faceset, or its list or a crop is damaged.
            NoFacesError: If no crop is left.
        """
        index = _existing_index(folder)
        folder = index.parent
        header = read_header(index)
        wanted = (r for r in read_records(index) if keys is None or face_key(r) in keys)
        records = sorted(wanted, key=_place)
        kept = [record for record in records if (folder / record["file"]).is_file()]
        if keys is None and len(kept) < len(records):  # users delete bad crops by hand
            missing = len(records) - len(kept)
            what = counted(missing, "face")
            log.warning("%s: skipping %s whose crops were deleted", folder, what)
        stored = header["size"]
        if crop_size and crop_size > stored:
            log.warning(
                "%s: crops of %d px are upscaled to the model's %d px; for sharper faces extract "
                "again with --size %d", folder, stored, crop_size, crop_size,
            )  # fmt: skip
        crops = [_read_crop(folder / r["file"], stored, crop_size or stored) for r in kept]
        if not crops:
            raise NoFacesError(f"{folder} contains no faces; extract photos that show one")
        inside = np.stack([_landmarks_in_crop(record, index) for record in kept])
        landmarks = _scaled(inside, (crop_size or stored) / stored)
        import torch

        times = np.array([_time_of(record, index) for record in kept])
        return cls(
            identity_name(folder),
            torch.stack(crops),
            landmarks,
            [face_key(record) for record in kept],
            header["coverage"],
            times,
            [str(record.get("placed_by", DLIB_LANDMARKS)) for record in kept],
            np.stack([embedding_of_record(record, index) for record in kept]),
        )

    def subset(self, keys: Collection[str], inside: bool = True) -> Self:
        """Return the faces whose key is in ``keys``, or all others if ``inside`` is False."""
        chosen = [i for i, key in enumerate(self.keys) if (key in keys) == inside]
        return replace(
            self,
            crops=self.crops[chosen],
            landmarks=self.landmarks[chosen],
            keys=[self.keys[i] for i in chosen],
            times=self.times[chosen],
            placed_by=[self.placed_by[i] for i in chosen],
            embeddings=self.embeddings[chosen],
        )

    def evenly(self, most: int) -> Self:
        """Return at most ``most`` of the faces, evenly spaced."""
        count = len(self.keys)
        if count <= most:
            return self
        return self.subset({self.keys[i * count // most] for i in range(most)})

    def resized(self, size: int) -> Self:
        """Return the same faces with crops resized to ``size`` pixels."""
        import torch

        current = self.crops.shape[-1]
        if current == size:
            return self
        return replace(
            self,
            crops=torch.stack([_resize(crop, size) for crop in self.crops]),
            landmarks=_scaled(self.landmarks, size / current),
        )


def _landmarks_in_crop(record: dict[str, Any], index: Path) -> Points:
    try:
        with np.errstate(all="ignore"):  # infinities are rejected below
            landmarks = np.asarray(record["landmarks"], np.float32).reshape(68, 2)
            matrix = np.asarray(record["matrix"], np.float64).reshape(2, 3)
            inside = transform(landmarks, matrix)
        if not np.isfinite(inside).all() or np.abs(inside).max() > MAX_LANDMARK:
            raise ValueError("the landmarks are too far from the crop")
        return inside
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{index}: the landmarks of {record['file']} are damaged; run faceswap extract with "
            "--restart"
        ) from error


def _time_of(record: dict[str, Any], index: Path) -> float:
    """Return a face's time in seconds; 0 if an old list lacks it."""
    try:
        return float(Fraction(record.get("time", "0")))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"{index}: the time of {record['file']} is damaged") from error


def embedding_of_record(record: dict[str, Any], index: Path) -> Embedding:
    """Return the embedding (128,) of a face in the list; NaN if none is stored.

    Raises:
        InputError: If it is damaged.
    """
    try:
        found = embedding_in(record)
    except ValueError as error:
        raise InputError(
            f"{index}: the embedding of {record['file']} is damaged; run faceswap extract with "
            "--restart"
        ) from error
    return np.full(EMBEDDED, np.nan, np.float32) if found is None else found


def _scaled(landmarks: Points, factor: float) -> Points:
    """Scale landmarks (N, 68, 2) to crops ``factor`` times as large."""
    matrix = resized(np.eye(2, 3), factor)
    return np.stack([transform(points, matrix) for points in landmarks])


def _read_crop(path: Path, stored: int, size: int) -> "Tensor":
    """Read one crop as uint8 (3, size, size)."""
    import torch

    try:
        with Pillow.open(path, formats=("PNG",)) as image:
            width, height = image.size  # checked before the pixels are decoded into memory
            if (width, height) != (stored, stored):
                raise InputError(
                    f"{path} is {width}x{height}, not {stored} px square; delete it to leave out "
                    "this face"
                )
            crop = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except InputError:
        raise
    except Exception as error:  # decoders raise many types for damaged files
        raise InputError(
            f"{path} cannot be read: {error}; delete it to leave out this face"
        ) from error
    return crop.contiguous() if stored == size else _resize(crop, size)


def _resize(crop: "Tensor", size: int) -> "Tensor":
    """Resize a crop (3, S, S), with antialiasing."""
    from torchvision.transforms.v2 import functional as vision

    resized: Tensor = vision.resize(crop, [size, size], antialias=True)
    return resized.contiguous()
