"""Where dlib's weights lie, and the landmark model of the user's own.

dlib's 68-point model may not be used in commercial products; whoever has trained or licensed
another one gives it with ``--landmarks`` or in ``FACESWAP_LANDMARKS``, which every process that
looks for faces inherits.
"""

import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

import dlib
import numpy as np

from faceswap.config import LANDMARKS
from faceswap.errors import InputError
from faceswap.files import sha256_of

POINTS = 68
WEIGHT_FILES = (
    "mmod_human_face_detector.dat",
    "shape_predictor_68_face_landmarks.dat",
    "dlib_face_recognition_resnet_model_v1.dat",
)


def weights(name: str) -> str:
    """Path of one of dlib's weight files, found without importing the package that carries them.

    (Importing face_recognition_models needs pkg_resources, which current setuptools lacks.)

    Raises:
        InputError: If the package or the file is missing.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("dlib's weights are missing: pip install face-recognition-models")
    path = Path(spec.submodule_search_locations[0], "models", name)
    if not path.is_file():
        raise InputError(
            f"{path} is missing: pip install --force-reinstall face-recognition-models"
        )
    return str(path)


def own_landmarks() -> str | None:
    """The user's own landmark model, if one is set."""
    return os.environ.get(LANDMARKS) or None


def landmarks_digest() -> str | None:
    """The SHA-256 of the user's own landmark model, if one is set.

    Raises:
        InputError: If it cannot be read, or is none.
    """
    path = own_landmarks()
    if not path:
        return None
    landmark_model()  # now rather than after a day
    return _digest(path)


def landmark_model() -> Any:
    """Dlib's shape predictor of the 68 iBUG landmarks, or the user's own.

    Raises:
        InputError: If it cannot be read, or has other points.
    """
    return _landmark_model(own_landmarks())


@cache
def _digest(path: str) -> str:
    return sha256_of(Path(path))


@cache
def _landmark_model(own: str | None) -> Any:
    """Look for it and read it once a process: it is asked for some times a face."""
    path = own or weights(WEIGHT_FILES[1])
    try:
        model = dlib.shape_predictor(path)
    except (RuntimeError, MemoryError, TypeError) as error:  # TypeError: its name is no Unicode
        words = str(error).splitlines()[0]
        raise InputError(
            f"{path} is no landmark model that this program can read ({words}): it must be a shape "
            f"predictor of {POINTS} points, written by dlib"
        ) from error
    blank = np.zeros((16, 16), np.uint8)
    points = model(blank, dlib.rectangle(0, 0, 15, 15)).num_parts
    if points != POINTS:
        raise InputError(f"{path} finds {points} landmarks, not the {POINTS} of iBUG: give another")
    return model
