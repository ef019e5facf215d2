"""Measure a facial expression as 52 blendshape scores.

The network maps points of FaceMesh to the scores. The points that it takes and the names of the
scores are those of MediaPipe's ``face_blendshapes_graph.cc``. The network's origin is in
``faceswap/weights/manifest.json``.
"""

import numpy as np
import numpy.typing as npt

from faceswap.arrays import Image, Points
from faceswap.errors import AlignmentError
from faceswap.faces import mesh, networks
from faceswap.faces.mesh import PRESENT

WEIGHTS = "blendshapes.onnx"
TAKEN = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66,
    67, 70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144,
    145, 146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173,
    176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284,
    285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332,
    334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386,
    387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, *range(468, 478),
)  # fmt: skip
NAMES = (
    "neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft",
    "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft",
    "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight",
    "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft",
    "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight",
    "mouthFunnel", "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft",
    "mouthPressRight", "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
# The parts of a face whose expressions are compared, by the beginning of the names.
PARTS = {"eyes": ("eye",), "brows": ("brow",), "mouth": ("mouth", "jaw")}


def scores(points: Points) -> npt.NDArray[np.float32]:
    """Return the 52 scores in [0, 1] of ``NAMES`` from the points (478, 2) of a mesh, in pixels."""
    taken = np.ascontiguousarray(points[list(TAKEN)][np.newaxis], np.float32)
    (found,) = networks.load(WEIGHTS).run(taken).values()
    return np.clip(found.reshape(-1), 0, 1)


def of_face(image: Image, landmarks: Points) -> npt.NDArray[np.float32] | None:
    """Return the 52 scores of a face near its landmarks (68, 2); None if no mesh fits there."""
    try:
        found = mesh.fit_near(image, landmarks)
    except AlignmentError:  # all landmarks coincide
        return None
    return scores(found.points) if found.presence >= PRESENT else None


def distance(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating], part: str) -> float:
    """Return the mean absolute difference of the scores of a part of ``PARTS``."""
    chosen = [name.startswith(PARTS[part]) for name in NAMES]
    return float(np.abs(one - other)[chosen].mean())
