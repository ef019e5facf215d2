"""Follow faces through a video: found in one frame of a span, followed from there both ways.

A span is a few frames without a cut between them. The faces of its middle frame are detected and
followed to its ends by the landmark model, which is seeded with where they just were. Spans are
independent, so processes share them; where two meet, their faces are joined, and a face that one of
them missed is followed into it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count, repeat

import cv2
import numpy as np

from faceswap.config import DetectorName
from faceswap.faces.detection import (
    LANDMARK_TRACKERS,
    VIDEO_DETECTORS,
    LandmarkTracker,
    resolve_detector,
)
from faceswap.faces.geometry import Box, Face, FrameFaces
from faceswap.faces.pool import DetectorPool
from faceswap.faces.smoothing import TrackValues, smooth_over_time
from faceswap.faces.tracklog import FaceLog, Placed, SpanRecord
from faceswap.media.frame import Frame
from faceswap.types import Image

SPAN_FRAMES = 16  # frames
THUMB_SIZE = (32, 18)  # pixels of a frame in which a cut is looked for
# Mean differences of two frames' thumbs, of 255, beyond which the shot has changed: pixel by pixel,
# or pixel by pixel and of all pixels sorted by their light. A quick pan moves 12 and relights 2.
CUT, CUT_MOVED, CUT_RELIT = 30.0, 10.0, 5.0
SAME_FACE_DISTANCE = (
    0.1  # of a face's side: how far it may move within two frames to count as hardly moving
)
SAME_FACE_IOU = 0.4  # intersection over union of the boxes of one face found twice


@dataclass(slots=True, eq=False)
class _Span:
    """Frames of one shot; ``joined``: it goes on where the span before ends.

    ``images`` are what is searched for faces.
    """

    joined: bool
    frames: list[Frame] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)


def track_faces(
    frames: Iterable[Frame],
    workers: DetectorPool,
    detector: DetectorName,
    smooth: bool = True,
    log: FaceLog | None = None,
) -> Iterator[FrameFaces]:
    """Yield every frame with its faces, largest first, each with the number of its track.

    Args:
        frames: Of one video, in order; from the first of the log's spans on, if it has any.
        workers: Where to look for faces.
        detector: A key of DETECTORS.
        smooth: Whether to steady the landmarks over time.
        log: What an interrupted run has found; what this one finds is added.
    """
    stride = 2 if smooth else 1  # what is steadied needs no face of its own in every frame
    found = _tracked(frames, workers, resolve_detector(detector, video=True), stride, log)
    return smooth_over_time(found, _landmarks, _with_landmarks) if smooth else found


def _tracked(
    frames: Iterable[Frame], workers: DetectorPool, detector: DetectorName, stride: int,
    log: FaceLog | None,
) -> Iterator[FrameFaces]:  # fmt: skip
    def arguments(span: _Span) -> tuple[DetectorName, list[Image], float, int]:
        images, span.images = span.images, []
        return detector, images, workers.min_score, stride

    joiner = _Joiner(detector, log)
    known = list(log.entries) if log else []
    spans = _spans(frames, detector, [entry.count for entry in known])
    for entry in known:
        yield from joiner.repeat(next(spans), entry)
    for span, faces in workers.each(spans, detect_in_span, arguments):
        yield from joiner.add(span, faces)
    yield from joiner.before


def _search_image(frame: Frame, detector: DetectorName) -> Image:
    """What a detector looks at: for HOG without colour, a third of the data, and HOG is quicker."""
    return frame.gray() if detector == "hog" else frame.image


def _spans(frames: Iterable[Frame], detector: DetectorName, known: list[int]) -> Iterator[_Span]:
    """Cut a video into spans, at the latest where the shot changes; ``known``: first lengths."""
    lengths = chain(known, repeat(SPAN_FRAMES))
    span, length = _Span(joined=False), next(lengths)
    before: Image | None = None
    for frame in frames:
        image = _search_image(frame, detector)
        thumb = _thumb(image)
        cut = before is not None and _differ(before, thumb)
        before = thumb
        if span.frames and (cut or len(span.frames) == length):
            yield span
            span, length = _Span(joined=not cut), next(lengths)
        span.frames.append(frame)
        span.images.append(image)
    if span.frames:
        yield span


def cuts(frames: Iterable[Frame]) -> Iterator[bool]:
    """For each frame of a video, whether a new shot begins with it."""
    before: Image | None = None
    for frame in frames:
        thumb = _thumb(frame.gray())
        yield before is not None and _differ(before, thumb)
        before = thumb


def _thumb(image: Image) -> Image:
    step = max(min(image.shape[0] // THUMB_SIZE[1], image.shape[1] // THUMB_SIZE[0]) // 4, 1)
    sparse = np.ascontiguousarray(image[::step, ::step])  # 16 pixels for one of the thumb will do
    return np.asarray(cv2.resize(sparse, THUMB_SIZE, interpolation=cv2.INTER_AREA), np.uint8)


def _differ(before: Image, after: Image) -> bool:
    """Whether two thumbs show different shots: other things in other light, not the same moved."""
    moved = float(np.abs(after.astype(int) - before).mean())
    relit = float(np.abs(np.sort(after, axis=None).astype(int) - np.sort(before, axis=None)).mean())
    return moved > CUT or (moved > CUT_MOVED and relit > CUT_RELIT)


def detect_in_span(
    detector: DetectorName, images: list[Image], min_score: float, stride: int
) -> list[list[Face]]:
    """The faces of each of a span's frames, numbered within the span.

    The middle frame is searched first, then from there outwards those that show no face yet.
    """
    found: list[list[Face]] = [[] for _ in images]
    numbers = count()
    middle = len(images) // 2
    for start in sorted(range(len(images)), key=lambda index: abs(index - middle)):
        if found[start]:
            continue
        for detected in VIDEO_DETECTORS[detector](images[start], min_score):
            face = replace(detected, track=next(numbers))
            found[start].append(face)
            for indices in (range(start + 1, len(images)), range(start - 1, -1, -1)):
                landmark_tracker = LANDMARK_TRACKERS[detector]
                for index, moved in _track_through(
                    face, images.__getitem__, indices, landmark_tracker, stride
                ):
                    if same(moved, found[index]):
                        break
                    found[index].append(moved)
    return found


def _track_through(
    face: Face,
    image_at: Callable[[int], Image],
    indices: Sequence[int],
    landmark_tracker: LandmarkTracker,
    stride: int = 1,
) -> Iterator[tuple[int, Face]]:
    """The face in one frame after the other until it is lost.

    With a stride of 2 only every other frame is looked at, as long as the face hardly moves: in
    the frame between it is half way.
    """
    place = 0
    while place < len(indices):
        if stride == 2 and place + 1 < len(indices):
            far = landmark_tracker(image_at(indices[place + 1]), face)
            if far and _is_near(face.box, far.box):
                yield indices[place], _between(face, far)
                yield indices[place + 1], far
                face, place = far, place + 2
                continue
        moved = landmark_tracker(image_at(indices[place]), face)
        if moved is None:
            return
        yield indices[place], moved
        face, place = moved, place + 1


def _is_near(one: Box, other: Box) -> bool:
    side = one.right - one.left
    moves = (other.left - one.left, other.top - one.top, other.right - one.right,
             other.bottom - one.bottom)  # fmt: skip
    return max(map(abs, moves)) < SAME_FACE_DISTANCE * side


def _between(one: Face, other: Face) -> Face:
    """A face half way between two."""
    sides = zip(*((f.box.left, f.box.top, f.box.right, f.box.bottom) for f in (one, other)),
                strict=True)  # fmt: skip
    box = Box(*((a + b) / 2 for a, b in sides))
    middle = ((one.landmarks + other.landmarks) / 2).astype(np.float32)
    return replace(other, box=box, landmarks=middle)


class _Joiner:
    """Numbers tracks through the whole video; follows faces over the border of two spans."""

    def __init__(self, detector: DetectorName, log: FaceLog | None) -> None:
        self._detector, self._log = detector, log
        self._tracks = 0
        self.before: list[FrameFaces] = []

    def add(self, span: _Span, faces: list[list[Face]]) -> Iterator[FrameFaces]:
        """Take the next span and yield the one before."""
        within = sorted({face.track for some in faces for face in some})
        new = dict(zip(within, count(self._tracks), strict=False))
        self._tracks += len(within)
        now = [
            (frame, [replace(face, track=new[face.track]) for face in some])
            for frame, some in zip(span.frames, faces, strict=True)
        ]
        joined = span.joined and self.before
        back = _join_at_border(self.before, now, self._detector) if joined else []
        if self._log:
            placed = [(place, face) for place, (_, some) in enumerate(now) for face in some]
            first = span.frames[0].index
            self._log.add(SpanRecord(first, len(now), span.joined, self._tracks, placed, back))
        yield from self._put(back, now)

    def repeat(self, span: _Span, entry: SpanRecord) -> Iterator[FrameFaces]:
        """Take a span whose faces are known, and yield the one before."""
        self._tracks = entry.tracks
        now: list[FrameFaces] = [(frame, []) for frame in span.frames]
        for place, face in entry.faces:
            now[place][1].append(face)
        yield from self._put(entry.before if self.before else [], now)

    def _put(self, back: list[Placed], now: list[FrameFaces]) -> Iterator[FrameFaces]:
        for place, face in back:
            self.before[place][1].append(face)
        before, self.before = self.before, now
        yield from before


def _join_at_border(
    before: list[FrameFaces], now: list[FrameFaces], detector: DetectorName
) -> list[Placed]:
    """Give faces that go on their earlier number, and follow those that one side missed.

    Returns:
        The faces followed back into ``before``, which is left as it is.
    """
    (_, last), (_, first) = before[-1], now[0]
    met: dict[int, Face] = {}
    for face in first:
        free = [other for other in last if other not in met.values()]
        if other := same(face, free):
            met[face.track] = other
    for position, (frame, faces) in enumerate(now):
        renamed = [replace(f, track=met[f.track].track) if f.track in met else f for f in faces]
        now[position] = frame, renamed
    known = {face.track for face in now[0][1]}
    for face in last:
        if face.track not in known:
            for place, moved in _beyond(face, now, detector):
                now[place][1].append(moved)
    back: list[Placed] = []
    for face in now[0][1]:
        if face.track not in {other.track for other in last}:
            beyond = _beyond(face, before[::-1], detector)
            back += [(len(before) - 1 - place, moved) for place, moved in beyond]
    return back


def _beyond(face: Face, found: list[FrameFaces], detector: DetectorName) -> Iterator[Placed]:
    """The face in frames in which it was not found, as long as no other is there."""

    def image_at(place: int) -> Image:
        return _search_image(found[place][0], detector)

    for place, moved in _track_through(
        face, image_at, range(len(found)), LANDMARK_TRACKERS[detector]
    ):
        if same(moved, found[place][1]):
            return
        yield place, moved


def same(face: Face, others: list[Face]) -> Face | None:
    """The one of ``others`` that is this face, if any: the one that overlaps it most."""
    best = max(others, key=lambda other: _overlap(face.box, other.box), default=None)
    return best if best and _overlap(face.box, best.box) > SAME_FACE_IOU else None


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(width, 0.0) * max(height, 0.0)
    both = sum((b.right - b.left) * (b.bottom - b.top) for b in (one, other))
    return shared / max(both - shared, 1e-9)


def _landmarks(item: FrameFaces) -> TrackValues:
    return {face.track: face.landmarks for face in item[1]}


def _with_landmarks(item: FrameFaces, smoothed: TrackValues) -> FrameFaces:
    frame, faces = item
    moved = [replace(face, landmarks=smoothed[face.track].astype(np.float32)) for face in faces]
    return frame, sorted(moved, key=lambda face: face.box.left - face.box.right)
