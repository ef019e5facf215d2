"""The faces of a faceset as the browser shows them, and the edits that come from there.

The list of faces is read into columns once, and again only when it changes: 10,000 faces take
0.2 s. This module needs no torch, so the app starts at once.
"""

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Annotated, Any

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from faceswap.arrays import Image, Points
from faceswap.crops.masks import outline
from faceswap.errors import InputError, SettingsError
from faceswap.faces.geometry import Box, invert, transform
from faceswap.facesets.edits import (
    EDITS,
    Edit,
    Edits,
    Painted,
    Point,
    append_edit,
    read_edits,
    read_mask,
    redo,
    undo,
    write_mask,
)
from faceswap.facesets.faceset import (
    INDEX,
    correct,
    embedding_of_record,
    face_key,
    landmarks_in_crop,
    read_crop,
    read_header,
)
from faceswap.facesets.people import persons_of
from faceswap.files import read_lines
from faceswap.media.sources import PNG_MARK

JPEG_QUALITY = 85
THUMBS = (96, 128, 192, 256)  # sides of the thumbnails that the browser may ask for, pixels
TWIN_BITS = 4  # of 64
Point68 = Annotated[list[Point], Meta(min_length=68, max_length=68)]


class _Line(msgspec.Struct):
    """What the page shows of a line of ``faces.jsonl``."""

    file: Annotated[str, Meta(pattern=r"^[0-9]{1,9}-[0-9]{1,9}\.png$")]
    source: str
    index: int
    box: tuple[float, float, float, float]
    key: str | None = None
    track: int = -1
    pose: tuple[float, float, float] | None = None
    sharpness: float | None = None
    expression: dict[str, float] | None = None
    occluded: float | None = None
    glasses: bool | None = None
    embedding: str | None = None


