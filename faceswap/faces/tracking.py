"""Track faces through a video: detect them in the middle of each span, then track them both ways.

A span is a few consecutive frames without a cut. Faces are detected in its middle frame, and the
landmark model tracks them to both ends, each time starting from the position in the neighbouring
frame. Frames that then still have no face are searched as well. Spans are independent, so worker
processes handle them in parallel. At the border of two spans of the same shot, the tracks are
joined, and a face that one span missed is tracked into it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count, repeat

import cv2
import numpy as np

from faceswap.arrays import Image
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.geometry import Box, Face, FrameFaces
from faceswap.faces.pool import DetectorPool
from faceswap.faces.smoothing import TrackValues, smooth_over_time
from faceswap.faces.tracklog import FaceLog, Placed, SpanRecord
from faceswap.media.frame import Frame

SPAN_FRAMES = 16  # maximum length of a span
THUMB_SIZE = (32, 18)  # width and height of the thumbnails that are compared to find cuts
# Shot-cut thresholds on thumbnails (0-255). A cut is a mean absolute difference above CUT, or one
# above CUT_MOVED together with a mean difference of the sorted pixels (a histogram distance) above
# CUT_RELIT. In a fast pan the two differences are about 12 and 2.
CUT, CUT_MOVED, CUT_RELIT = 30.0, 10.0, 5.0
SAME_FACE_DISTANCE = 0.1  # box sides; a face that moves less over two frames is nearly still
SAME_FACE_IOU = 0.4  # intersection over union above which two boxes show the same face


@dataclass(slots=True, eq=False)
class _Span:
    """Consecutive frames of one shot.

    Attributes:
        joined: Whether the previous span belongs to the same shot; False for the first span.
        frames: The frames.
        images: The images that the detector searches, one per frame.
    """

    joined: bool
    frames: list[Frame] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)


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
    found = _tracked(frames, workers, spec.for_video(), stride, log)
    return smooth_over_time(found, _landmarks, _with_landmarks) if smooth else found


def _tracked(
    frames: Iterable[Frame], workers: DetectorPool, spec: DetectorSpec, stride: int,
    log: FaceLog | None,
) -> Iterator[FrameFaces]:  # fmt: skip
    def arguments(span: _Span) -> tuple[DetectorSpec, list[Image], float, int]:
        images, span.images = span.images, []
        return spec, images, workers.min_score, stride

    joiner = _TrackJoiner(spec, log)
    known = list(log.entries) if log else []
    spans = _spans(frames, spec, [entry.count for entry in known])
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


def _search_image(frame: Frame, spec: DetectorSpec) -> Image:
    """Return the image to search. HOG gets a grey one, which is a third of the data and faster."""
    return frame.gray() if spec.detector == "hog" else frame.image


def _spans(frames: Iterable[Frame], spec: DetectorSpec, known: list[int]) -> Iterator[_Span]:
    """Split a video into spans that never cross a cut.

    Args:
        frames: The frames of the video.
        spec: The detector that will search them.
        known: Lengths of the first spans, from the log of an interrupted run.
    """
    lengths = chain(known, repeat(SPAN_FRAMES))
    span, length = _Span(joined=False), next(lengths)
    before: Image | None = None
    for frame in frames:
        image = _search_image(frame, spec)
        thumb = _thumbnail(image)
        cut = before is not None and _is_cut(before, thumb)
        before = thumb
        if span.frames and (cut or len(span.frames) == length):
            yield span
            span, length = _Span(joined=not cut), next(lengths)
        span.frames.append(frame)
        span.images.append(image)
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
    spec: DetectorSpec, images: list[Image], min_score: float, stride: int
) -> list[list[Face]]:
    """Detect and track the faces of a span; track numbers are local to the span.

    The middle frame is searched first. Frames that still have no face are then searched from the
    middle outwards.

    Args:
        spec: The detector, resolved by :meth:`DetectorSpec.for_video`.
        images: The image to search in each frame.
        min_score: Minimum score of a detection.
        stride: 1 tracks every face into each frame. 2 skips every second frame for a face that is
            nearly still and interpolates it there.

    Returns:
        The faces of each frame, in no particular order.

    Raises:
        InputError, SettingsError: See :meth:`DetectorSpec.detect`.
    """
    found: list[list[Face]] = [[] for _ in images]
    numbers = count()
    middle = len(images) // 2
    for start in sorted(range(len(images)), key=lambda index: abs(index - middle)):
        if found[start]:
            continue
        for detected in spec.detect_in_video(images[start], min_score):
            face = replace(detected, track=next(numbers))
            found[start].append(face)
            for indices in (range(start + 1, len(images)), range(start - 1, -1, -1)):
                landmark_tracker = spec.track
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
    landmark_tracker: Callable[[Image, Face], Face | None],
    stride: int = 1,
) -> Iterator[tuple[int, Face]]:
    """Yield the frame index and the face, frame by frame, until it is lost.

    With a stride of 2, a face that is nearly still is only tracked into every second frame, and it
    is interpolated in the frame between.
    """
    place = 0
    while place < len(indices):
        if stride == 2 and place + 1 < len(indices):
            ahead = landmark_tracker(image_at(indices[place + 1]), face)
            if ahead and _is_nearly_still(face.box, ahead.box):
                yield indices[place], _midpoint(face, ahead)
                yield indices[place + 1], ahead
                face, place = ahead, place + 2
                continue
        moved = landmark_tracker(image_at(indices[place]), face)
        if moved is None:
            return
        yield indices[place], moved
        face, place = moved, place + 1


def _is_nearly_still(one: Box, other: Box) -> bool:
    side = one.right - one.left
    moves = (other.left - one.left, other.top - one.top, other.right - one.right,
             other.bottom - one.bottom)  # fmt: skip
    return max(map(abs, moves)) < SAME_FACE_DISTANCE * side


def _midpoint(one: Face, other: Face) -> Face:
    """Return ``other`` with the mean box and the mean landmarks of both faces."""
    sides = zip(*((f.box.left, f.box.top, f.box.right, f.box.bottom) for f in (one, other)),
                strict=True)  # fmt: skip
    box = Box(*((a + b) / 2 for a, b in sides))
    middle = ((one.landmarks + other.landmarks) / 2).astype(np.float32)
    return replace(other, box=box, landmarks=middle)


class _TrackJoiner:
    """Numbers tracks across the whole video and joins them at the borders of spans."""

    def __init__(self, spec: DetectorSpec, log: FaceLog | None) -> None:
        self._spec, self._log = spec, log
        self._tracks = 0
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
        joined = span.joined and self.before
        back = _join_at_border(self.before, now, self._spec) if joined else []
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
        yield from self._emit(entry.before if self.before else [], now)

    def _emit(self, back: list[Placed], now: list[FrameFaces]) -> Iterator[FrameFaces]:
        for place, face in back:
            self.before[place][1].append(face)
        before, self.before = self.before, now
        yield from before


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
    (_, last), (_, first) = before[-1], now[0]
    matches: dict[int, Face] = {}
    for face in first:
        unmatched = [other for other in last if other not in matches.values()]
        if other := same(face, unmatched):
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
            for place, moved in _extend(face, now, spec):
                now[place][1].append(moved)
    back: list[Placed] = []
    for face in now[0][1]:
        if face.track not in {other.track for other in last}:
            extension = _extend(face, before[::-1], spec)
            back += [(len(before) - 1 - place, moved) for place, moved in extension]
    return back


def _extend(face: Face, found: list[FrameFaces], spec: DetectorSpec) -> Iterator[Placed]:
    """Track a face into frames where it was not found, until it is lost or meets another track."""

    def image_at(place: int) -> Image:
        return _search_image(found[place][0], spec)

    for place, moved in _track_through(face, image_at, range(len(found)), spec.track):
        if same(moved, found[place][1]):
            return
        yield place, moved


def same(face: Face, others: list[Face]) -> Face | None:
    """Return the face of ``others`` that overlaps this one most.

    The result is None if their intersection over union is at most ``SAME_FACE_IOU``.
    """
    best = max(others, key=lambda other: _overlap(face.box, other.box), default=None)
    return best if best and _overlap(face.box, best.box) > SAME_FACE_IOU else None


def _overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
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
