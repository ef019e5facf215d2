"""Faceset on disk: a folder of face crops and ``faces.jsonl``, which describes them."""

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from faceswap.arrays import Embedding, Image, Matrix, Points
from faceswap.config import DLIB_LANDMARKS, identity_name
from faceswap.crops.masks import outline
from faceswap.errors import AlignmentError, InputError, NoFacesError
from faceswap.faces.geometry import (
    Box,
    compose,
    face_matrix,
    invert,
    resized,
    transform,
    warp_image,
)
from faceswap.facesets.description import EMBEDDED, embedding_in
from faceswap.facesets.edits import EDITS, Edits, Painted, Point, read_edits, read_mask
from faceswap.files import parse_json, read_lines
from faceswap.types import counted

log = logging.getLogger(__name__)


if TYPE_CHECKING:  # looking at a faceset needs no torch, which takes 1-2 s to import
    from torch import Tensor

FORMAT, VERSION = "faceswap-faces", 1
INDEX, SKIPPED = "faces.jsonl", "skipped.jsonl"
CROP_NAME = re.compile(r"[0-9]{1,9}-[0-9]{1,9}\.png")
MAX_SIZE = 4096  # pixels, side of a crop
MAX_LANDMARK = 1e5  # pixels; a larger coordinate in the crop means that the list is damaged


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


def edits_of(index: Path, records: Sequence[dict[str, Any]]) -> Edits:
    """Replay the edits of a faceset and return the result.

    Raises:
        InputError: If the list of edits is damaged, or a face's box.
    """
    if not (index.parent / EDITS).is_file():
        return Edits()
    try:
        boxes = {face_key(record): Box(*map(float, record["box"])) for record in records}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{index} is damaged: a face has no box: {error}") from error
    return read_edits(index.parent, boxes)


def read_keys(folder: Path) -> dict[str, bool]:
    """Return the keys of all faces of a faceset in its order, and whether they are to be used.

    Those whose crops were deleted and those that were rejected are not.

    Args:
        folder: The faceset's folder, or a folder that contains it as ``faces``.

    Raises:
        InputError: If the folder is not a faceset, or its list is damaged.
    """
    index = _existing_index(folder)
    read_header(index)
    records = sorted(read_records(index), key=_place)
    present = {path.name for path in index.parent.iterdir()}
    rejected = edits_of(index, records).rejected
    return {
        key: record["file"] in present and key not in rejected
        for key, record in ((face_key(record), record) for record in records)
    }


