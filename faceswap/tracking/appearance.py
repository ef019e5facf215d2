"""Tell by appearance whether two tracked faces show the same person.

A tracker that looks only at places follows a cut on an unchanged background from one person to the
next. Successive frames of one face look alike, so a small patch is compared first. Only if the
patches differ, the face embeddings decide.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from faceswap.arrays import Embedding, FloatImage, Image
from faceswap.faces.dlib_backend import compute_embedding
from faceswap.faces.geometry import Box, Face, face_matrix, overlap, transform, warp_image
from faceswap.faces.landmarks import HEAD
from faceswap.faces.pose import facing

PATCH_SIDE, PATCH_COVERAGE, PATCH_BLUR = 32, 0.9, 1.0  # pixels; share of the side; pixels
CHIP_SIDE, CHIP_COVERAGE = 160, 0.5  # the crop from which an embedding is computed
# Correlation of two patches from which they show the same face. In four clips, faces two frames
# apart had at least 0.82; different people had at most 0.75.
ALIKE = 0.8
# Distance of two embeddings beyond which they show different people; see also
# :data:`faceswap.faces.dlib_backend.SAME_PERSON`. Blur and hands raise the distance between frames
# of one person.
ANOTHER = 0.65
MAX_YAW = 35.0  # degrees beyond which an embedding says little
# A face that is pasted over another keeps the surroundings: such patches had up to 0.92.
HARDLY_CHANGED = 0.95


class Look:
    """How a face looks in one frame.

    Args:
        image: The frame, RGB (H, W, 3) or grey (H, W).
        face: The face in it.
    """

    def __init__(self, image: Image, face: Face) -> None:
        self._image, self._face = image, face
        to_patch = face_matrix(face.landmarks, PATCH_SIDE, PATCH_COVERAGE)
        patch = _gray(warp_image(image, to_patch, PATCH_SIDE, PATCH_SIDE))
        smooth = np.asarray(cv2.GaussianBlur(patch, (0, 0), PATCH_BLUR), np.float32)
        smooth -= smooth.mean()
        self._patch: FloatImage = smooth / max(float(np.linalg.norm(smooth)), 1e-6)

    def shows_another(self, other: "Look", alike: float = ALIKE) -> bool:
        """Return whether this certainly shows another person than the other look.

        Args:
            other: The other look.
            alike: Correlation of the patches from which embeddings are not even compared.
        """
        if float((self._patch * other._patch).sum()) >= alike:
            return False
        one, two = self._embedding, other._embedding
        if one is None or two is None:
            return False
        return bool(np.linalg.norm(one - two) > ANOTHER)

    @property
    def tells_who(self) -> bool:
        """Whether the face is seen well enough to tell from its embedding whom it shows."""
        return self._embedding is not None

    @cached_property
    def _embedding(self) -> Embedding | None:
        """The face's embedding; None if it is cut off, or seen too obliquely for one."""
        face = self._face
        height, width = self._image.shape[:2]
        inside = (face.landmarks >= 0) & (face.landmarks < [width, height])
        if not (inside.all() and is_knowable(face)):
            return None
        matrix = face_matrix(face.landmarks, CHIP_SIDE, CHIP_COVERAGE)
        chip = _gray(warp_image(self._image, matrix, CHIP_SIDE, CHIP_SIDE))
        points = transform(face.landmarks, matrix)
        return compute_embedding(np.repeat(chip[..., np.newaxis], 3, axis=2), points)


@dataclass(slots=True)
class _Visit:
    """Somebody in one place of the footage: where, how and in which frame they were seen last."""

    box: Box
    look: Look
    frame: int


class Visits:
    """Notices that somebody comes back to a place in which somebody else was for a moment.

    Args:
        longest: For how many frames a person is remembered.
        same_place: Intersection over union above which boxes of two frames are one place.
    """

    def __init__(self, longest: int, same_place: float) -> None:
        self._longest, self._same_place = longest, same_place
        self._visits: list[_Visit] = []

    def frames_away(self, frame: int, box: Box, look: Look) -> int | None:
        """Return for how many frames somebody else was in the place of a face; None if nobody was.

        Args:
            frame: The index of the frame, which never decreases.
            box: The box of the face in the frame.
            look: How the face looks.
        """
        self._visits = [each for each in self._visits if frame - each.frame <= self._longest]
        here = [each for each in self._visits
                if each.frame < frame and overlap(each.box, box) > self._same_place]  # fmt: skip
        here.sort(key=lambda each: (each.frame, overlap(each.box, box)), reverse=True)
        for number, visit in enumerate(here):
            is_doubtful = number > 0 and not visit.look.tells_who
            if not (is_doubtful or look.shows_another(visit.look, HARDLY_CHANGED)):
                away = frame - visit.frame - 1
                visit.box, visit.look, visit.frame = box, look, frame
                return away if number else None
        self._visits.append(_Visit(box, look, frame))
        return None


def _gray(image: Image) -> Image:
    if image.ndim == 2:
        return image
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def is_knowable(face: Face) -> bool:
    """Return whether a face is seen well enough to tell from its embedding whom it shows."""
    yaw, _, _ = facing(face.landmarks)
    return face.placed_by != HEAD and abs(yaw) <= MAX_YAW
