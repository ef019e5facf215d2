"""What a tracker has found so far, on disk, so that an interrupted conversion need not look again.

A JSON line a span, whose landmarks are kept bit for bit; the list grows as the tracker goes on.
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from faceswap.errors import InputError
from faceswap.faces.geometry import Box, Face
from faceswap.files import append_lines, drop_torn_line, parse_json, read_lines

Placed = tuple[int, Face]  # a frame's place within its span, and a face in it


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """One span of a video.

    Attributes:
        first: Index of its first frame.
        count: How many frames it has.
        joined: Whether the shot goes on from the span before.
        tracks: How many tracks there have been so far, with this span.
        faces: Its faces.
        before: Faces that were followed back from it into the span before.
    """

    first: int
    count: int
    joined: bool
    tracks: int
    faces: list[Placed]
    before: list[Placed]


class FaceLog:
    """Spans, and whom to swap, in the order in which both were found out.

    Attributes:
        entries: The spans so far.
        roles: What was decided for each track.
        distances: How far tracks are from the person preferred.
        origin: Index of the first frame of all.

    Raises:
        InputError: If the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: list[SpanRecord] = []
        self.targets: dict[int, int | None] = {}
        self.distances: dict[int, float] = {}
        self.origin = 0
        if path.is_file():
            drop_torn_line(path)
            for number, line in enumerate(read_lines(path), start=1):
                try:
                    self._take(parse_json(line))
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise InputError(
                        f"{path} line {number} is damaged ({error}), so this conversion cannot go "
                        f"on where it was stopped: delete {path.parent} to begin it again"
                    ) from error
        if self.entries:
            self.origin = self.entries[0].first

    def _take(self, record: dict[str, Any]) -> None:
        if "roles" in record:
            targets, distances = record["roles"].items(), record["distances"].items()
            self.targets |= {
                int(t): None if target is None else int(target) for t, target in targets
            }
            self.distances |= {int(track): float(distance) for track, distance in distances}
            return
        faces, before = ([_placed(item) for item in record[key]] for key in ("faces", "before"))
        first, count, tracks = (int(record[key]) for key in ("first", "count", "tracks"))
        self.entries.append(SpanRecord(first, count, bool(record["joined"]), tracks, faces, before))

    @property
    def end(self) -> int:
        """Index of the first frame of which nothing is known."""
        return self.entries[-1].first + self.entries[-1].count if self.entries else 0

    def since(self, index: int) -> Self:
        """Forget the spans that end before a frame, and give this list back."""
        self.entries = [entry for entry in self.entries if entry.first + entry.count > index]
        return self

    def add(self, entry: SpanRecord) -> None:
        """Append a span.

        Raises:
            OutputError: If the disk refuses.
        """
        record = {
            "first": entry.first, "count": entry.count, "joined": entry.joined,
            "tracks": entry.tracks, "faces": [_plain(item) for item in entry.faces],
            "before": [_plain(item) for item in entry.before],
        }  # fmt: skip
        append_lines(self._path, [json.dumps(record)], lasting=True)

    def decide(self, targets: dict[int, int | None], distances: dict[int, float]) -> None:
        """Append what is new among all that has been decided.

        Raises:
            OutputError: If the disk refuses.
        """
        if len(targets) == len(self.targets) and len(distances) == len(self.distances):
            return
        new = {track: target for track, target in targets.items() if track not in self.targets}
        far = {track: d for track, d in distances.items() if track not in self.distances}
        append_lines(self._path, [json.dumps({"roles": new, "distances": far})], lasting=True)
        self.targets |= new
        self.distances |= far


def _plain(item: Placed) -> list[Any]:
    place, face = item
    box = (face.box.left, face.box.top, face.box.right, face.box.bottom)
    landmarks = base64.b64encode(face.landmarks.astype("<f4").tobytes()).decode()
    return [place, face.track, float(face.score), *map(float, box), landmarks]


def _placed(item: list[Any]) -> Placed:
    place, track, score, *box, landmarks = item
    points = np.frombuffer(base64.b64decode(landmarks, validate=True), "<f4").reshape(68, 2)
    sides = [float(side) for side in box]
    if not np.isfinite(points).all() or not np.isfinite([score, *sides]).all():
        raise ValueError("a face has no place")
    face = Face(Box(*sides), float(score), points.astype(np.float32), int(track))
    return int(place), face
