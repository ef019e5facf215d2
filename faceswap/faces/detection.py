"""The registry of face detectors, and their use in photos and in video.

A detector is a callable ``detect(image, min_score) -> faces``:

- ``image`` is RGB uint8 (H, W, 3).
- ``min_score`` is the minimum score of a detection; each detector has its own scale.
- It returns a list of :class:`~faceswap.faces.geometry.Face`, the largest first, each with its box
  and the 68 iBUG landmarks in image pixels, or an empty list.

A plug-in provides one under the entry point group ``faceswap.detectors``. Any such callable can
also be passed as ``ExtractConfig(detector=...)`` or ``ConvertConfig(detector=...)``; it then runs
in the calling process.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from faceswap.arrays import Image, Points
from faceswap.config import AUTO_LANDMARKS, DETECTOR_SEAM
from faceswap.faces import blazeface, dlib_backend, landmarks, yunet
from faceswap.faces.geometry import (
    Box,
    Detection,
    Face,
    centers_apart,
    scale_detection,
    shift_detection,
    shrunk,
    typical_box,
    without_overlaps,
)
from faceswap.faces.landmarks import LandmarkTracker
from faceswap.media.frame import Frame
from faceswap.registry import Registry

UNCERTAIN = 1.0  # by how much a face's score may be too low if nothing else is found in a photo
VIDEO_SIDE = 640  # longest side of a video frame's copy that is searched first
MAX_VIDEO_SIDE = 1920  # longest side of a frame that is searched if the copy shows no face
# A face is searched for again near its last place: longest side of the area in searched pixels, and
# in sides of the face's box.
NEAR_SIDE, NEAR_AREA = 320, 2.5
NEAR_SCORE = -1.3  # least score there; grey levels lower the score of a profile by about 1

Detector = Callable[[Image, float], list[Face]]
# A built-in detector also takes the choice of landmark models; see :mod:`.landmarks`.
BuiltInDetector = Callable[[Image, float, str], list[Face]]


@dataclass(frozen=True, slots=True)
class Network:
    """A detection network that finds small faces in large images only.

    Attributes:
        search: Takes an image, the minimum score, and the longest side to shrink the image to.
        quick: Longest sides to shrink a video frame's copy to.
        thorough: Those for a photo, and for a frame in whose copy no face is found.
        sure: Score of a face that is surely upright: portraits have more, lying faces that are
            seen as upright less.
        better: By how much a turned image's score must be higher than an upright one's.
    """

    search: Callable[[Image, float, int], list[Detection]]
    quick: tuple[int, ...]
    thorough: tuple[int, ...]
    sure: float
    better: float


NETWORKS = {
    "yunet": Network(yunet.detect, (640,), (640, 4096), sure=1.2, better=0.3),
    # In a shrunk copy, portraits that fill the photo become small enough for BlazeFace.
    "blaze": Network(
        blazeface.detect, (96, 192, 384), (96, 192, 384, 768, 1536, 3072), sure=1.2, better=0.3
    ),
}  # fmt: skip


def detect_yunet(image: Image, min_score: float, choice: str = AUTO_LANDMARKS) -> list[Face]:
    """Detect faces with YuNet; see :func:`_detect_thoroughly`."""
    return _detect_thoroughly(NETWORKS["yunet"], image, min_score, choice)


def detect_blaze(image: Image, min_score: float, choice: str = AUTO_LANDMARKS) -> list[Face]:
    """Detect faces with BlazeFace; see :func:`_detect_thoroughly`."""
    return _detect_thoroughly(NETWORKS["blaze"], image, min_score, choice)


def detect_hog(
    image: Image, min_score: float, choice: str = AUTO_LANDMARKS, quickly: bool = False
) -> list[Face]:
    """Detect faces with dlib's HOG, in an image that is RGB (H, W, 3) or grey (H, W).

    Raises:
        InputError: If dlib's weights are missing or the landmark model cannot be used.
    """
    searched, detections = dlib_backend.search_hog(image, min_score)
    return _placed(searched, detections, choice, quickly)


def detect_cnn(image: Image, min_score: float, choice: str = AUTO_LANDMARKS) -> list[Face]:
    """Detect faces with dlib's CNN.

    Raises:
        InputError: If dlib's weights are missing or the landmark model cannot be used.
    """
    return _placed(image, dlib_backend.search_cnn(image, min_score), choice)


def _placed(
    image: Image, detections: list[Detection], choice: str, quickly: bool = False
) -> list[Face]:
    """Place landmarks on detections, and return the faces on which they are plausible.

    Detections that turn out to be the same face become one.
    """
    faces: list[Face] = []
    for detection in sorted(detections, key=lambda each: -each.score):
        placed = landmarks.place(image, detection, choice, quickly)
        if placed is None:
            continue
        box = typical_box(placed[0])
        if not any(_is_within(box, face.box) for face in faces):
            faces.append(Face(box, detection.score, placed[0], placed_by=placed[1]))
    return sorted(faces, key=lambda face: face.box.left - face.box.right)


def _is_within(one: Box, other: Box) -> bool:
    """Return whether the centre of a box is near that of another, so that both show one face."""
    return 2 * centers_apart(one, other) < other.right - other.left


def _detect_thoroughly(network: Network, image: Image, min_score: float, choice: str) -> list[Face]:
    """Detect faces, lying and upside-down ones too if none is surely upright; largest first.

    If there is none, the image is searched at half its size for an uncertain one: the score of a
    face in deep shade that fills the image is low. Faces on which no landmarks are plausible are
    left out.

    Raises:
        InputError: If dlib's weights are missing or the landmark model cannot be used.
    """
    quarters, turned, detections = _search_turned(network, image, min_score, network.thorough)
    faces = _turned_back(_placed(turned, detections, choice), quarters, *turned.shape[:2])
    if faces:
        return faces
    half = max(max(image.shape[:2]) // 2, 1)
    uncertain = network.search(image, min_score - UNCERTAIN, min(half, VIDEO_SIDE))
    return _placed(image, uncertain, choice)[:1]


def _search_turned(
    network: Network, image: Image, min_score: float, sides: tuple[int, ...]
) -> tuple[int, Image, list[Detection]]:
    """Search an image, and turned by quarters if no face in it is surely upright.

    The networks see upright faces in lying ones too, with low scores.

    Returns:
        quarters: By how many quarters the image is turned counterclockwise.
        turned: The turned image.
        detections: The faces in it.
    """
    found = _search_sizes(network, image, min_score, sides)
    best = 0, image, found
    score = max((each.score for each in found), default=min_score - network.better)
    if score >= network.sure:
        return best
    for quarters in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(image, quarters))
        detections = _search_sizes(network, turned, min_score, sides)
        highest = max((each.score for each in detections), default=-np.inf)
        if highest >= score + network.better:
            score, best = highest, (quarters, turned, detections)
    return best


def _search_sizes(
    network: Network, image: Image, min_score: float, sides: tuple[int, ...]
) -> list[Detection]:
    """Search an image shrunk to several sizes."""
    longest = max(image.shape[:2])
    different = dict.fromkeys(min(side, longest) for side in sides)
    return without_overlaps(
        [each for side in different for each in network.search(image, min_score, side)]
    )


def _turned_back(faces: list[Face], quarters: int, height: int, width: int) -> list[Face]:
    """Map faces of an image (height, width) that was turned by ``np.rot90`` to the original."""
    if not quarters:
        return faces
    back = []
    for face in faces:
        points = _points_turned_back(face.landmarks, quarters, height, width)
        back.append(replace(face, box=typical_box(points), landmarks=points))
    return back


def _points_turned_back(points: Points, quarters: int, height: int, width: int) -> Points:
    x, y = points[:, 0], points[:, 1]
    for _ in range(quarters):  # each quarter was counterclockwise
        x, y = height - 1 - y, x
        height, width = width, height
    return np.stack([x, y], axis=1).astype(np.float32)


DETECTORS: Registry[BuiltInDetector] = Registry(
    DETECTOR_SEAM,
    {
        "auto": detect_yunet,
        "yunet": detect_yunet,
        "blaze": detect_blaze,
        "hog": detect_hog,
        "cnn": detect_cnn,
    },
)
NAMES = {"auto": "YuNet", "yunet": "YuNet", "blaze": "BlazeFace", "hog": "HOG", "cnn": "CNN"}


@dataclass(frozen=True, slots=True, eq=False)
class FrameView:
    """What a worker process sees of a video frame.

    Attributes:
        gray: The frame's grey levels (H, W); landmarks are placed on them.
        small: Its colours (h, w, 3), at most ``VIDEO_SIDE`` pixels long; None if it is not searched
            or the detector needs none.
        full: Its colours (H, W, 3); None if only a copy is searched.
    """

    gray: Image
    small: Image | None = None
    full: Image | None = None

    @property
    def searchable(self) -> bool:
        """Whether the frame may be searched for faces."""
        return self.small is not None or self.full is not None


@dataclass(frozen=True)
class DetectorSpec:
    """A detector and its landmark models. This record is sent to worker processes.

    Attributes:
        detector: The name of a built-in or a plug-in, or a detector object.
        landmarks: The choice of landmark models; see :mod:`.landmarks`.
    """

    detector: str | Detector = "auto"
    landmarks: str = AUTO_LANDMARKS

    @property
    def is_own_object(self) -> bool:
        """Whether the detector is an object rather than a name, so it may not be picklable."""
        return not isinstance(self.detector, str)

    @property
    def _network(self) -> Network | None:
        name = "yunet" if self.detector == "auto" else self.detector
        return NETWORKS.get(name) if isinstance(name, str) else None

    def checked(self) -> "DetectorSpec":
        """Return this record after checking the user's landmark model.

        Raises:
            InputError: If the landmark model cannot be used.
        """
        landmarks.check(self.landmarks)
        return self

    def detect(self, image: Image, min_score: float) -> list[Face]:
        """Detect the faces in a photo (H, W, 3), the largest first.

        Raises:
            InputError: If the detector's files or the landmark model cannot be used.
            SettingsError: If the detector is a plug-in that is missing or cannot be imported.
        """
        if isinstance(self.detector, str) and self.detector in DETECTORS:
            return DETECTORS[self.detector](image, min_score, self.landmarks)
        detector = cast(Detector, DETECTORS.resolve(cast(str, self.detector)))
        return detector(image, min_score)

    def view(self, frame: Frame, gray: Image, middle: bool, searched: bool) -> FrameView:
        """Return what a worker needs to see of a frame of a span.

        Args:
            frame: The frame.
            gray: Its grey levels.
            middle: Whether it is the middle frame of its span, which is searched thoroughly.
            searched: Whether it is searched if no face was tracked into it.
        """
        if self.detector == "hog":
            return FrameView(gray, small=gray)
        if self._network is None:  # it may find faces that cannot be tracked
            return FrameView(gray, full=frame.image)
        if not searched:
            return FrameView(gray)
        image = frame.image
        small, _ = shrunk(image, VIDEO_SIDE)
        return FrameView(gray, small, image if middle else None)

    def detect_in_video(self, view: FrameView, min_score: float) -> list[Face]:
        """Detect the faces in a video frame, the largest first.

        The networks search a small copy of the frame. If the whole frame is at hand, they also
        search the copy turned by quarters unless a face is surely upright, and the whole frame
        if the copy shows no face.

        Raises:
            InputError, SettingsError: See :meth:`detect`.
        """
        if self.detector == "hog":
            return detect_hog(view.gray, min_score, self.landmarks, quickly=True)
        if (network := self._network) is None:
            assert view.full is not None, "the detector needs the whole frame"
            return self.detect(view.full, min_score)
        assert view.small is not None, "the frame is not searchable"
        scale = max(view.gray.shape) / max(view.small.shape[:2])
        if view.full is None:
            found = _search_sizes(network, view.small, min_score, network.quick)
            return self._placed_in_frame(view.gray, found, scale)
        quarters, _, found = _search_turned(network, view.small, min_score, network.quick)
        if not found:
            sides = tuple(min(side, MAX_VIDEO_SIDE) for side in network.thorough)
            quarters, _, found = _search_turned(network, view.full, min_score, sides)
            scale = 1.0
        turned = np.ascontiguousarray(np.rot90(view.gray, quarters))
        faces = self._placed_in_frame(turned, found, scale)
        return _turned_back(faces, quarters, *turned.shape)

    def _placed_in_frame(self, gray: Image, found: list[Detection], scale: float) -> list[Face]:
        """Place landmarks on detections in a copy of a frame that was shrunk by ``scale``."""
        in_frame = [scale_detection(each, scale) for each in found]
        return _placed(gray, in_frame, self.landmarks, quickly=True)

    def certainty(self, crop: Image) -> float | None:
        """Return the probability that an aligned crop (S, S, 3) shows a face.

        YuNet is asked whichever detector found the face, so that the numbers have one scale. With
        BlazeFace the result is None, because that choice keeps YuNet out of a conversion.
        """
        return None if self.detector == "blaze" else yunet.certainty(crop)

    def tracker(self) -> LandmarkTracker:
        """Return a new tracker for one face."""
        return LandmarkTracker(self.landmarks, self._search_near if self._network else None)

    def _search_near(self, image: Image, box: Box) -> list[Detection]:
        """Detect faces near a box of an image."""
        assert self._network is not None
        x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
        half = NEAR_AREA * (box.right - box.left) / 2
        height, width = image.shape[:2]
        left, right = (round(min(max(side, 0), width)) for side in (x - half, x + half))
        top, bottom = (round(min(max(side, 0), height)) for side in (y - half, y + half))
        part = np.ascontiguousarray(image[top:bottom, left:right])
        if not part.size:
            return []
        found = self._network.search(part, NEAR_SCORE, NEAR_SIDE)
        return [shift_detection(each, left, top) for each in found]

    def describe(self) -> str:
        """Return the detector's name for people, such as "YuNet".

        Raises:
            InputError: See :meth:`checked`.
        """
        if self.is_own_object:
            return getattr(self.detector, "__name__", type(self.detector).__name__)
        return NAMES.get(str(self.checked().detector), str(self.detector))
