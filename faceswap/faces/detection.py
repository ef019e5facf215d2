"""The detectors by name, and which of them to use.

``auto`` takes BlazeFace where its files are installed, else HOG, and adds the CNN on photos.
"""

from collections.abc import Callable

from faceswap.config import FinderName
from faceswap.errors import SettingsError
from faceswap.faces import blazeface
from faceswap.faces.dlib_backend import (
    find_cnn,
    find_hog,
    find_hog_quickly,
    follow_face,
    own_landmarks,
)
from faceswap.faces.geometry import Face
from faceswap.types import Image

Finder = Callable[[Image, float], list[Face]]
Follower = Callable[[Image, Face], Face | None]


def find_blaze(image: Image, min_score: float) -> list[Face]:
    """Faces by BlazeFace, and by HOG, which finds smaller ones too, where it finds none.

    Raises:
        InputError: If its files are not installed.
    """
    found = blazeface.find_all(image, min_score)
    return found or [blazeface.with_mesh(image, face) for face in find_hog(image, min_score)]


def find_auto(image: Image, min_score: float) -> list[Face]:
    """Faces by the quick finder that there is, and by the CNN where that finds none."""
    quick = find_blaze if _blaze_is_quick() else find_hog
    return quick(image, min_score) or find_cnn(image, min_score)


FINDERS: dict[FinderName, Finder] = {
    "auto": find_auto, "blaze": find_blaze, "hog": find_hog, "cnn": find_cnn,
}  # fmt: skip


# In video, where landmarks are steadied over time.
VIDEO_FINDERS: dict[FinderName, Finder] = {
    "blaze": find_blaze, "hog": find_hog_quickly, "cnn": find_cnn,
}  # fmt: skip


FOLLOWERS: dict[FinderName, Follower] = {
    "blaze": blazeface.follow_face, "hog": follow_face, "cnn": follow_face,
}  # fmt: skip


def resolve_finder(finder: FinderName, video: bool) -> FinderName:
    """In video ``auto`` is the quick finder: seconds of CNN for every empty frame would not pay.

    Raises:
        InputError: If the files of the finder asked for are not installed.
        SettingsError: If it would leave the user's own landmark model aside.
    """
    if finder == "blaze":
        blazeface.require()
        if own_landmarks():
            raise SettingsError(
                "--finder blaze brings landmarks of its own: leave it or --landmarks out"
            )
    if finder == "auto" and video:
        return "blaze" if _blaze_is_quick() else "hog"
    return finder


def _blaze_is_quick() -> bool:
    """Whether BlazeFace, which brings landmarks of its own, is the quick finder."""
    return blazeface.is_installed() and not own_landmarks()


def finder_in_words(finder: FinderName, video: bool) -> str:
    """Which detectors look for faces, in their order."""
    quick = "BlazeFace, else HOG" if _blaze_is_quick() or finder == "blaze" else "HOG"
    words = {"auto": f"{quick}, else CNN", "blaze": quick, "hog": "HOG", "cnn": "CNN"}
    return words[resolve_finder(finder, video)]
