"""Place the 68 iBUG landmarks on detected faces, and track them from frame to frame.

dlib's landmarks define the aligned space, so they come first: on faces on which its predictions
agree with one another and with FaceMesh. FaceMesh takes the others, as far as the detector's own
points confirm it. What is left are full profiles, on which an average head is placed by them.

The user chooses by a word or a path: ``auto`` is the order above, ``dlib`` and ``mesh`` use one
model alone, and a path is that of a dlib shape predictor that takes the place of dlib's own. It
need not agree with FaceMesh, only with itself.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from faceswap.arrays import Image, Points
from faceswap.config import AUTO_LANDMARKS, DLIB_LANDMARKS, MESH_LANDMARKS
from faceswap.errors import AlignmentError
from faceswap.faces import dlib_backend, mesh
from faceswap.faces.dlib_backend import AROUND, QUICK_AROUND, QUICK_SIDES, SIDES
from faceswap.faces.geometry import (
    MAX_JUMP,
    Box,
    Detection,
    Face,
    centers_apart,
    face_matrix,
    invert,
    is_one_step,
    transform,
    turned_square,
    typical_box,
    warp_image,
)
from faceswap.faces.mesh import PRESENT
from faceswap.faces.pose import five_of, landmarks_from_five
from faceswap.files import sha256_of

HEAD = "head"  # stands for an average head in ``Face.placed_by``
# Mean distances as shares of the side of the box that typically belongs to the landmarks. Beyond
# them, FaceMesh does not lie where the detector saw the face, or dlib not where FaceMesh lies.
MESH_APART, DLIB_APART = 0.12, 0.06
MAX_ERROR = 0.25  # eye distances by which an average head may miss the detector's points
MIN_VISIBLE = 0.1  # share of the side of a face's box below which it has left the image
MIN_TEMPLATE = 4  # pixels: least side of a part of a face that can be found again
ALIKE = 0.8  # correlation from which that part is the same in two frames
LEVEL = 20.0  # degrees of roll that dlib's model was fitted to; beyond it the image is turned
UPRIGHT_SIDE, SURROUNDINGS = 512, 2.0  # the turned image: its side, and its side over the box's

Placed = tuple[Points, str]  # landmarks (68, 2), and what placed them: see ``Face.placed_by``


def model_path(choice: str) -> str | None:
    """Return the path of the user's landmark model; None if the choice names none."""
    return None if choice in (AUTO_LANDMARKS, DLIB_LANDMARKS, MESH_LANDMARKS) else choice


def check(choice: str) -> None:
    """Check that the landmark models of a choice can be used.

    Raises:
        InputError: If the user's model is missing or damaged, or does not predict 68 points.
    """
    if path := model_path(choice):
        dlib_backend.landmark_model(path)


def digest(choice: str) -> str | None:
    """Return what tells choices apart that place landmarks differently; None for ``auto``.

    This is the word, or the SHA-256 of the user's landmark model.

    Raises:
        InputError: See :func:`check`.
    """
    check(choice)
    if path := model_path(choice):
        return sha256_of(Path(path))
    return None if choice == AUTO_LANDMARKS else choice


def place(
    image: Image, detection: Detection, choice: str = AUTO_LANDMARKS, quickly: bool = False
) -> Placed | None:
    """Place the landmarks of a face; None if nothing that was tried is plausible.

    Args:
        image: RGB (H, W, 3), or grey (H, W).
        detection: The face.
        choice: The landmark models.
        quickly: Whether dlib averages fewer predictions, as in video.

    Raises:
        InputError: If dlib's weights are missing or the landmark model cannot be used.
    """
    fitted = None if choice == DLIB_LANDMARKS else _fit_mesh(image, detection)
    fitted = fitted or _pose_head(detection)
    if fitted is None and detection.points is not None:
        return None
    if choice == MESH_LANDMARKS:
        return fitted
    try:
        box = typical_box(fitted[0]) if fitted else detection.box
        angle = _roll(five_of(fitted[0])) if fitted else 0.0
        predicted, spread = _predict(image, box, angle, choice, quickly)
    except AlignmentError:  # all points coincide
        return None
    agrees = spread <= dlib_backend.MAX_DISAGREEMENT
    if fitted and choice == AUTO_LANDMARKS:
        agrees &= _apart(predicted, fitted[0]) <= DLIB_APART
    if agrees:
        return predicted, DLIB_LANDMARKS
    return None if choice == DLIB_LANDMARKS else fitted


