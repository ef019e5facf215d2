"""Track faces through a video: detect them in the middle of each span, then track them both ways.

A span is a few consecutive frames without a cut. Faces are detected in its middle frame, and the
landmark model tracks them to both ends, each time starting from the position in the neighbouring
frame. Some of the frames that then still have no face are searched as well. Spans are independent,
so worker processes handle them in parallel. At the border of two spans of the same shot, the tracks
are joined, and a face that one span missed is tracked into it. A track ends where another person
takes the place, and short gaps in it are filled.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import chain, count, repeat

import cv2
import numpy as np

from faceswap.arrays import Image
from faceswap.faces.detection import DetectorSpec, FrameView
from faceswap.faces.geometry import Box, Face, FrameFaces, centers_apart, overlap
from faceswap.faces.landmarks import LandmarkTracker
from faceswap.faces.pool import DetectorPool
from faceswap.media.frame import Frame
from faceswap.tracking.appearance import Look
from faceswap.tracking.smoothing import TrackValues, smooth_over_time
from faceswap.tracking.tracklog import FaceLog, Placed, SpanRecord

SPAN_FRAMES = 16  # maximum length of a span
SEARCH_EVERY = 4  # frames between those of a span that are searched if no face is tracked into them
THUMB_SIZE = (32, 18)  # width and height of the thumbnails that are compared to find cuts
# Shot-cut thresholds on thumbnails (0-255). A cut is a mean absolute difference above CUT, or one
# above CUT_MOVED together with a mean difference of the sorted pixels (a histogram distance) above
# CUT_RELIT. In a fast pan the two differences are about 12 and 2.
CUT, CUT_MOVED, CUT_RELIT = 30.0, 10.0, 5.0
SAME_FACE_DISTANCE = 0.1  # box sides; a face that moves less over two frames is nearly still
SAME_FACE_IOU = 0.4  # intersection over union above which two boxes show the same face
MAX_GAP = 12  # frames in which a face may be lost without ending its track
GAP_JUMP, GAP_GROWTH = 0.6, 1.4  # how far it may move meanwhile, in box sides, and how much grow
LOOKS_KEPT = 3  # spans back to which the looks of a track are compared, for slow dissolves


@dataclass(slots=True, eq=False)
class _Span:
    """Consecutive frames of one shot.

    Attributes:
        joined: Whether the previous span belongs to the same shot; False for the first span.
        frames: The frames.
        grays: Their grey levels, (H, W) each.
    """

    joined: bool
    frames: list[Frame] = field(default_factory=list)
    grays: list[Image] = field(default_factory=list)

    def views(self, spec: DetectorSpec) -> list[FrameView]:
        """Return what the detector needs to see of the frames, and forget their grey levels."""
        middle = len(self.frames) // 2
        views = [
            spec.view(frame, gray, at == middle, (at - middle) % SEARCH_EVERY == 0)
            for at, (frame, gray) in enumerate(zip(self.frames, self.grays, strict=True))
        ]
        self.grays = []
        return views


def track_faces(
    frames: Iterable[Frame],
    workers: DetectorPool,
    spec: DetectorSpec,
    smooth: bool = True,
    log: FaceLog | None = None,
) -> Iterator[FrameFaces]:
    """Yield every frame with its faces, each with its track number.

    Args:
        frames: The frames of one video, in order. If the log has spans, the first frame must be
            that of the log's first span.
        workers: The processes that detect and track.
        spec: The detector and its landmark model.
        smooth: Whether to smooth the landmarks over time. If so, the faces of each frame are
            sorted, largest first; otherwise their order is arbitrary.
        log: Spans of an interrupted run, which are reused; new spans are appended.

    Raises:
        InputError, SettingsError: If the detector or the landmark model cannot be used; see
            :meth:`DetectorSpec.checked` and :meth:`DetectorSpec.detect`.
        DeviceError: If a worker process is killed.
        OutputError: If the log cannot be written.
    """
    stride = 2 if smooth else 1  # smoothing hides that nearly still faces skip every second frame
    found = _tracked(frames, workers, spec.checked(), stride, log)
    return smooth_over_time(found, _landmarks, _with_landmarks) if smooth else found


def _tracked(
    frames: Iterable[Frame], workers: DetectorPool, spec: DetectorSpec, stride: int,
    log: FaceLog | None,
) -> Iterator[FrameFaces]:  # fmt: skip
    def arguments(span: _Span) -> tuple[DetectorSpec, list[FrameView], float, int]:
        return spec, span.views(spec), workers.min_score, stride

    joiner = _TrackJoiner(spec, log)
    known = list(log.entries) if log else []
    spans = _spans(frames, [entry.count for entry in known])
    for entry in known:
        yield from joiner.repeat(next(spans), entry)
    detected = (
        ((span, detect_in_span(*arguments(span))) for span in spans)
        if spec.is_own_object
        else workers.map(spans, detect_in_span, arguments)
    )
    for span, faces in detected:
        yield from joiner.add(span, faces)
    yield from joiner.before


def _spans(frames: Iterable[Frame], known: list[int]) -> Iterator[_Span]:
    """Split a video into spans that never cross a cut.

    Args:
        frames: The frames of the video.
        known: Lengths of the first spans, from the log of an interrupted run.
    """
    lengths = chain(known, repeat(SPAN_FRAMES))
    span, length = _Span(joined=False), next(lengths)
    before: Image | None = None
    for frame in frames:
        gray = frame.gray()
        thumb = _thumbnail(gray)
        cut = before is not None and _is_cut(before, thumb)
        before = thumb
        if span.frames and (cut or len(span.frames) == length):
            yield span
            span, length = _Span(joined=not cut), next(lengths)
        span.frames.append(frame)
        span.grays.append(gray)
    if span.frames:
        yield span


def cuts(frames: Iterable[Frame]) -> Iterator[bool]:
    """Yield for each frame of a video whether a cut precedes it; False for the first frame."""
    before: Image | None = None
    for frame in frames:
        thumb = _thumbnail(frame.gray())
        yield before is not None and _is_cut(before, thumb)
        before = thumb


def _thumbnail(image: Image) -> Image:
    step = max(min(image.shape[0] // THUMB_SIZE[1], image.shape[1] // THUMB_SIZE[0]) // 4, 1)
    sparse = np.ascontiguousarray(image[::step, ::step])  # 4 x 4 per thumbnail pixel are enough
    return np.asarray(cv2.resize(sparse, THUMB_SIZE, interpolation=cv2.INTER_AREA), np.uint8)


def _is_cut(before: Image, after: Image) -> bool:
    """Return whether thumbnails of successive frames show two shots, rather than one in motion."""
    moved = float(np.abs(after.astype(int) - before).mean())
    relit = float(np.abs(np.sort(after, axis=None).astype(int) - np.sort(before, axis=None)).mean())
    return moved > CUT or (moved > CUT_MOVED and relit > CUT_RELIT)


def detect_in_span(
    spec: DetectorSpec, views: list[FrameView], min_score: float, stride: int
) -> list[list[Face]]:
    """Detect and track the faces of a span; track numbers are local to the span.

    The middle frame is searched first. Searchable frames that still have no face are then searched
    from the middle outwards.

    Args:
        spec: The detector.
        views: The frames.
        min_score: Minimum score of a detection.
        stride: 1 tracks every face into each frame. 2 skips every second frame for a face that is
            nearly still and interpolates it there.

    Returns:
        The faces of each frame, in no particular order.

    Raises:
        InputError, SettingsError: See :meth:`DetectorSpec.detect`.
    """
    found: list[list[Face]] = [[] for _ in views]
    numbers = count()
    middle = len(views) // 2

    def gray_at(index: int) -> Image:
        return views[index].gray

    for start in sorted(range(len(views)), key=lambda index: abs(index - middle)):
        if found[start] or not views[start].searchable:
            continue
        for detected in spec.detect_in_video(views[start], min_score):
            face = replace(detected, track=next(numbers))
            found[start].append(face)
            for indices in (range(start + 1, len(views)), range(start - 1, -1, -1)):
                tracker, gray = spec.tracker(), gray_at(start)
                for index, moved in _track_through(gray, face, gray_at, indices, tracker, stride):
                    if same(moved, found[index]):
                        break
                    found[index].append(moved)
    filled, numbers_of = fill_gaps(found, gray_at)
    for index, face in filled:
        found[index].append(face)
    return [[renumbered(face, numbers_of) for face in faces] for faces in found]


def fill_gaps(
    found: list[list[Face]], gray_at: Callable[[int], Image], known: Set[int] = frozenset()
) -> tuple[list[Placed], dict[int, int]]:
    """Join tracks of one face that was lost for a few frames, and interpolate it in between.

    Args:
        found: The faces of successive frames of a shot.
        gray_at: Returns the grey levels of a frame.
        known: Tracks that keep their number: they are not joined to earlier ones.

    Returns:
        filled: Interpolated faces, with the positions of their frames.
        numbers: New track numbers by old ones.
    """
    ends: dict[int, tuple[int, Face]] = {}
    starts: dict[int, tuple[int, Face]] = {}
    for place, faces in enumerate(found):
        for face in faces:
            starts.setdefault(face.track, (place, face))
            ends[face.track] = place, face
    filled: list[Placed] = []
    numbers: dict[int, int] = {}
    for track, (start, face) in sorted(starts.items(), key=lambda item: item[1][0]):
        if track in known:
            continue
        before = [
            (end, other)
            for end, other in ends.values()
            if 1 < start - end <= MAX_GAP + 1 and _may_be_same(other, face)
        ]
        for end, other in sorted(before, key=lambda item: -item[0]):
            if Look(gray_at(end), other).shows_another(Look(gray_at(start), face)):
                continue
            number = numbers.get(other.track, other.track)
            numbers[track] = number
            del ends[other.track]
            for place in range(end + 1, start):
                between = _between(other, face, (place - end) / (start - end))
                if not same(between, found[place]):
                    filled.append((place, replace(between, track=number, bridged=True)))
            break
    return filled, numbers


def renumbered(face: Face, numbers: dict[int, int]) -> Face:
    """Return a face with its new track number, if it has one."""
    return replace(face, track=numbers[face.track]) if face.track in numbers else face


def _may_be_same(before: Face, after: Face) -> bool:
    """Return whether a face that was lost may have come back as another one, by its place."""
    one, other = before.box, after.box
    side = max(one.right - one.left, 1.0)
    jump = centers_apart(one, other) / side
    growth = max((other.right - other.left) / side, 1e-6)
    return jump <= GAP_JUMP and 1 / GAP_GROWTH <= growth <= GAP_GROWTH


def _track_through(
    image: Image,
    face: Face,
    gray_at: Callable[[int], Image],
    indices: Sequence[int],
    tracker: LandmarkTracker,
    stride: int = 1,
) -> Iterator[tuple[int, Face]]:
    """Yield the frame index and the face, frame by frame, until it is lost.

    With a stride of 2, a face that is nearly still is only tracked into every second frame, and it
    is interpolated in the frame between.

    Args:
        image: The frame that shows the face, in grey levels (H, W).
        face: The face.
        gray_at: Returns the grey levels of a frame.
        indices: The frames to track it into, the nearest first.
        tracker: Tracks it.
        stride: 1 or 2.
    """
    place, look = 0, Look(image, face)
    while place < len(indices):
        if stride == 2 and place + 1 < len(indices):
            gray = gray_at(indices[place + 1])
            ahead = tracker.track(image, face, gray)
            if ahead and _is_nearly_still(face.box, ahead.box):
                new = Look(gray, ahead)
                if new.shows_another(look):
                    stride = 1  # the new person may be in the frame between already
                    continue
                yield indices[place], _between(face, ahead, 0.5)
                yield indices[place + 1], ahead
                image, face, look, place = gray, ahead, new, place + 2
                continue
        gray = gray_at(indices[place])
        moved = tracker.track(image, face, gray)
        if moved is None or (new := Look(gray, moved)).shows_another(look):
            return
        yield indices[place], moved
        image, face, look, place = gray, moved, new, place + 1


def _is_nearly_still(one: Box, other: Box) -> bool:
    side = one.right - one.left
    moves = (other.left - one.left, other.top - one.top, other.right - one.right,
             other.bottom - one.bottom)  # fmt: skip
    return max(map(abs, moves)) < SAME_FACE_DISTANCE * side


def _between(one: Face, other: Face, share: float) -> Face:
    """Return ``other`` with its box and landmarks moved back towards those of ``one``.

    Args:
        one: The face before.
        other: The face after.
        share: 0 for the place of the face before, 1 for that of the face after.
    """
    sides = zip(*((f.box.left, f.box.top, f.box.right, f.box.bottom) for f in (one, other)),
                strict=True)  # fmt: skip
    box = Box(*(a + share * (b - a) for a, b in sides))
    middle = one.landmarks + np.float32(share) * (other.landmarks - one.landmarks)
    return replace(other, box=box, landmarks=middle.astype(np.float32))


class _TrackJoiner:
    """Numbers tracks across the whole video and joins them at the borders of spans."""

    def __init__(self, spec: DetectorSpec, log: FaceLog | None) -> None:
        self._spec, self._log = spec, log
        self._tracks = 0
        self._looks: deque[dict[int, Look]] = deque(maxlen=LOOKS_KEPT)  # of spans, by track
        self.before: list[FrameFaces] = []

    def add(self, span: _Span, faces: list[list[Face]]) -> Iterator[FrameFaces]:
        """Add a new span and yield the frames of the previous one."""
        local = sorted({face.track for frame_faces in faces for face in frame_faces})
        new = dict(zip(local, count(self._tracks), strict=False))
        self._tracks += len(local)
        now = [
            (frame, [replace(face, track=new[face.track]) for face in frame_faces])
            for frame, frame_faces in zip(span.frames, faces, strict=True)
        ]
        back: list[Placed] = []
        if span.joined and self.before:
            back = _join_at_border(self.before, now, self._spec)
            back = self._fill_gaps(now, back)
            looks = self._end_changed(now)
        else:
            self._looks.clear()
            looks = _looks_of(now)
        self._looks.append(looks)
        if self._log:
            placed = [(place, face) for place, (_, found) in enumerate(now) for face in found]
            first = span.frames[0].index
            self._log.add(SpanRecord(first, len(now), span.joined, self._tracks, placed, back))
        yield from self._emit(back, now)

    def repeat(self, span: _Span, entry: SpanRecord) -> Iterator[FrameFaces]:
        """Add a span from the log and yield the frames of the previous one."""
        self._tracks = entry.tracks
        now: list[FrameFaces] = [(frame, []) for frame in span.frames]
        for place, face in entry.faces:
            now[place][1].append(face)
        if not entry.joined:
            self._looks.clear()
        self._looks.append(_looks_of(now))
        yield from self._emit(entry.before if self.before else [], now)

    def _fill_gaps(self, now: list[FrameFaces], back: list[Placed]) -> list[Placed]:
        """Fill gaps that reach from the previous span into the new one; see :func:`fill_gaps`.

        Args:
            now: The frames of the new span; modified in place.
            back: Faces of the new span that were tracked back.

        Returns:
            All faces to add to the previous span, with their positions.
        """
        both = [*self.before, *now]
        found = [list(faces) for _, faces in both]
        for place, face in back:
            found[place].append(face)
        border = len(self.before)
        known = {face.track for _, faces in self.before for face in faces}
        filled, numbers = fill_gaps(found, lambda place: both[place][0].gray(), known)
        for position, (frame, faces) in enumerate(now):
            now[position] = frame, [renumbered(face, numbers) for face in faces]
        for place, face in filled:
            if place >= border:
                now[place - border][1].append(face)
        back = [(place, renumbered(face, numbers)) for place, face in back]
        return back + [(place, face) for place, face in filled if place < border]

    def _end_changed(self, now: list[FrameFaces]) -> dict[int, Look]:
        """Give new numbers to tracks that show another person by now, as after a dissolve.

        Returns:
            The looks of the span's tracks, by number.
        """
        numbers: dict[int, int] = {}
        looks_now = _looks_of(now)
        for track, look in looks_now.items():
            earliest = next((looks[track] for looks in self._looks if track in looks), None)
            if earliest and look.shows_another(earliest):
                numbers[track] = self._tracks
                self._tracks += 1
        if numbers:
            for position, (frame, faces) in enumerate(now):
                now[position] = frame, [renumbered(face, numbers) for face in faces]
        return {numbers.get(track, track): look for track, look in looks_now.items()}

    def _emit(self, back: list[Placed], now: list[FrameFaces]) -> Iterator[FrameFaces]:
        for place, face in back:
            self.before[place][1].append(face)
        before, self.before = self.before, now
        yield from before


def _looks_of(span: list[FrameFaces]) -> dict[int, Look]:
    """Return the looks of a span's tracks, by track, in the frame nearest to its middle."""
    looks: dict[int, Look] = {}
    middle = len(span) // 2
    for frame, faces in sorted(span, key=lambda item: abs(item[0].index - span[middle][0].index)):
        new = [face for face in faces if face.track not in looks]
        if new:
            gray = frame.gray()
            looks |= {face.track: Look(gray, face) for face in new}
    return looks