class EditRequest(msgspec.Struct):
    """An edit as the browser asks for it.

    Attributes:
        edit: See :class:`.edits.Edit`; "undo" and "redo" need nothing else.
        faces: Keys of the faces.
        points: The corrected landmarks in the crop that is shown; None for those found.
        mask: The painted mask as PNG in base64; None for the outline.
    """

    edit: str
    faces: list[str] = []
    points: Point68 | None = None
    mask: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A faceset that was read.

    Attributes:
        version: Changes whenever the list of faces does.
        lines: The faces whose crops exist.
        keys: Their keys.
        boxes: Their boxes, by key.
        size: Side of a crop in pixels.
    """

    version: str
    lines: list[_Line]
    keys: list[str]
    boxes: dict[str, Box]
    size: int


class Faces:
    """The facesets that the app has open, by folder."""

    def __init__(self) -> None:
        self._read: dict[Path, Listed] = {}
        self._lock = Lock()

    def listed(self, folder: Path) -> Listed:
        """Return the faces of a faceset.

        Raises:
            InputError: If its list is damaged.
        """
        version = _version(folder)
        with self._lock:
            known = self._read.get(folder)
            if known is None or known.version != version:
                known = self._read[folder] = _list(folder, version)
            return known


def _version(folder: Path) -> str:
    try:
        found = (folder / INDEX).stat(), folder.stat()
    except OSError as error:
        raise InputError("this faceset is gone") from error
    return "-".join(f"{stat.st_mtime_ns:x}" for stat in found) + f"-{found[0].st_size:x}"


def _list(folder: Path, version: str) -> Listed:
    index = folder / INDEX
    header = read_header(index)
    present = {path.name for path in folder.iterdir()}
    decode = msgspec.json.Decoder(_Line).decode
    lines = []
    for number, text in enumerate(read_lines(index)[1:], start=2):
        try:
            line = decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(
                f"{index} line {number} is damaged: {error}; run faceswap extract with --restart"
            ) from error
        if line.file in present:
            lines.append(line)
    keys = [_key_of(line) for line in lines]
    boxes = {key: Box(*line.box) for key, line in zip(keys, lines, strict=True)}
    return Listed(version, lines, keys, boxes, header["size"])


def _key_of(line: _Line) -> str:
    stored = {"key": line.key} if line.key else {}
    return face_key({"file": line.file, "source": line.source, "index": line.index, **stored})


def columns(listed: Listed) -> dict[str, Any]:
    """Return what the grid shows and sorts by, a list for each property."""
    lines = listed.lines
    return {
        "version": listed.version,
        "size": listed.size,
        "key": listed.keys,
        "source": [line.source for line in lines],
        "frame": [line.index for line in lines],
        "side": [round(line.box[2] - line.box[0]) for line in lines],
        "pose": [line.pose for line in lines],
        "sharpness": [line.sharpness for line in lines],
        "occluded": [line.occluded for line in lines],
        "glasses": [line.glasses for line in lines],
        "expression": [
            max(line.expression.items(), key=lambda item: item[1]) if line.expression else None
            for line in lines
        ],
    }


def state(folder: Path, listed: Listed) -> dict[str, Any]:
    """Replay the edits of a faceset; the result names faces by number.

    Raises:
        InputError: If the list of edits is damaged.
    """
    edits = _edits(folder, listed)
    number = {key: place for place, key in enumerate(listed.keys)}

    def numbers(keys: Sequence[str]) -> list[int]:
        return sorted(number[key] for key in keys)

    return {
        "rejected": numbers(list(edits.rejected)),
        "exemplars": [number[key] for key in edits.exemplars],
        "landmarks": numbers(list(edits.landmarks)),
        "masks": numbers(list(edits.masks)),
        "undoable": edits.undoable,
        "redoable": edits.redoable,
    }


def _edits(folder: Path, listed: Listed) -> Edits:
    return read_edits(folder, listed.boxes) if (folder / EDITS).is_file() else Edits()


def people(folder: Path, listed: Listed) -> dict[str, Any]:
    """Return whom each face shows, 0 for the most frequent person, and how unlike that one it is.

    Faces of a video without an embedding count as those of their track.

    Returns:
        "person" and "distance" of each face; None where it is unknown.
    """
    index = folder / INDEX
    rows = [
        embedding_of_record({"file": line.file, "embedding": line.embedding}, index)
        for line in listed.lines
    ]
    if not rows:
        return {"person": [], "distance": []}
    found = np.stack(rows)
    tracks = [(line.source, line.track) if line.track >= 0 else None for line in listed.lines]
    person, groups = persons_of(found, tracks)
    away = np.linalg.norm(found - groups[0].mean, axis=1) if groups else np.full(len(rows), np.nan)
    distance = [round(length, 3) if length == length else None for length in away.tolist()]
    return {"person": person, "distance": distance}


def looks(folder: Path, listed: Listed) -> dict[str, Any]:
    """Return how light each face is, and which faces are near-duplicates; 10,000 take 15 s.

    Two faces are near-duplicates if at most ``TWIN_BITS`` of 64 comparisons of neighbouring cells
    differ.

    Returns:
        "light", the mean grey level of the middle of each crop, and "twin": faces of a group have
        the same number, the largest group the lowest; None if a face has no duplicate. None for
        both if a crop cannot be read.
    """
    light: list[float | None] = []
    hashes = np.zeros(len(listed.lines), np.uint64)
    for number, line in enumerate(listed.lines):
        path = folder / line.file
        crop = None if path.is_symlink() else cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if crop is None or crop.shape != (listed.size, listed.size):
            light.append(None)
            hashes[number] = number * 0x9E3779B97F4A7C15 % 2**64  # like no other
            continue
        edge = listed.size // 4
        middle = crop[edge : listed.size - edge, edge : listed.size - edge]
        light.append(round(float(middle.mean()), 1))
        cells = cv2.resize(middle, (9, 8), interpolation=cv2.INTER_AREA)
        hashes[number] = np.packbits(cells[:, 1:] > cells[:, :-1]).view(np.uint64)[0]
    return {"light": light, "twin": _twins(hashes)}


def _twins(hashes: npt.NDArray[np.uint64]) -> list[int | None]:
    """Number the groups of near-duplicates, the largest first."""
    group = np.arange(len(hashes))
    for number in range(len(hashes)):  # join each face with those before it
        apart = np.bitwise_count(hashes[:number] ^ hashes[number])
        near = np.unique(group[:number][apart <= TWIN_BITS])
        if len(near):
            group[np.isin(group, near)] = number
            group[number] = number
    found, counts = np.unique(group, return_counts=True)
    order = sorted(range(len(found)), key=lambda at: (-counts[at], found[at]))
    names = {int(found[at]): rank for rank, at in enumerate(order) if counts[at] > 1}
    return [names.get(int(one)) for one in group]


def _record(folder: Path, listed: Listed, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a whole line of the list, and the header."""
    index = folder / INDEX
    header = read_header(index)
    wanted = listed.lines[number].file
    for text in read_lines(index)[1:]:
        if wanted in text:
            record: dict[str, Any] = msgspec.json.decode(text)
            if record["file"] == wanted:
                return record, header
    raise InputError("this face is gone; load the page again")


