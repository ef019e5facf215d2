"""Find runs of frames that may look wrong in what a conversion noted about each frame."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from faceswap.faces.geometry import overlap
from faceswap.swapping.records import SAME_PLACE, FaceRecord, FrameRecord
from faceswap.types import Count

Kind = Literal[
    "missing frame", "lost face", "no face", "no match", "identity flicker", "sudden jump",
    "mask anomaly", "low score", "small face", "extreme pose",
]  # fmt: skip
# How serious a frame of each kind is: the original person shows, or the picture jumps, or it may
# merely look worse.
SEVERITY: dict[Kind, float] = {
    "lost face": 10, "identity flicker": 8, "sudden jump": 6, "mask anomaly": 5, "missing frame": 4,
    "no match": 3, "extreme pose": 2, "low score": 2, "small face": 1, "no face": 1,
}  # fmt: skip
SERIOUS = 4.0  # severity of a frame from which the original may show or the picture jumps
BRIEF = 24  # frames; a face that is away for longer has left
NEIGHBOURS = 24  # frames before and as many after, with which a frame is compared
MIN_NEIGHBOURS = 6  # of them, on one side
AREA_CHANGE = 0.3  # share of the usual area pasted
JUMP = 0.12  # widths of the face beside the middle between the frames before and after
# A frame's certainty that is low, and by how much it is lower than usual where the face is doubted
# only for a while. Frontal faces have 0.92 to 0.94, profiles 0.8 to 0.9.
LOW_SCORE, LOWER_SCORE = 0.8, 0.025
SMALL = 40.0  # pixels, width of the box
WIDE_YAW, WIDE_PITCH = 60.0, 40.0  # degrees
GAP = 1.5  # usual frame lengths
STEADY = 0.9  # share of frames of the usual length if a longer one is a gap

Is = Callable[[FaceRecord], bool]


@dataclass(frozen=True, slots=True)
class Trouble:
    """A run of frames that may look wrong."""

    kind: Annotated[
        Kind,
        Meta(
            description="missing frame: the footage skips a time or a number. lost face: a swapped "
            "face is not found between two frames in which it is. no face: no face is found. no "
            "match: faces are found, but none is chosen. identity flicker: the face at one place "
            "changes back and forth. sudden jump: a face leaves its path for one frame. mask "
            "anomaly: much more or less of a face is pasted than in the frames around. low score: "
            "the frame hardly shows the face. small face, extreme pose: little can be expected of "
            "the swap."
        ),
    ]
    first: Annotated[Count, Meta(description="The first frame: its index in the source.")]
    last: Annotated[Count, Meta(description="The last frame.")]
    severity: Annotated[float, Meta(description="For sorting; higher is worse.")]

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.last - self.first + 1


def is_serious(kind: Kind) -> bool:
    """Return whether the original may show in frames of a kind, or the picture jumps."""
    return SEVERITY[kind] >= SERIOUS


def troubles_in(records: Sequence[FrameRecord], numbers: Sequence[int] = ()) -> list[Trouble]:
    """Find the troubles of consecutive frames, the most serious first.

    Args:
        records: What was noted about each frame, in order.
        numbers: The numbers of an image sequence's files, whose gaps are missing frames.
    """
    if not records:
        return []
    marked: dict[Kind, set[int]] = {
        "missing frame": set(_after_gaps(records, numbers)),
        "lost face": set(_lost(records)),
        "no face": {at for at, record in enumerate(records) if not record.faces},
        "no match": {at for at, record in enumerate(records) if _is_unmatched(record)},
        "identity flicker": set(_flickering(records)),
        "sudden jump": set(_jumping(records)),
        "mask anomaly": set(_of_strange_area(records)),
        "low score": set(_doubtful(records)),
        "small face": set(_with_face(records, lambda face: face.width < SMALL)),
        "extreme pose": set(
            _with_face(records, lambda f: abs(f.yaw) > WIDE_YAW or abs(f.pitch) > WIDE_PITCH)
        ),
    }
    marked["no face"] -= marked["lost face"]
    found = [
        Trouble(kind, records[first].index, records[last].index,
                round(SEVERITY[kind] * (last - first + 1) ** 0.5, 1))
        for kind, places in marked.items()
        for first, last in _runs(sorted(places))
    ]  # fmt: skip
    return sorted(found, key=lambda trouble: (-trouble.severity, trouble.first))


def _runs(places: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each run of successive numbers."""
    for _, group in groupby(enumerate(places), key=lambda item: item[1] - item[0]):
        run = [place for _, place in group]
        yield run[0], run[-1]


def _with_face(records: Sequence[FrameRecord], is_bad: Is) -> Iterator[int]:
    for at, record in enumerate(records):
        if any(face.fate == "swapped" and is_bad(face) for face in record.faces):
            yield at


def _is_unmatched(record: FrameRecord) -> bool:
    return bool(record.faces) and all(
        face.fate in ("not chosen", "another person") for face in record.faces
    )


def _doubtful(records: Sequence[FrameRecord]) -> Iterator[int]:
    """Yield the places at which a face can hardly be seen, or much worse than around them."""
    for path in _by_place(records):
        certain = np.array([1.0 if face.certainty is None else face.certainty for _, face in path])
        for number, (at, face) in enumerate(path):
            lowest = min(_around(certain, number), default=0.0)
            if face.fate == "swapped" and certain[number] < max(LOW_SCORE, lowest - LOWER_SCORE):
                yield at


