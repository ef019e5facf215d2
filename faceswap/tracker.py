"""Follow faces through a video: found in one frame of a segment, followed from there both ways.

A segment is a few frames without a cut between them. The faces of its middle frame are detected and
followed to its ends by the landmark model, which is seeded with where they just were. Segments are
independent, so processes share them; where two meet, their faces are joined, and a face that one of
them missed is followed into it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import cv2
import numpy as np

from faceswap.aligner import FINDERS, FOLLOWERS, FaceFinder, Follower, resolve_finder
from faceswap.config import FinderName
from faceswap.smoothing import Values, steadied
from faceswap.types import Box, Face, Found, Frame, Image

SEGMENT = 8  # frames
THUMB = (32, 18)  # pixels of a frame in which a cut is looked for
CUT = 30.0  # mean difference of two frames' thumbs, of 255, beyond which the shot has changed
SAME = 0.4  # intersection over union of the boxes of one face found twice


@dataclass(slots=True, eq=False)
class _Segment:
    """Frames of one shot; ``joined``: it goes on where the segment before ends."""

    frames: list[Frame]
    joined: bool


def follow(
    frames: Iterable[Frame], workers: FaceFinder, finder: FinderName, smooth: bool = True
) -> Iterator[Found]:
    """Yield every frame with its faces, largest first, each with the number of its track.

    Args:
        frames: Of one video, in order.
        workers: Where to look for faces.
        finder: A key of FINDERS.
        smooth: Whether to steady the landmarks over time.
    """
    name = resolve_finder(finder, video=True)
    gray = name == "hog"  # a third of the data to pass on, and HOG is quicker

    def arguments(segment: _Segment) -> tuple[FinderName, list[Image], float]:
        images = [_gray(f.image) if gray else f.image for f in segment.frames]
        return name, images, workers.min_score

    segments = workers.each(_segments(frames), find_in_segment, arguments)
    found = _join(segments, FOLLOWERS[name])
    return steadied(found, _landmarks, _with_landmarks) if smooth else found


def _gray(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def _segments(frames: Iterable[Frame]) -> Iterator[_Segment]:
    """Cut a video into segments, at the latest where the shot changes."""
    segment = _Segment([], joined=False)
    before: Image | None = None
    for frame in frames:
        thumb = np.asarray(cv2.resize(frame.image, THUMB, interpolation=cv2.INTER_AREA), np.uint8)
        cut = before is not None and float(np.abs(thumb.astype(int) - before).mean()) > CUT
        before = thumb
        if segment.frames and (cut or len(segment.frames) == SEGMENT):
            yield segment
            segment = _Segment([], joined=not cut)
        segment.frames.append(frame)
    if segment.frames:
        yield segment


def find_in_segment(finder: FinderName, images: list[Image], min_score: float) -> list[list[Face]]:
    """The faces of each of a segment's frames, numbered within the segment.

    The middle frame is searched first, then from there outwards those that show no face yet.
    """
    found: list[list[Face]] = [[] for _ in images]
    numbers = count()
    middle = len(images) // 2
    for start in sorted(range(len(images)), key=lambda index: abs(index - middle)):
        if found[start]:
            continue
        for detected in FINDERS[finder](images[start], min_score):
            face = replace(detected, track=next(numbers))
            found[start].append(face)
            for indices in (range(start + 1, len(images)), range(start - 1, -1, -1)):
                for index, moved in _followed(face, images, indices, FOLLOWERS[finder]):
                    if _same(moved, found[index]):
                        break
                    found[index].append(moved)
    return found


def _followed(
    face: Face, images: Sequence[Image], indices: Iterable[int], follower: Follower
) -> Iterator[tuple[int, Face]]:
    """The face in one frame after the other until it is lost."""
    for index in indices:
        moved = follower(images[index], face)
        if moved is None:
            return
        yield index, moved
        face = moved


def _join(
    found: Iterable[tuple[_Segment, list[list[Face]]]], follower: Follower
) -> Iterator[Found]:
    """Number tracks through the whole video; follow faces over the border of two segments."""
    numbers = count()
    before: list[Found] = []
    for segment, faces in found:
        within = sorted({face.track for some in faces for face in some})
        new = dict(zip(within, numbers, strict=False))
        now = [
            (frame, [replace(face, track=new[face.track]) for face in some])
            for frame, some in zip(segment.frames, faces, strict=True)
        ]
        if segment.joined and before:
            _join_at_border(before, now, follower)
        yield from before
        before = now
    yield from before


def _join_at_border(before: list[Found], now: list[Found], follower: Follower) -> None:
    """Give faces that go on their earlier number, and follow those that one side missed."""
    (_, last), (_, first) = before[-1], now[0]
    met: dict[int, Face] = {}
    for face in first:
        free = [other for other in last if other not in met.values()]
        if other := _same(face, free):
            met[face.track] = other
    for position, (frame, faces) in enumerate(now):
        renamed = [replace(f, track=met[f.track].track) if f.track in met else f for f in faces]
        now[position] = frame, renamed
    known = {face.track for face in now[0][1]}
    for face in last:
        if face.track not in known:
            _extend(face, now, follower)
    for face in now[0][1]:
        if face.track not in {other.track for other in last}:
            _extend(face, before[::-1], follower)


def _extend(face: Face, found: list[Found], follower: Follower) -> None:
    """Follow a face into frames in which it was not found, as long as no other is there."""
    images = [frame.image for frame, _ in found]
    for index, moved in _followed(face, images, range(len(images)), follower):
        faces = found[index][1]
        if _same(moved, faces):
            return
        faces.append(moved)


def _same(face: Face, others: list[Face]) -> Face | None:
    """The one of ``others`` that is this face, if any: the one that overlaps it most."""
    best = max(others, key=lambda other: _overlap(face.box, other.box), default=None)
    return best if best and _overlap(face.box, best.box) > SAME else None


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(width, 0.0) * max(height, 0.0)
    both = sum((b.right - b.left) * (b.bottom - b.top) for b in (one, other))
    return shared / max(both - shared, 1e-9)


def _landmarks(item: Found) -> Values:
    return {face.track: face.landmarks for face in item[1]}


def _with_landmarks(item: Found, steady: Values) -> Found:
    frame, faces = item
    moved = [replace(face, landmarks=steady[face.track].astype(np.float32)) for face in faces]
    return frame, sorted(moved, key=lambda face: face.box.left - face.box.right)