def predict(image: Image, near: Points, choice: str, placed_by: str = DLIB_LANDMARKS) -> Points:
    """Predict landmarks (68, 2) where a face is known to be.

    Args:
        image: RGB (H, W, 3), or grey (H, W).
        near: Landmarks of the face, or of another at about the same place, (68, 2).
        choice: The landmark models.
        placed_by: What placed those landmarks. Faces are only comparable if one model marks them
            all, so FaceMesh is used only where ``choice`` or this says so.

    Raises:
        AlignmentError: If the landmarks coincide.
        InputError: If dlib's weights are missing or the landmark model cannot be used.
    """
    if choice == MESH_LANDMARKS or (placed_by != DLIB_LANDMARKS and choice != DLIB_LANDMARKS):
        return mesh.fit_near(image, near).landmarks()
    return dlib_backend.predict_with_spread(image, typical_box(near), model_path(choice))[0]


class LandmarkTracker:
    """Tracks one face from frame to frame, in one direction.

    dlib tracks faces that it placed. Once it loses the face, FaceMesh tracks it to the end, moved
    by the distance between the two models in the last frame that both see, so that no landmark
    jumps.

    Where FaceMesh does not see the face, as in full profile, it is detected again near its last
    place.

    Args:
        choice: The landmark models.
        search: Detects faces near a box of an image; without it, such faces are lost.
    """

    def __init__(
        self, choice: str, search: Callable[[Image, Box], list[Detection]] | None = None
    ) -> None:
        self._choice, self._search = choice, search
        self._offsets: Points | None = None

    def track(self, before: Image, face: Face, image: Image) -> Face | None:
        """Track a face into a neighbouring frame; return None if it is lost.

        A face is lost if its landmarks are implausible, or if it moved, grew or shrank too much for
        one frame. If the edge of the image cuts a face off, its visible part is followed until
        hardly anything of it is left.

        Args:
            before: The frame with the face, (H, W, 3) or grey (H, W).
            face: The face.
            image: The neighbouring frame.

        Raises:
            InputError: If dlib's weights are missing or the landmark model cannot be used.
        """
        try:
            if face.placed_by == DLIB_LANDMARKS and self._choice != MESH_LANDMARKS:
                moved = _step_by_dlib(face, image, self._choice)
                if moved is None and self._choice == DLIB_LANDMARKS:
                    moved = _shift_cut_face(before, face, image)
                if moved or self._choice == DLIB_LANDMARKS:
                    return moved
            moved = self._by_mesh(before, face, image) or self._by_search(face, image)
            return moved or _shift_cut_face(before, face, image)
        except AlignmentError:  # all landmarks coincide
            return None

    def _by_mesh(self, before: Image, face: Face, image: Image) -> Face | None:
        found = mesh.fit_near(image, face.landmarks)
        if found.presence < PRESENT:
            return None
        if face.placed_by == HEAD:
            self._offsets = np.zeros_like(face.landmarks)
        elif self._offsets is None:
            known = mesh.fit_near(before, face.landmarks).landmarks()
            to_square = face_matrix(known, 1, 1.0)
            self._offsets = transform(face.landmarks, to_square) - transform(known, to_square)
        placed = found.landmarks()
        to_square = face_matrix(placed, 1, 1.0)
        moved = transform(transform(placed, to_square) + self._offsets, invert(to_square))
        after = typical_box(moved)
        if not is_one_step(typical_box(face.landmarks), after, image):
            return None
        return replace(face, box=after, landmarks=moved, placed_by=MESH_LANDMARKS)

    def _by_search(self, face: Face, image: Image) -> Face | None:
        if self._search is None or self._choice == DLIB_LANDMARKS:
            return None
        box = typical_box(face.landmarks)
        for detection in sorted(
            self._search(image, box), key=lambda each: centers_apart(each.box, box)
        ):
            fitted = None if face.placed_by == HEAD else _fit_mesh(image, detection)
            fitted = fitted or _pose_head(detection)
            if fitted and is_one_step(box, after := typical_box(fitted[0]), image):
                return replace(face, box=after, landmarks=fitted[0], placed_by=fitted[1])
        return None


def predict_again(image: Image, near: Points, choice: str) -> Points | None:
    """Predict the landmarks of a painted face, which are near others; None if there are none.

    One model predicts all of them, because their differences are learned from.

    Raises:
        InputError: If dlib's weights are missing or the landmark model cannot be used.
    """
    try:
        if choice == MESH_LANDMARKS:
            found = mesh.fit_near(image, near)
            return found.landmarks() if found.presence >= PRESENT else None
        face = _step_by_dlib(Face(typical_box(near), 0.0, near), image, choice)
        return face.landmarks if face else None
    except AlignmentError:  # all landmarks coincide
        return None


def _step_by_dlib(face: Face, image: Image, choice: str) -> Face | None:
    """Track a face into a neighbouring frame with dlib; None if it is lost."""
    box, angle = typical_box(face.landmarks), _roll(five_of(face.landmarks))
    moved, spread = _predict(image, box, angle, choice, quickly=True, once=True)
    after = typical_box(moved)
    if spread > dlib_backend.MAX_DISAGREEMENT or not is_one_step(box, after, image):
        return None
    return replace(face, box=after, landmarks=moved)