def _after_gaps(records: Sequence[FrameRecord], numbers: Sequence[int]) -> Iterator[int]:
    """Yield the places of frames that come later than they should."""
    if numbers:
        yield from (at for at, (a, b) in enumerate(pairwise(numbers), start=1) if b - a > 1)
        return
    steps = np.diff([record.time for record in records])
    if not len(steps):
        return
    usual = float(np.median(steps))
    if usual > 0 and np.mean(np.abs(steps - usual) < 0.25 * usual) >= STEADY:
        yield from (int(at) + 1 for at in np.flatnonzero(steps > GAP * usual))


def _lost(records: Sequence[FrameRecord]) -> Iterator[int]:
    """Yield the places at which a swapped face is briefly not found."""
    last: list[tuple[int, FaceRecord]] = []  # swapped faces seen lately, the latest place of each
    for at, record in enumerate(records):
        for face in record.faces:
            if face.fate != "swapped":
                continue
            same = [item for item in last if overlap(item[1].place, face.place) > SAME_PLACE]
            before = max((place for place, _ in same), default=at)
            if 1 < at - before <= BRIEF:
                between = range(before + 1, at)
                # If somebody else is in that place meanwhile, nothing was lost.
                yield from (p for p in between if not _is_occupied(records[p], face))
            last = [item for item in last if item not in same and at - item[0] <= BRIEF]
            last.append((at, face))


def _is_occupied(record: FrameRecord, face: FaceRecord) -> bool:
    return record.face_at(face.place) is not None


def _flickering(records: Sequence[FrameRecord]) -> Iterator[int]:
    """Yield the places at which the face in one place changes for a moment.

    What changes is whether it is swapped, whose face it gets, its track, or how it looks.
    """
    for at in range(1, len(records)):
        for face in records[at].faces:
            yield from range(max(at - (face.away or 0), 0), at)
            before = records[at - 1].face_at(face.place)
            if before is None or _who(before) == _who(face):
                continue
            if "outside" in (before.fate, face.fate):  # the user's own choice
                continue
            for later in range(at + 1, min(at + BRIEF, len(records))):
                after = records[later].face_at(face.place)
                if after is None:
                    break
                if _who(after) == _who(before) or (
                    _who(after) != _who(face) and after.track != face.track
                ):
                    yield from range(at, later)
                    break


def _who(face: FaceRecord) -> tuple[str, int, int]:
    return face.fate, face.target, face.track


def _by_track(records: Sequence[FrameRecord]) -> Iterator[list[tuple[int, FaceRecord]]]:
    """Yield the swapped faces of each track with their places."""
    tracks: dict[int, list[tuple[int, FaceRecord]]] = defaultdict(list)
    for at, record in enumerate(records):
        for face in record.faces:
            if face.fate in ("swapped", "hidden") and face.track >= 0:
                tracks[face.track].append((at, face))
    yield from tracks.values()


def _by_place(records: Sequence[FrameRecord]) -> Iterator[list[tuple[int, FaceRecord]]]:
    """Yield the faces that follow each other in one place, whatever their tracks, with the frames.

    A fault in the picture often looks like a cut, at which tracks end.
    """
    paths: list[list[tuple[int, FaceRecord]]] = []
    for at, record in enumerate(records):
        yield from (path for path in paths if at - path[-1][0] > BRIEF)
        paths = [path for path in paths if at - path[-1][0] <= BRIEF]
        for face in record.faces:
            if face.fate not in ("swapped", "hidden"):
                continue
            near = [
                path for path in paths
                if path[-1][0] < at and overlap(path[-1][1].place, face.place) > SAME_PLACE
            ]  # fmt: skip
            if near:
                max(near, key=lambda path: path[-1][0]).append((at, face))
            else:
                paths.append([(at, face)])
    yield from paths


def _around(values: npt.NDArray[np.float64], number: int) -> list[float]:
    """Return the medians of the values before and after one; without a side that is too short."""
    sides = values[max(number - NEIGHBOURS, 0) : number], values[number + 1 :][:NEIGHBOURS]
    return [float(np.median(side)) for side in sides if len(side) >= MIN_NEIGHBOURS]


def _jumping(records: Sequence[FrameRecord]) -> Iterator[int]:
    for track in _by_track(records):
        off: dict[int, float] = defaultdict(float)  # distance from the path, in widths, by place
        for (a, before), (b, face), (c, after) in zip(track, track[1:], track[2:], strict=False):
            if c - a == 2:
                middle = np.mean([_center(before), _center(after)], axis=0)
                away = float(np.linalg.norm(np.subtract(_center(face), middle)))
                off[b] = away / max(face.width, 1.0)
        yield from (
            place for place, away in list(off.items())
            if away > JUMP and away >= max(off[place - 1], off[place + 1])
        )  # fmt: skip


def _center(face: FaceRecord) -> tuple[float, float]:
    left, top, right, bottom = face.box
    return (left + right) / 2, (top + bottom) / 2


def _of_strange_area(records: Sequence[FrameRecord]) -> Iterator[int]:
    """Yield the places at which much more or less of a face is pasted than around them."""
    for path in _by_place(records):
        areas = np.array([face.area or 0.0 for _, face in path])
        for number, (at, _) in enumerate(path):
            usual = _around(areas, number)
            if usual and not (
                (1 - AREA_CHANGE) * min(usual) <= areas[number] <= (1 + AREA_CHANGE) * max(usual)
            ):
                yield at