def crop(folder: Path, listed: Listed, number: int) -> tuple[Image, Points, Painted]:
    """Return a face as training sees it: its crop, landmarks in it (68, 2), and mask.

    Raises:
        InputError: If one of them is damaged.
    """
    key = listed.keys[number]
    edits = _edits(folder, listed)
    image, points = _corrected(folder, listed, number, edits)
    if key in edits.masks:
        mask = read_mask(folder, edits.masks[key], listed.size)
    else:
        mask = np.asarray(outline(points, listed.size) * 255, np.uint8)
    return image, points, mask


def _corrected(folder: Path, listed: Listed, number: int, edits: Edits) -> tuple[Image, Points]:
    record, header = _record(folder, listed, number)
    move = correct(record, header, edits.landmarks.get(listed.keys[number]), folder / INDEX)
    image = read_crop(folder / record["file"], listed.size, move)
    return image, landmarks_in_crop(record, folder / INDEX)


def thumbnail(folder: Path, listed: Listed, number: int, side: int) -> bytes:
    """Return a stored crop as JPEG.

    Args:
        folder: The faceset.
        listed: Its faces.
        number: Which one.
        side: Its side in pixels, one of ``THUMBS``.

    Raises:
        InputError: If the crop is damaged.
    """
    path, size = folder / listed.lines[number].file, listed.size
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    image = _decoded(data, size, cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path} is not a PNG of {size} px square")
    if side < size:
        image = np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return jpeg.tobytes()


def _decoded(data: bytes, size: int, mode: int) -> npt.NDArray[np.uint8] | None:
    """Decode a PNG of ``size`` pixels square; None if it is none, before pixels are decoded."""
    if data[:8] != PNG_MARK or data[16:24] != struct.pack(">II", size, size):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    is_whole = image is not None and image.shape[:2] == (size, size)
    return np.asarray(image, np.uint8) if is_whole else None


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """Encode an RGB image or a mask."""
    _, data = cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)
    return data.tobytes()


def apply(folder: Path, listed: Listed, asked: EditRequest) -> None:
    """Do what the browser asks for.

    Raises:
        InputError: If a face does not exist, or the edit is none of ours.
        SettingsError: If there is nothing to undo or redo.
        OutputError: If the list of edits cannot be written.
    """
    if asked.edit == "undo":
        undo(folder)
        return
    if asked.edit == "redo":
        redo(folder)
        return
    unknown = [key for key in asked.faces if key not in listed.boxes]
    if unknown:
        raise InputError(f"{len(unknown)} of these faces are gone; load the page again")
    faces: dict[str, Point] = {key: _center(listed.boxes[key]) for key in asked.faces}
    if asked.edit in ("reject", "restore", "exemplars"):
        append_edit(folder, Edit(asked.edit, faces))  # type: ignore[arg-type]
        return
    if len(faces) != 1:
        raise SettingsError("landmarks and masks are edited one face at a time")
    if asked.edit == "landmarks":
        append_edit(folder, Edit("landmarks", faces, landmarks=_in_frame(folder, listed, asked)))
    elif asked.edit == "mask":
        name = None if asked.mask is None else write_mask(folder, _painted(asked.mask, listed.size))
        append_edit(folder, Edit("mask", faces, mask=name))
    else:
        raise SettingsError("there is no such edit")


def _center(box: Box) -> Point:
    return round((box.left + box.right) / 2, 1), round((box.top + box.bottom) / 2, 1)


def _in_frame(folder: Path, listed: Listed, asked: EditRequest) -> list[Point] | None:
    """Return landmarks of the crop that is shown in the frame; None for those found."""
    if asked.points is None:
        return None
    number = listed.keys.index(asked.faces[0])
    record, header = _record(folder, listed, number)
    earlier = _edits(folder, listed).landmarks.get(listed.keys[number])
    correct(record, header, earlier, folder / INDEX)
    to_frame = invert(np.asarray(record["matrix"], np.float64).reshape(2, 3))
    points = transform(np.array(asked.points, np.float32), to_frame).astype(float).round(2)
    corrected: list[Point] = [(x, y) for x, y in points.tolist()]
    correct(record, header, corrected, folder / INDEX)  # refuses what places no crop
    return corrected


def _painted(text: str, size: int) -> Painted:
    """Decode a painted mask.

    Raises:
        InputError: If it is no PNG of this size.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("the mask is not base64") from error
    mask = _decoded(data, size, cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise InputError(f"the mask is no PNG of {size} px")
    return mask