def evenly(keys: list[str], most: int) -> list[str]:
    """Return at most ``most`` of the keys, evenly spaced."""
    number = len(keys)
    return keys if number <= most else [keys[i * number // most] for i in range(most)]


def face_key(record: Mapping[str, Any]) -> str:
    """Return the permanent key of a face: its source, frame and number within the frame.

    Faces of a source that was renamed store theirs.
    """
    number = str(record["file"]).removesuffix(".png").rpartition("-")[2]
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
        masks: Painted masks by key, at the stored size of the crops.
        exemplars: Keys of the faces whose photos the user wants the model to keep.
    """

    name: str
    crops: "Tensor"
    landmarks: Points
    keys: list[str]
    coverage: float
    times: npt.NDArray[np.float64]
    placed_by: list[str]
    embeddings: npt.NDArray[np.float32]
    masks: dict[str, Painted] = field(default_factory=dict)
    exemplars: tuple[str, ...] = ()

    @classmethod
    def read(
        cls, folder: Path, crop_size: int | None = None, keys: Collection[str] | None = None
    ) -> Self:
        """Load a faceset and resize its crops to ``crop_size`` pixels if given.

        Rejected faces are left out, and those whose crops were deleted, with a warning. Crops of
        faces with corrected landmarks are aligned again.

        Args:
            folder: The faceset's folder, or a folder that contains it as ``faces``.
            crop_size: Side of the loaded crops in pixels; None keeps the stored size.
            keys: Keys of the faces to load; None loads all.

        Raises:
            InputError: If the folder is not a faceset, or its list, its edits or a crop is damaged.
            NoFacesError: If no face is left.
        """
        index = _existing_index(folder)
        folder = index.parent
        header = read_header(index)
        listed = sorted(read_records(index), key=_place)
        edits = edits_of(index, listed)
        records = [
            record for record in listed
            if (keys is None or face_key(record) in keys)
            and face_key(record) not in edits.rejected
        ]  # fmt: skip
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
        if not kept:
            rejected = (
                f" ({counted(len(edits.rejected), 'face')} rejected)" if edits.rejected else ""
            )
            raise NoFacesError(
                f"{folder} contains no faces{rejected}; extract photos that show one"
            )
        moves = [
            correct(record, header, edits.landmarks.get(face_key(record)), index) for record in kept
        ]
        crops = [
            _tensor_of(read_crop(folder / record["file"], stored, move), crop_size or stored)
            for record, move in zip(kept, moves, strict=True)
        ]
        inside = np.stack([landmarks_in_crop(record, index) for record in kept])
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
            {
                key: read_mask(folder, edits.masks[key], stored)
                for key in map(face_key, kept) if key in edits.masks
            },
            edits.exemplars,
        )  # fmt: skip

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

    def mask(self, number: int) -> Painted:
        """Return where a face is, (S, S): 255 inside its painted mask, or else in its outline."""
        size = self.crops.shape[-1]
        painted = self.masks.get(self.keys[number])
        if painted is None:
            return np.asarray(outline(self.landmarks[number], size) * 255, np.uint8)
        if len(painted) == size:
            return painted
        return np.asarray(cv2.resize(painted, (size, size), interpolation=cv2.INTER_AREA), np.uint8)

    def evenly(self, most: int) -> Self:
        """Return at most ``most`` of the faces, evenly spaced."""
        return self if len(self.keys) <= most else self.subset(set(evenly(self.keys, most)))

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


def correct(
    record: dict[str, Any], header: dict[str, Any], landmarks: list[Point] | None, index: Path
) -> Matrix | None:
    """Give a face its corrected landmarks.

    Args:
        record: The face, which is changed.
        header: The header of its list.
        landmarks: The corrected landmarks in the frame; None if they were not corrected.
        index: The list.

    Returns:
        The matrix from the stored crop to the crop that belongs to the corrected landmarks; None if
        it is the same.

    Raises:
        InputError: If they place no crop.
    """
    if landmarks is None:
        return None
    try:
        matrix = face_matrix(np.array(landmarks, np.float32), header["size"], header["coverage"])
        move = compose(matrix, invert(np.asarray(record["matrix"], np.float64).reshape(2, 3)))
    except (AlignmentError, KeyError, TypeError, ValueError, np.linalg.LinAlgError) as error:
        raise InputError(
            f"{index}: the landmarks of {record['file']} cannot be corrected: {error}; undo that"
        ) from error
    record["landmarks"], record["matrix"] = landmarks, matrix
    return move


def landmarks_in_crop(record: dict[str, Any], index: Path) -> Points:
    """Return the landmarks of a face in its crop, (68, 2).

    Raises:
        InputError: If they are damaged.
    """
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


def read_crop(path: Path, stored: int, move: Matrix | None) -> Image:
    """Read a crop.

    Args:
        path: Its file.
        stored: Its side in pixels, as the list says.
        move: From :func:`correct`.

    Raises:
        InputError: If it is damaged or has another size.
    """
    try:
        with Pillow.open(path, formats=("PNG",)) as image:
            width, height = image.size  # checked before the pixels are decoded into memory
            if (width, height) != (stored, stored):
                raise InputError(
                    f"{path} is {width}x{height}, not {stored} px square; delete it to leave out "
                    "this face"
                )
            pixels = np.array(image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # decoders raise many types for damaged files
        raise InputError(
            f"{path} cannot be read: {error}; delete it to leave out this face"
        ) from error
    return pixels if move is None else warp_image(pixels, move, stored, stored)


def _tensor_of(crop: Image, size: int) -> "Tensor":
    """Return a crop as uint8 (3, size, size)."""
    import torch

    tensor = torch.from_numpy(crop).permute(2, 0, 1)
    return tensor.contiguous() if len(crop) == size else _resize(tensor, size)


def _resize(crop: "Tensor", size: int) -> "Tensor":
    """Resize a crop (3, S, S), with antialiasing."""
    from torch.nn import functional

    resized = functional.interpolate(crop[None], (size, size), mode="bilinear", antialias=True)
    return resized[0].contiguous()