def _shift_cut_face(before: Image, face: Face, image: Image) -> Face | None:
    """Follow what is visible of a face that the edge of the image cuts off.

    Returns:
        The face, shifted; None if it is not cut off, hardly visible, or not found again.
    """
    height, width = image.shape[:2]
    box = typical_box(face.landmarks)
    left, right = (round(min(max(side, 0), width)) for side in (box.left, box.right))
    top, bottom = (round(min(max(side, 0), height)) for side in (box.top, box.bottom))
    is_cut = box.left < 0 or box.top < 0 or box.right > width or box.bottom > height
    if not is_cut or min(right - left, bottom - top) < MIN_VISIBLE * _side(box):
        return None
    reach = round(MAX_JUMP * _side(box))
    # What leaves the image cannot be found again, so only the inner half of the face is.
    across, down = (right - left) // 2, (bottom - top) // 2
    inner = (
        left + across * (box.left < 0),
        top + down * (box.top < 0),
        right - across * (box.right > width),
        bottom - down * (box.bottom > height),
    )
    if min(inner[2] - inner[0], inner[3] - inner[1]) < MIN_TEMPLATE:
        return None
    template = before[inner[1] : inner[3], inner[0] : inner[2]]
    area = max(inner[0] - reach, 0), max(inner[1] - reach, 0)
    searched = image[area[1] : inner[3] + reach, area[0] : inner[2] + reach]
    matches = cv2.matchTemplate(searched, template, cv2.TM_CCOEFF_NORMED)
    _, likeness, _, (x, y) = cv2.minMaxLoc(matches)
    if likeness < ALIKE:
        return None
    shift = area[0] + x - inner[0], area[1] + y - inner[1]
    moved = face.landmarks + np.array(shift, np.float32)
    return replace(face, box=typical_box(moved), landmarks=moved)


def _fit_mesh(image: Image, detection: Detection) -> Placed | None:
    """Fit FaceMesh to a face; None if it does not lie where the detector saw the face."""
    box = detection.box
    angle = 0.0 if detection.points is None else _roll(detection.points)
    center = np.array([(box.left + box.right) / 2, (box.top + box.bottom) / 2])
    side = max(box.right - box.left, box.bottom - box.top)
    found = mesh.fit_detection(image, center, side, angle)
    try:
        landmarks = found.landmarks()
        side = _side(typical_box(landmarks))
    except AlignmentError:  # all points coincide
        return None
    if detection.points is None:
        return (landmarks, MESH_LANDMARKS) if found.presence >= PRESENT else None
    apart = np.linalg.norm(five_of(landmarks) - detection.points, axis=1).mean() / side
    return (landmarks, MESH_LANDMARKS) if apart <= MESH_APART else None


def _pose_head(detection: Detection) -> Placed | None:
    """Place an average head where the detector saw a face; None if it cannot look like that."""
    if detection.points is None:
        return None
    placed, error = landmarks_from_five(detection.points)
    return (placed, HEAD) if error <= MAX_ERROR else None


def _predict(
    image: Image, box: Box, angle: float, choice: str, quickly: bool, once: bool = False
) -> tuple[Points, float]:
    """Let dlib predict landmarks in a box, on an image that is turned upright if need be.

    Returns:
        The landmarks (68, 2) and their spread; see :func:`dlib_backend.predict_with_spread`.
    """
    around, sides = (QUICK_AROUND, QUICK_SIDES) if quickly else (AROUND, SIDES)
    path = model_path(choice)
    if abs(math.degrees(angle)) <= LEVEL:
        return dlib_backend.predict_with_spread(image, box, path, around, sides, once)
    center = np.array([(box.left + box.right) / 2, (box.top + box.bottom) / 2])
    to_upright = turned_square(center, SURROUNDINGS * _side(box), angle, UPRIGHT_SIDE)
    upright = warp_image(image, to_upright, UPRIGHT_SIDE, UPRIGHT_SIDE)
    half, middle = UPRIGHT_SIDE / SURROUNDINGS / 2, UPRIGHT_SIDE / 2
    turned = Box(middle - half, middle - half, middle + half, middle + half)
    predicted, spread = dlib_backend.predict_with_spread(upright, turned, path, around, sides, once)
    return transform(predicted, invert(to_upright)), spread


def _roll(five: Points) -> float:
    """Return the direction from the right eye to the left in radians, from five points."""
    across = five[1].astype(np.float64) - five[0]
    return math.atan2(across[1], across[0])


def _apart(one: Points, other: Points) -> float:
    distances = np.linalg.norm(one[17:] - other[17:], axis=1)  # without the jaw
    return float(distances.mean()) / _side(typical_box(other))


def _side(box: Box) -> float:
    return box.right - box.left
