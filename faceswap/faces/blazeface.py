"""Detect faces with the full-range BlazeFace, which Google trained on its own images.

V. Bazarevsky et al., "BlazeFace: sub-millisecond neural face detection on mobile GPUs",
arXiv:1907.05047. See ``faceswap/weights/manifest.json`` for the network's origin.
"""

from functools import cache
from itertools import product

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import FloatImage, Image
from faceswap.faces import networks
from faceswap.faces.geometry import Box, Detection, scale_detection, shrunk, without_overlaps

WEIGHTS = "blazeface_full.onnx"
SIDE, CELLS = 192, 48  # pixels of the network's input, and its anchors along each side
LOGITS, SHAPES = "out_reshaped_classifier_face_4", "out_reshaped_regressor_face_4"
# Added to the logits, so that the usual minimum score of 0.2 suits this network too.
SHIFT = 0.1
OVERLAP = 48  # pixels that neighbouring tiles share: the largest face that a border could cut
# Half the width of a mouth in eye distances. The network marks only the middle of the mouth.
HALF_MOUTH = 0.42
Numbers = npt.NDArray[np.float64]


def detect(image: Image, min_score: float, longest: int) -> list[Detection]:
    """Detect the faces of an image, in no particular order.

    The image is shrunk, then searched in overlapping tiles of ``SIDE`` pixels. In a tile, faces of
    about 12 to 100 pixels are found.

    Args:
        image: RGB (H, W, 3), or grey (H, W).
        min_score: Minimum score: the network's logit, shifted by ``SHIFT``.
        longest: Longest side of the image that is searched; larger ones are shrunk to it.
    """
    if image.ndim == 2:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    small, scale = shrunk(image, longest)
    height, width = small.shape[:2]
    found = [
        scale_detection(detection, 1 / scale)
        for left, top in product(_starts(width), _starts(height))
        for detection in _detect_in_tile(small, left, top, min_score)
    ]
    return without_overlaps(found)


def _starts(length: int) -> list[int]:
    """Return where the tiles along a side begin; a smaller image lies in the middle of its tile."""
    if length <= SIDE:
        return [(length - SIDE) // 2]
    count = -(-(length - OVERLAP) // (SIDE - OVERLAP))
    return [int(start) for start in np.linspace(0, length - SIDE, count).round()]


def _detect_in_tile(image: Image, left: int, top: int, min_score: float) -> list[Detection]:
    """Search one tile of an image."""
    height, width = image.shape[:2]
    tile = np.zeros((SIDE, SIDE, 3), np.uint8)
    part = image[max(top, 0) : top + SIDE, max(left, 0) : left + SIDE]
    y, x = max(-top, 0), max(-left, 0)
    tile[y : y + len(part), x : x + part.shape[1]] = part
    results = networks.load(WEIGHTS).run(networks.channels_first(tile) * 2 - 1)
    scores = results[LOGITS].reshape(-1).astype(np.float64) + SHIFT
    kept = np.flatnonzero(scores >= min_score)
    corner = np.array([left, top])
    shapes = zip(scores[kept].tolist(), _shapes(results[SHAPES], kept) + corner, strict=True)
    found = [_detection(shape, score, width, height) for score, shape in shapes]
    return [detection for detection in found if detection]


def _shapes(regressors: FloatImage, kept: npt.NDArray[np.intp]) -> Numbers:
    """Return corners and points of some anchors in pixels of the tile, (N, 8, 2)."""
    shapes = regressors.reshape(-1, 8, 2)[kept].astype(np.float64)
    half = shapes[:, 1] / 2
    shapes[:, 1] = shapes[:, 0]  # the centre, then the size, then six points
    shapes += _anchors()[kept, None]
    shapes[:, 0] -= half
    shapes[:, 1] += half
    return shapes


def _detection(shape: Numbers, score: float, width: int, height: int) -> Detection | None:
    """Convert corners and points in an image; None if their centre is outside of it."""
    x, y = shape[:2].mean(axis=0)
    if not (0 <= x < width and 0 <= y < height):
        return None
    box = Box(*(float(side) for side in shape[:2].ravel()))
    right, left, nose, mouth = shape[2:6]
    across = HALF_MOUTH * (left - right)
    points = np.array([right, left, nose, mouth - across, mouth + across], np.float32)
    return Detection(box, score, points)


@cache
def _anchors() -> Numbers:
    """Return the centres of the anchors (N, 2) in pixels of the input."""
    centers = [(x + 0.5, y + 0.5) for y, x in product(range(CELLS), range(CELLS))]
    return np.array(centers) * (SIDE / CELLS)
