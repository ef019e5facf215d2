"""Landmarks of a face from FaceMesh, version 2.

Y. Kartynnik et al., "Real-time facial surface geometry from monocular video on mobile GPUs",
arXiv:1907.06724; I. Grishchenko et al., "Attention Mesh", arXiv:2006.10962, for the irises. See
``faceswap/weights/manifest.json`` for the network's origin.
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import Image, Matrix, Points
from faceswap.faces import networks
from faceswap.faces.geometry import (
    compose,
    face_matrix,
    invert,
    transform,
    turned_square,
    warp_image,
)

WEIGHTS = "face_mesh.onnx"
PRESENT = 0.5  # least probability that the mesh lies on a face
SIDE = 256  # pixels of the network's input
POINTS = 478  # 468 points of the mesh and 5 for each iris
FLAT, PRESENCE = "out_Identity", "out_Identity_1"  # outputs: x, y, z of each point; a logit
# The network expects a square whose side is 1.5 times the extent of the mesh, with the eyes level.
# CROP_Y and CROP_SIDE are the height of that square's centre and its side in the mean face's unit
# square, to place it from known landmarks: medians of 608 portraits.
MARGIN, CROP_Y, CROP_SIDE = 1.5, 0.46, 1.885
OUTER_CORNERS = (33, 263)  # of the right and of the left eye
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


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """A mesh that was fitted to a face.

    Attributes:
        points: Image pixels, (478, 2).
        presence: Probability that the mesh lies on a face. It is near 0 in full profile.
    """

    points: Points
    presence: float

    def landmarks(self) -> Points:
        """Return iBUG landmarks (68, 2); see :func:`landmarks_of`.

        Raises:
            AlignmentError: If the points coincide.
        """
        return landmarks_of(self.points)


def landmarks_of(points: Points) -> Points:
    """Convert mesh points (468 or 478, 2) to iBUG landmarks (68, 2) where dlib would place them.

    FaceMesh and dlib were trained to place brows, jaw and lips differently. The offsets remove the
    average difference, so a model trained on crops from one works with the other.

    Raises:
        AlignmentError: If the points coincide.
    """
    selected = points[list(VERTICES)]
    to_square = face_matrix(selected, 1, 1.0)
    return transform(transform(selected, to_square) + offsets(), invert(to_square))


@cache
def offsets() -> Points:
    """Return the mean offsets (68, 2) from the mesh vertices to dlib's landmarks.

    The unit is the side of the mean face's unit square. Derived by
    ``scripts/tools/derive_mesh_offsets.py``.
    """
    text = files("faceswap.faces").joinpath("mesh_offsets.json").read_text(encoding="utf-8")
    return np.array(json.loads(text)["offsets"], np.float32)


def fit_detection(
    image: Image, center: npt.NDArray[np.floating], side: float, angle: float
) -> Mesh:
    """Fit a mesh to a detected face.

    The first fit shows where the face is exactly, the second starts from there.

    Args:
        image: RGB (H, W, 3), or grey (H, W).
        center: Centre of the detector's box, (2,), pixels.
        side: Longer side of the box, pixels.
        angle: Direction from the right eye to the left, radians; 0 is level.
    """
    first = _fit(image, turned_square(center, MARGIN * side, angle, SIDE))
    return _fit(image, _crop_around(first.points))


def fit_near(image: Image, landmarks: Points) -> Mesh:
    """Fit a mesh near landmarks (68, 2), which may come from a neighbouring frame.

    Raises:
        AlignmentError: If the landmarks coincide.
    """
    return _fit(image, crop_near(landmarks, SIDE))


def crop_near(landmarks: Points, size: int) -> Matrix:
    """Return the matrix from an image to FaceMesh's input of ``size`` pixels for known landmarks.

    Raises:
        AlignmentError: If the landmarks coincide.
    """
    scale, middle = size / CROP_SIDE, (size - 1) / 2
    to_mesh = np.array([[scale, 0, middle], [0, scale, middle - scale * (CROP_Y - 0.5)]])
    # A crop of size 1 is the unit square with its centre at (0, 0).
    return compose(to_mesh, face_matrix(landmarks, 1, 1.0))


def _fit(image: Image, to_mesh: Matrix) -> Mesh:
    crop = warp_image(image, to_mesh, SIDE, SIDE)
    if crop.ndim == 2:
        crop = np.asarray(cv2.cvtColor(crop, cv2.COLOR_GRAY2RGB), np.uint8)
    results = networks.load(WEIGHTS).run(networks.channels_first(crop))
    flat = results[FLAT].reshape(POINTS, 3)[:, :2]
    logit = float(results[PRESENCE].item())
    return Mesh(transform(flat, invert(to_mesh)), 1 / (1 + math.exp(-min(max(logit, -50), 50))))


def _crop_around(points: Points) -> Matrix:
    """Return the matrix from the image to the network's input for a fitted mesh."""
    right, left = points[list(OUTER_CORNERS)].astype(np.float64)
    angle = math.atan2(left[1] - right[1], left[0] - right[0])
    level = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned = points @ level.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    center = level.T @ ((low + high) / 2)
    return turned_square(center, MARGIN * float((high - low).max()), angle, SIDE)