def _join_at_border(
    before: list[FrameFaces], now: list[FrameFaces], spec: DetectorSpec
) -> list[Placed]:
    """Join tracks that continue into the new span, and track faces that one side missed.

    Args:
        before: The frames of the previous span; not modified.
        now: The frames of the new span; modified in place.
        spec: The detector, whose landmark tracker is used.

    Returns:
        Faces of the new span that were tracked back, with their positions in ``before``.
    """
    (frame_before, last), (frame_now, first) = before[-1], now[0]
    gray_before, gray_now = frame_before.gray(), frame_now.gray()
    matches: dict[int, Face] = {}
    for face in first:
        unmatched = [other for other in last if other not in matches.values()]
        other = same(face, unmatched)
        if other and not Look(gray_now, face).shows_another(Look(gray_before, other)):
            matches[face.track] = other
    for position, (frame, faces) in enumerate(now):
        renumbered = [
            replace(face, track=matches[face.track].track) if face.track in matches else face
            for face in faces
        ]
        now[position] = frame, renumbered
    known = {face.track for face in now[0][1]}
    for face in last:
        if face.track not in known:
            for place, moved in _extend(gray_before, face, now, spec):
                now[place][1].append(moved)
    back: list[Placed] = []
    for face in now[0][1]:
        if face.track not in {other.track for other in last}:
            extension = _extend(gray_now, face, before[::-1], spec)
            back += [(len(before) - 1 - place, moved) for place, moved in extension]
    return back


def _extend(
    gray: Image, face: Face, found: list[FrameFaces], spec: DetectorSpec
) -> Iterator[Placed]:
    """Track a face into frames where it was not found, until it is lost or meets another track."""

    def gray_at(place: int) -> Image:
        return found[place][0].gray()

    steps = _track_through(gray, face, gray_at, range(len(found)), spec.tracker())
    for place, moved in steps:
        if same(moved, found[place][1]):
            return
        yield place, moved


def same(face: Face, others: list[Face]) -> Face | None:
    """Return the face of ``others`` that overlaps this one most.

    The result is None if their intersection over union is at most ``SAME_FACE_IOU``.
    """
    best = max(others, key=lambda other: overlap(face.box, other.box), default=None)
    return best if best and overlap(face.box, best.box) > SAME_FACE_IOU else None


def _landmarks(item: FrameFaces) -> TrackValues:
    return {face.track: face.landmarks for face in item[1]}


def _with_landmarks(item: FrameFaces, smoothed: TrackValues) -> FrameFaces:
    frame, faces = item
    moved = [replace(face, landmarks=smoothed[face.track].astype(np.float32)) for face in faces]
    return frame, sorted(moved, key=lambda face: face.box.left - face.box.right)
