"""Face embeddings of reference photos, facesets and videos."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from faceswap.arrays import Embedding, Image
from faceswap.errors import InputError, NoFacesError
from faceswap.faces.detection import detect_auto
from faceswap.faces.dlib_backend import compute_embedding, detect_hog_quickly, predict_landmarks
from faceswap.faces.faceset import Faceset
from faceswap.faces.geometry import Box, typical_box
from faceswap.media.photos import read_photo
from faceswap.media.reader import sample_video

SAME_PERSON = 0.6  # embedding distance below which two faces are one person, according to dlib

SURVEY_FRAMES = 48  # maximum number of key frames of a video to search for a person
# Distance to a person's mean embedding below which a face certainly shows that person. Of 694
# portraits of two people, only one was closer than this (by 0.002) to the other person's mean.
CERTAIN_DISTANCE = 0.55


def embedding_of(photo: Path, landmarks: str | None = None) -> Embedding:
    """Compute the embedding of the largest face in a reference photo, (128,).

    Raises:
        InputError: If the photo cannot be read, dlib's weights are missing, or the landmark model
            cannot be used.
        NoFacesError: If no face is found in it.
    """
    image = read_photo(photo).image
    faces = detect_auto(image, 0.0, landmarks)
    if not faces:
        raise NoFacesError(
            f"no face found in the reference photo {photo}; use a sharper or larger photo"
        )
    return compute_embedding(image, faces[0].landmarks)


def appears(person: Embedding, video: Path, landmarks: str | None = None) -> bool:
    """Return whether a person certainly appears in a video, judged by some of its key frames.

    Args:
        person: The mean embedding of the person's faces, (128,).
        video: The video file.
        landmarks: The path of the user's landmark model; None uses dlib's.

    Returns:
        True if a sampled face is nearer than ``CERTAIN_DISTANCE``. False otherwise, and also if the
        video cannot be sampled, for example because its length is unknown.
    """
    try:
        for frame in sample_video(video, SURVEY_FRAMES, exact=False):
            for face in detect_hog_quickly(frame.image, 0.2, landmarks):
                if (
                    np.linalg.norm(compute_embedding(frame.image, face.landmarks) - person)
                    < CERTAIN_DISTANCE
                ):
                    return True
    except InputError:  # this must not stop the conversion
        return False
    return False


def pictures_of(faceset: Faceset) -> list[tuple[Image, Box]]:
    """Return each crop as an image (S, S, 3), with an estimate of the box that HOG would detect.

    Raises:
        AlignmentError: If the landmarks of a face coincide.
    """
    crops = faceset.crops.permute(0, 2, 3, 1).contiguous().numpy()
    return [
        (crop, typical_box(points)) for crop, points in zip(crops, faceset.landmarks, strict=True)
    ]


def centroid(
    faceset: Faceset, on_face: Callable[[], None] = lambda: None, landmarks: str | None = None
) -> Embedding:
    """Compute the mean embedding of the faces of a faceset, (128,).

    Args:
        faceset: A faceset with at least one face.
        on_face: Called after each face.
        landmarks: The path of the user's landmark model; None uses dlib's.

    Raises:
        InputError: If dlib's weights are missing or the landmark model cannot be used.
        AlignmentError: If the landmarks of a face coincide.
    """
    embeddings = []
    for crop, box in pictures_of(faceset):
        embeddings.append(compute_embedding(crop, predict_landmarks(crop, box, landmarks)))
        on_face()
    mean: Embedding = np.mean(embeddings, axis=0)
    return mean
