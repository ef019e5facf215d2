"""Log of tracked faces on disk, so that an interrupted conversion resumes without detecting again.

The file grows as tracking proceeds. It has one JSON line per span, and lines with the decisions
about which tracks are swapped. Landmarks are stored exactly.
"""

import base64
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from faceswap.errors import InputError
from faceswap.faces.geometry import Box, Face
from faceswap.files import append_lines, drop_torn_line, parse_json, read_lines

Placed = tuple[int, Face]  # position of a frame within its span, and a face in that frame
Kept = tuple[int, tuple[int, ...]]  # index of a frame, and the tracks that are kept from it on


class Vote(NamedTuple):
    """What a face of a track says about the track's target.

    Attributes:
        frame: Index of the frame in which the vote was cast.
        track: The track.
        target: Target index; None means that the track is not to be swapped.
        sure: Whether the face shows well enough who it is.
        distance: Embedding distance to the nearest reference; infinite if there is none.
    """

    frame: int
    track: int
    target: int | None
    sure: bool
    distance: float = math.inf


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """One span of a video.

    Attributes:
        first: Index of the first frame.
        count: Number of frames.
        joined: Whether the previous span belongs to the same shot.
        tracks: Number of track numbers used in the video up to and including this span. Joined
            tracks give up a number, so there may be fewer tracks.
        faces: The faces of the span.
        before: Faces of this span that were tracked back into the previous one, with their
            positions in that one.
    """

    first: int
    count: int
    joined: bool
    tracks: int
    faces: list[Placed]
    before: list[Placed]


class FaceLog:
    """Log of spans and of the selector's decisions, in the order in which they were made.

    Attributes:
        entries: The spans that the file held when it was opened; :meth:`add` does not extend them.
        votes: What faces said about the targets of their tracks.
        distances: Embedding distance of a track to the preferred person, by track.
        kept: The tracks that were kept as the largest, from which frame on.
        origin: Index of the first frame that the file held when it was opened; 0 if it held none.

    Raises:
        InputError: If the file is damaged.
        OutputError: If the file ends with a torn line that cannot be cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.entries: list[SpanRecord] = []
        self.votes: list[Vote] = []
        self.distances: dict[int, float] = {}
        self.kept: list[Kept] = []
        self.origin = 0
        if path.is_file():
            drop_torn_line(path)
            for number, line in enumerate(read_lines(path), start=1):
                try:
                    self._load(parse_json(line))
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise InputError(
                        f"{path} line {number} is damaged ({error}), so this conversion cannot "
                        f"be resumed: delete {path.parent} to start over"
                    ) from error
        if self.entries:
            self.origin = self.entries[0].first

    def _load(self, record: dict[str, Any]) -> None:
        if "votes" in record:
            self.votes += [
                Vote(
                    int(frame), int(track), None if target is None else int(target), bool(sure),
                    math.inf if distance is None else float(distance),
                )
                for frame, track, target, sure, distance in record["votes"]
            ]  # fmt: skip
            self.distances |= {int(t): float(d) for t, d in record["distances"].items()}
            self.kept += [(int(frame), tuple(map(int, tracks))) for frame, tracks in record["kept"]]
            return
        faces, before = ([_from_json(item) for item in record[key]] for key in ("faces", "before"))
        first, count, tracks = (int(record[key]) for key in ("first", "count", "tracks"))
        self.entries.append(SpanRecord(first, count, bool(record["joined"]), tracks, faces, before))

    @property
    def end(self) -> int:
        """Index of the first frame after ``entries``; 0 if there are none."""
        return self.entries[-1].first + self.entries[-1].count if self.entries else 0

    def since(self, index: int) -> Self:
        """Drop the spans that end before a frame from ``entries``, and return this log."""
        self.entries = [entry for entry in self.entries if entry.first + entry.count > index]
        return self

    def add(self, entry: SpanRecord) -> None:
        """Append a span to the file.

        Raises:
            OutputError: If the log cannot be written.
        """
        record = {
            "first": entry.first, "count": entry.count, "joined": entry.joined,
            "tracks": entry.tracks, "faces": [_to_json(item) for item in entry.faces],
            "before": [_to_json(item) for item in entry.before],
        }  # fmt: skip
        append_lines(self._path, [json.dumps(record)], lasting=True)

    def decide(self, votes: list[Vote], distances: dict[int, float], kept: list[Kept]) -> None:
        """Append the decisions that are not in the log yet.

        Args:
            votes: All votes so far.
            distances: All distances to the preferred person so far, by track.
            kept: All choices of the largest tracks so far.

        Raises:
            OutputError: If the log cannot be written.
        """
        new = {
            "votes": [_vote_to_json(vote) for vote in votes[len(self.votes) :]],
            "distances": {t: d for t, d in distances.items() if t not in self.distances},
            "kept": kept[len(self.kept) :],
        }
        if not any(new.values()):
            return
        append_lines(self._path, [json.dumps(new)], lasting=True)
        self.votes, self.distances, self.kept = list(votes), dict(distances), list(kept)


def _vote_to_json(vote: Vote) -> list[Any]:
    return [*vote[:-1], vote.distance if math.isfinite(vote.distance) else None]


def _to_json(item: Placed) -> list[Any]:
    place, face = item
    box = (face.box.left, face.box.top, face.box.right, face.box.bottom)
    landmarks = base64.b64encode(face.landmarks.astype("<f4").tobytes()).decode()
    return [
        place,
        face.track,
        float(face.score),
        *map(float, box),
        face.placed_by,
        face.bridged,
        landmarks,
    ]


def _from_json(item: list[Any]) -> Placed:
    place, track, score, *box, placed_by, bridged, landmarks = item
    points = np.frombuffer(base64.b64decode(landmarks, validate=True), "<f4").reshape(68, 2)
    sides = [float(side) for side in box]
    if not np.isfinite(points).all() or not np.isfinite([score, *sides]).all():
        raise ValueError("a coordinate or a score is not finite")
    box_and_score = Box(*sides), float(score)
    face = Face(
        *box_and_score, points.astype(np.float32), int(track),
        placed_by=str(placed_by), bridged=bool(bridged),
    )  # fmt: skip
    return int(place), face
