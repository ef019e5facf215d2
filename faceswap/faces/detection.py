"""The detectors by name, and which of them to use.

``auto`` takes BlazeFace where its files are installed, else HOG, and adds the CNN on photos.
"""

from collections.abc import Callable

from faceswap.config import DetectorName
from faceswap.errors import SettingsError
from faceswap.faces import blazeface
from faceswap.faces.dlib_backend import (
    detect_cnn,
    detect_hog,
    detect_hog_quickly,
    own_landmarks,
    track_face,
)
from faceswap.faces.geometry import Face
from faceswap.types import Image

Detector = Callable[[Image, float], list[Face]]
LandmarkTracker = Callable[[Image, Face], Face | None]


def detect_blaze(image: Image, min_score: float) -> list[Face]:
    """Faces by BlazeFace, and by HOG, which finds smaller ones too, where it finds none.

    Raises:
        InputError: If its files are not installed.
    """
    found = blazeface.detect_all(image, min_score)
    return found or [blazeface.with_mesh(image, face) for face in detect_hog(image, min_score)]


def detect_auto(image: Image, min_score: float) -> list[Face]:
    """Faces by the quick detector that there is, and by the CNN where that finds none."""
    quick = detect_blaze if _blaze_is_quick() else detect_hog
    return quick(image, min_score) or detect_cnn(image, min_score)


DETECTORS: dict[DetectorName, Detector] = {
    "auto": detect_auto, "blaze": detect_blaze, "hog": detect_hog, "cnn": detect_cnn,
}  # fmt: skip


# In video, where landmarks are steadied over time.
VIDEO_DETECTORS: dict[DetectorName, Detector] = {
    "blaze": detect_blaze, "hog": detect_hog_quickly, "cnn": detect_cnn,
}  # fmt: skip


LANDMARK_TRACKERS: dict[DetectorName, LandmarkTracker] = {
    "blaze": blazeface.track_face, "hog": track_face, "cnn": track_face,
}  # fmt: skip


def resolve_detector(detector: DetectorName, video: bool) -> DetectorName:
    """In video ``auto`` is the quick detector: seconds of CNN for every empty frame would not pay.

    Raises:
        InputError: If the files of the detector asked for are not installed.
        SettingsError: If it would leave the user's own landmark model aside.
    """
    if detector == "blaze":
        blazeface.require()
        if own_landmarks():
            raise SettingsError(
                "--detector blaze brings landmarks of its own: leave it or --landmarks out"
            )
    if detector == "auto" and video:
        return "blaze" if _blaze_is_quick() else "hog"
    return detector


def _blaze_is_quick() -> bool:
    """Whether BlazeFace, which brings landmarks of its own, is the quick detector."""
    return blazeface.is_installed() and not own_landmarks()


def describe_detector(detector: DetectorName, video: bool) -> str:
    """Which detectors look for faces, in their order."""
    quick = "BlazeFace, else HOG" if _blaze_is_quick() or detector == "blaze" else "HOG"
    words = {"auto": f"{quick}, else CNN", "blaze": quick, "hog": "HOG", "cnn": "CNN"}
    return words[resolve_detector(detector, video)]
