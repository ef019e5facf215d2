"""What people decided about the faces of a faceset: ``edits.jsonl``.

Each line is one edit, and later lines are newer. An edit changes neither the list of faces nor the
crops, so every edit can be undone, and a faceset that is extracted again keeps its edits.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from faceswap.errors import InputError, SettingsError
from faceswap.faces.geometry import Box
from faceswap.files import append_lines, drop_torn_line, make_folder, read_lines, write_bytes

EDITS, MASKS = "edits.jsonl", "masks"  # the list, and the folder of painted masks, in a faceset
MAX_COORDINATE = 1e6  # pixels
Coordinate = Annotated[float, Meta(ge=-MAX_COORDINATE, le=MAX_COORDINATE)]
Point = tuple[Coordinate, Coordinate]
Painted = npt.NDArray[np.uint8]  # a painted mask (S, S), 255 where the face is

Kind = Literal["reject", "restore", "landmarks", "mask", "exemplars", "undo", "redo", "forget"]


class Edit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of ``edits.jsonl``.

    Attributes:
        edit: "reject" and "restore" take faces out and back, "landmarks" and "mask" correct one
            face, "exemplars" replaces the choice of photos for the model. "undo" and "redo" take
            back the last edit that counts, or the last undo. "forget" makes all earlier edits of
            the faces of ``sources`` void, because these files hold something else now.
        faces: Keys of the faces, with the centre of each one's box in its frame: a face with this
            key but elsewhere is another one, to which the edit does not apply.
        landmarks: The corrected landmarks (68, 2) in the frame, pixels; None for those found.
        mask: Name of the file in ``MASKS`` that holds the painted mask; None for the outline.
        sources: Permanent keys of sources.
        time: When it was made, ISO 8601.
    """

    edit: Kind
    faces: dict[str, Point] = {}
    landmarks: Annotated[list[Point], Meta(min_length=68, max_length=68)] | None = None
    mask: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\.png$")] | None = None
    sources: list[str] = []
    time: str = ""


@dataclass(frozen=True, slots=True)
class Edits:
    """The state of a faceset after all edits that count.

    Attributes:
        rejected: Keys of the faces that were taken out.
        landmarks: Corrected landmarks in the frame, by key.
        masks: File names of painted masks, by key.
        exemplars: Keys of the faces whose photos the model shall keep.
        undoable: Number of edits that can be undone.
        redoable: Number of edits that were undone and can be redone.
    """

    rejected: set[str] = field(default_factory=set)
    landmarks: dict[str, list[Point]] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    exemplars: tuple[str, ...] = ()
    undoable: int = 0
    redoable: int = 0


def read_edits(folder: Path, boxes: Mapping[str, Box]) -> Edits:
    """Replay the edits of a faceset and return the result.

    Args:
        folder: The faceset's folder.
        boxes: The box in the frame of each face, by key.

    Raises:
        InputError: If the list is damaged.
    """
    counting, undone = _counting(_read(folder))
    rejected: set[str] = set()
    landmarks: dict[str, list[Point] | None] = {}
    masks: dict[str, str | None] = {}
    exemplars: list[str] = []
    for edit in counting:
        keys = [key for key, point in edit.faces.items() if _is_at(point, boxes.get(key))]
        if edit.edit == "reject":
            rejected.update(keys)
        elif edit.edit == "restore":
            rejected.difference_update(keys)
        elif edit.edit == "landmarks":
            landmarks.update(dict.fromkeys(keys, edit.landmarks))
        elif edit.edit == "mask":
            masks.update(dict.fromkeys(keys, edit.mask))
        else:
            exemplars = keys
    return Edits(
        rejected,
        {key: points for key, points in landmarks.items() if points},
        {key: name for key, name in masks.items() if name},
        tuple(exemplars),
        len(counting),
        len(undone),
    )


def _is_at(point: Point, box: Box | None) -> bool:
    return (
        box is not None and box.left <= point[0] <= box.right and box.top <= point[1] <= box.bottom
    )


def _own(folder: Path, name: str) -> Path:
    """Return a file or folder of a faceset, which must not be a link to somewhere else.

    Raises:
        InputError: If it is one.
    """
    path = folder / name
    if path.is_symlink():
        raise InputError(f"{path} is a link; a faceset from elsewhere could name any file with it")
    return path


