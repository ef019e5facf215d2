"""Face embeddings of reference photos, facesets and videos."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from faceswap.arrays import Embedding, Image, Points
from faceswap.config import AUTO_LANDMARKS
from faceswap.errors import InputError, NoFacesError
from faceswap.faces.detection import DetectorSpec, detect_yunet
from faceswap.faces.dlib_backend import compute_embedding
from faceswap.faces.geometry import Face
from faceswap.faces.landmarks import predict
from faceswap.facesets.faceset import Faceset
from faceswap.media.footage import Footage
from faceswap.media.photos import read_photo

log = logging.getLogger(__name__)


MIN_SCORE = 0.2  # of the faces in those frames
SURVEY_FRAMES = 48  # maximum number of key frames of a video to search for a person
# Distance to a person's mean embedding below which a face certainly shows that person. Of 694
# portraits of two people, only one was closer than this (by 0.002) to the other person's mean.
CERTAIN_DISTANCE = 0.55


def embedding_of(photo: Path, choice: str = AUTO_LANDMARKS) -> Embedding:
    """Compute the embedding of the largest face in a reference photo, (128,).

    Raises:
        InputError: If the photo cannot be read, dlib's weights are missing, or the landmark model
            cannot be used.
        NoFacesError: If no face is found in it.
    """
    image = read_photo(photo).image
    faces = detect_yunet(image, 0.0, choice)
    if not faces:
        raise NoFacesError(
            f"no face found in the reference photo {photo}; use a sharper or larger photo"
        )
    if len(faces) > 1:
        side = "left" if _middle(faces[0]) < _middle(faces[1]) else "right"
        log.warning(
            "the reference photo %s shows %d people: the largest face, %s of the next, is meant; "
            "crop the photo to name another", photo, len(faces), side,
        )  # fmt: skip
    return compute_embedding(image, faces[0].landmarks)


def _middle(face: Face) -> float:
    return (face.box.left + face.box.right) / 2


def appears(person: Embedding, footage: Footage, spec: DetectorSpec) -> bool:
    """Return whether a person certainly appears in a video, judged by some of its key frames.

    Args:
        person: The mean embedding of the person's faces, (128,).
        footage: A video or an image sequence.
        spec: The detector and its landmark models.

    Returns:
        True if a sampled face is nearer than ``CERTAIN_DISTANCE``. False otherwise, and also if the
        video cannot be sampled, for example because its length is unknown.
    """
    try:
        for frame in footage.sample(SURVEY_FRAMES, exact=False):
            view = spec.view(frame, frame.gray(), middle=False, searched=True)
            for face in spec.detect_in_video(view, MIN_SCORE):
                if (
                    np.linalg.norm(compute_embedding(frame.image, face.landmarks) - person)
                    < CERTAIN_DISTANCE
                ):
                    return True
    except InputError:  # this must not stop the conversion
        return False
    return False


def pictures_of(faceset: Faceset) -> list[tuple[Image, Points, str]]:
    """Return each crop as an image (S, S, 3), its landmarks (68, 2), and what placed them."""
    crops = faceset.crops.permute(0, 2, 3, 1).contiguous().numpy()
    return list(zip(crops, faceset.landmarks, faceset.placed_by, strict=True))


def centroid(
    faceset: Faceset, on_face: Callable[[], None] = lambda: None, choice: str = AUTO_LANDMARKS
) -> Embedding:
    """Compute the mean embedding of the faces of a faceset, (128,), from stored ones if it has any.

    Args:
        faceset: A faceset with at least one face.
        on_face: Called after each face.
        choice: The choice of landmark models.

    Raises:
        InputError: If dlib's weights are missing or the landmark model cannot be used.
        AlignmentError: If the landmarks of a face coincide.
    """
    stored = np.isfinite(faceset.embeddings).all(axis=1)
    if stored.any():
        for _ in faceset.keys:
            on_face()
        return np.asarray(faceset.embeddings[stored].mean(axis=0), np.float32)
    embeddings = []
    for crop, points, placed_by in pictures_of(faceset):
        again = predict(crop, points, choice, placed_by)
        embeddings.append(compute_embedding(crop, again))
        on_face()
    mean: Embedding = np.mean(embeddings, axis=0)
    return mean
