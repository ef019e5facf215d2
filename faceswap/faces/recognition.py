"""Who a face is: embeddings of reference photos, and a person's mean embedding."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from faceswap.errors import InputError, NoFacesError
from faceswap.faces.detection import detect_auto
from faceswap.faces.dlib_backend import compute_embedding, detect_hog_quickly, predict_landmarks
from faceswap.faces.faceset import Faceset
from faceswap.faces.geometry import Box, typical_box
from faceswap.media.photos import read_photo
from faceswap.media.reader import sample_video
from faceswap.types import Embedding, Image

SAME_PERSON = 0.6  # distance of embeddings below which dlib's authors call two faces one person

SURVEY_FRAMES = 48  # key frames at most of a video in which somebody is looked for
# Of 694 portraits of two people one was nearer than that, by 0.002, to the other's mean embedding.
CERTAIN_DISTANCE = 0.55


def embedding_of(photo: Path) -> Embedding:
    """The embedding of the largest face of a reference photo, (128,).

    Raises:
        InputError: If the photo cannot be read.
        NoFacesError: If no face is found in it.
    """
    image = read_photo(photo).image
    faces = detect_auto(image, 0.0)
    if not faces:
        raise NoFacesError(f"no face found in the reference {photo}; give a sharper, larger one")
    return compute_embedding(image, faces[0].landmarks)


def appears(person: Embedding, video: Path) -> bool:
    """Whether somebody in a video is certainly this person, as far as some of its key frames tell.

    Args:
        person: The mean embedding of the person's faces, (128,).
        video: The file.
    """
    try:
        for frame in sample_video(video, SURVEY_FRAMES, exact=False):
            for face in detect_hog_quickly(frame.image, 0.2):
                if (
                    np.linalg.norm(compute_embedding(frame.image, face.landmarks) - person)
                    < CERTAIN_DISTANCE
                ):
                    return True
    except InputError:  # its length is not known: no reason to stop
        return False
    return False


def pictures_of(faceset: Faceset) -> list[tuple[Image, Box]]:
    """Each crop as a picture of its own, with the box that HOG would draw in it."""
    crops = faceset.crops.permute(0, 2, 3, 1).contiguous().numpy()
    return [
        (crop, typical_box(points)) for crop, points in zip(crops, faceset.landmarks, strict=True)
    ]


def centroid(faceset: Faceset, on_face: Callable[[], None] = lambda: None) -> Embedding:
    """The mean embedding of a person's faces, (128,).

    Args:
        faceset: The faces, at least one.
        on_face: Called after each.
    """
    descriptors = []
    for crop, box in pictures_of(faceset):
        descriptors.append(compute_embedding(crop, predict_landmarks(crop, box)))
        on_face()
    mean: Embedding = np.mean(descriptors, axis=0)
    return mean