def _read(folder: Path) -> list[Edit]:
    path = _own(folder, EDITS)
    edits = []
    for number, line in enumerate(read_lines(path) if path.is_file() else [], start=1):
        try:
            edits.append(msgspec.json.decode(line, type=Edit))
        except (msgspec.DecodeError, RecursionError) as error:
            raise InputError(
                f"{path} line {number} is damaged: {error}; delete this line to lose only this edit"
            ) from error
    return edits


def _counting(edits: Iterable[Edit]) -> tuple[list[Edit], list[Edit]]:
    """Return the edits that count, oldest first, and those that were undone, the last one last."""
    counting: list[Edit] = []
    undone: list[Edit] = []
    for edit in edits:
        if edit.edit == "forget":
            counting = [_without(kept, edit.sources) for kept in counting]
            undone = [_without(kept, edit.sources) for kept in undone]
        elif edit.edit == "undo":
            if counting:
                undone.append(counting.pop())
        elif edit.edit == "redo":
            if undone:
                counting.append(undone.pop())
        else:
            counting.append(edit)
            undone.clear()
    return counting, undone


def _without(edit: Edit, sources: Collection[str]) -> Edit:
    faces = {key: at for key, at in edit.faces.items() if key.rpartition("#")[0] not in sources}
    return msgspec.structs.replace(edit, faces=faces)


def append_edit(folder: Path, edit: Edit) -> None:
    """Add an edit to the list of a faceset, and wait until it is on disk.

    Raises:
        InputError: If the list is a link.
        OutputError: If the list cannot be written.
    """
    if _own(folder, EDITS).is_file():
        drop_torn_line(folder / EDITS)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = msgspec.json.encode(msgspec.structs.replace(edit, time=now)).decode()
    append_lines(folder / EDITS, [line], lasting=True)


def undo(folder: Path) -> Edit:
    """Take back the last edit that counts, and return it.

    Raises:
        SettingsError: If there is none.
        InputError: If the list is damaged.
        OutputError: If the list cannot be written.
    """
    counting, _ = _counting(_read(folder))
    return _take_back(folder, "undo", counting, "no edit to undo")


def redo(folder: Path) -> Edit:
    """Take back the last :func:`undo`, and return the edit that counts again.

    Raises:
        SettingsError: If there is none.
        InputError: If the list is damaged.
        OutputError: If the list cannot be written.
    """
    _, undone = _counting(_read(folder))
    return _take_back(folder, "redo", undone, "no undone edit to redo")


def _take_back(folder: Path, kind: Literal["undo", "redo"], edits: list[Edit], none: str) -> Edit:
    if not edits:
        raise SettingsError(f"{folder} has {none}")
    append_edit(folder, Edit(kind))
    return edits[-1]


def forget(folder: Path, sources: Collection[str]) -> None:
    """Make the edits of sources void, because they hold something else now.

    Args:
        folder: The faceset's folder.
        sources: Their permanent keys.

    Raises:
        OutputError: If the list cannot be written.
    """
    if sources and (folder / EDITS).is_file():
        append_edit(folder, Edit("forget", sources=sorted(sources)))


def write_mask(folder: Path, mask: Painted) -> str:
    """Store a painted mask (S, S) in a faceset, and return its name for an :class:`Edit`.

    Raises:
        InputError: If the folder of the masks is a link.
        OutputError: If it cannot be written.
    """
    _, data = cv2.imencode(".png", mask)
    png = data.tobytes()
    name = f"{hashlib.sha256(png).hexdigest()[:16]}.png"
    masks = _own(folder, MASKS)
    make_folder(masks)
    write_bytes(masks / name, png)
    return name


def read_mask(folder: Path, name: str, size: int) -> Painted:
    """Read a painted mask of a crop of ``size`` pixels.

    Raises:
        InputError: If it is missing, damaged or a link, or has another size.
    """
    path = _own(_own(folder, MASKS), name)
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"the painted mask {path} cannot be read: {error.strerror}") from error
    mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
    if mask is None or mask.shape != (size, size):
        raise InputError(
            f"the painted mask {path} is damaged or not {size} px square; undo the edit"
        )
    return np.asarray(mask, np.uint8)
