"""Detect faces, predict landmarks and compute face embeddings with dlib.

The HOG detector is fast, and the 68-point model was fitted to its boxes. The CNN detects nearly
all the faces that HOG misses, at 75 times the cost. The terms of dlib's landmark model exclude
commercial products, so every function that predicts landmarks accepts the path of another model,
and none of them is called if FaceMesh places the landmarks.
"""

import importlib.util
import math
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import dlib
import numpy as np

from faceswap.arrays import Embedding, Image, Matrix, Points
from faceswap.errors import AlignmentError, InputError
from faceswap.faces.geometry import (
    Box,
    Detection,
    invert,
    scale_of,
    shifted,
    shrunk,
    transform,
    typical_box,
    warp_image,
)
from faceswap.faces.networks import brightened
from faceswap.files import reason

POINTS = 68
WEIGHT_FILES = (
    "mmod_human_face_detector.dat",
    "shape_predictor_68_face_landmarks.dat",
    "dlib_face_recognition_resnet_model_v1.dat",
)

SAME_PERSON = 0.6  # embedding distance below which two faces are one person, according to dlib
HOG_SIDE = 1280  # longest side of the image given to HOG, which detects faces of at least 80 px
NOISE_BLUR = 1.0  # standard deviation in pixels
FINE_SIDE = 800  # longest side of an image that HOG enlarges for a second search
CNN_SIDE = 640  # the CNN takes 2 CPU-seconds at 640 x 360 and four times that at 1280 x 720
MIN_CNN_SIDE = 32  # the CNN crashes on tiny images and detects nothing in slightly larger ones
BORDER = 0.25  # mirrored border as a share of the shorter side, for faces cut off by the image edge
# The 68-point model was fitted to HOG's boxes. On 65 portraits the median CNN box was 0.917 times
# as wide as HOG's, and its centre was 0.058 HOG box widths higher. Correcting that lowers the
# landmark error at the 95th percentile from 0.14 to 0.11 of the eye distance.
CNN_WIDTH, CNN_RISE = 0.917, 0.058
# Minimum and maximum side of the face box in the image that the landmark model sees. QUICK_SIDES
# and QUICK_AROUND are for faces in video, whose landmarks are usually smoothed over time.
Sides = tuple[int, int]
SIDES, QUICK_SIDES = (256, 256), (128, 320)
# Boxes to predict landmarks for. Each is given by its shift to the right and down, as shares of the
# detector box's side, and by its size relative to that box.
Around = tuple[tuple[float, float, float], ...]
AROUND: Around = (
    (0, 0, 1), (0.04, 0, 1), (-0.04, 0, 1), (0, 0.04, 1), (0, -0.04, 1), (0, 0, 0.95), (0, 0, 1.05),
)  # fmt: skip
QUICK_AROUND: Around = ((0, 0, 1), (0.04, 0.02, 1), (-0.04, -0.02, 1))
# Maximum mean distance of the predictions from their average, as a share of the box's side. It is
# 0.002-0.007 on faces and about 0.03 on other content.
MAX_DISAGREEMENT = 0.012


def weights(name: str) -> str:
    """Locate one of dlib's weight files without importing the package that contains it.

    Importing face_recognition_models needs pkg_resources, which current setuptools lacks.

    Raises:
        InputError: If the package or the file is missing.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("dlib's weights are missing: pip install face-recognition-models")
    path = Path(spec.submodule_search_locations[0], "models", name)
    if not path.is_file():
        raise InputError(
            f"{path} is missing: pip install --force-reinstall face-recognition-models"
        )
    return str(path)


@cache
def landmark_model(landmarks: str | None) -> Any:
    """Load the shape predictor of the 68 iBUG landmarks.

    The result is cached, because it is needed several times per face.

    Args:
        landmarks: The path of the user's model; None loads dlib's.

    Raises:
        InputError: If the file is missing or damaged, or does not predict 68 points.
    """
    if landmarks and not Path(landmarks).is_file():
        raise InputError(
            f"the landmark model {landmarks} does not exist; pass a dlib shape predictor with "
            f"{POINTS} points"
        )
    path = landmarks or weights(WEIGHT_FILES[1])
    try:
        model = dlib.shape_predictor(path)
    except (RuntimeError, MemoryError, TypeError) as error:  # TypeError: path is not Unicode
        cause = reason(error)
        raise InputError(
            f"{path} is not a landmark model ({cause}); it must be a dlib shape predictor with "
            f"{POINTS} points"
        ) from error
    blank = np.zeros((16, 16), np.uint8)
    points = model(blank, dlib.rectangle(0, 0, 15, 15)).num_parts
    if points != POINTS:
        raise InputError(
            f"{path} predicts {points} landmarks, not the {POINTS} of iBUG; pass another landmark "
            "model"
        )
    return model


@cache
def _hog() -> Any:
    return dlib.get_frontal_face_detector()  # cached because this takes 0.7 s


@cache
def _cnn() -> Any:
    return dlib.cnn_face_detection_model_v1(weights("mmod_human_face_detector.dat"))


def search_hog(image: Image, min_score: float) -> tuple[Image, list[Detection]]:
    """Detect faces with dlib's HOG detector.

    If the first search finds nothing and the image's longer side is at most ``FINE_SIDE``, the
    image is searched again, enlarged and with a mirrored border. A dark image in which that finds
    nothing either is brightened and searched once more.

    N. Dalal and B. Triggs, "Histograms of oriented gradients for human detection", CVPR 2005.

    Args:
        image: RGB (H, W, 3), or grey (H, W).
        min_score: Minimum score of a detection, on HOG's own scale.

    Returns:
        searched: The image in which the faces were found, brightened if need be.
        detections: The faces whose centre is inside the image.
    """
    found = _hog_boxes_twice(image, min_score)
    lit = None if found else brightened(image, NOISE_BLUR)  # noise would hide the edges
    if lit is not None:
        image, found = lit, _hog_boxes_twice(lit, min_score)
    return image, _detections(image, found)


def search_cnn(image: Image, min_score: float) -> list[Detection]:
    """Detect faces with dlib's CNN; only those whose centre is inside the image.

    The image is searched again with a mirrored border if the first search finds nothing.

    D. E. King, "Max-margin object detection", arXiv:1502.00046.

    Args:
        image: RGB (H, W, 3).
        min_score: Minimum score of a detection, on the CNN's own scale.

    Raises:
        InputError: If dlib's weights are missing.
    """
    found = _cnn_boxes(image, min_score, border=0.0) or _cnn_boxes(image, min_score, BORDER)
    return _detections(image, found)


def _detections(image: Image, found: list[tuple[Box, float]]) -> list[Detection]:
    height, width = image.shape[:2]
    return [
        Detection(box, score, None)
        for box, score in found
        if 0 <= box.left + box.right < 2 * width and 0 <= box.top + box.bottom < 2 * height
    ]


def _shrink_and_mirror(image: Image, longest: int, border: float) -> tuple[Image, float, int]:
    """Shrink an image, add a mirrored border, and return it with the scale and the border width."""
    image, scale = shrunk(image, longest)
    margin = round(border * min(image.shape[:2]))
    if margin:
        image = np.asarray(
            cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_REFLECT), np.uint8
        )
    return image, scale, margin


def _hog_boxes_twice(image: Image, min_score: float) -> list[tuple[Box, float]]:
    found = _hog_boxes(image, min_score, border=0.0, enlarge=0)
    if not found and max(image.shape[:2]) <= FINE_SIDE:
        found = _hog_boxes(image, min_score, border=BORDER, enlarge=1)
    return found


def _hog_boxes(
    image: Image, min_score: float, border: float, enlarge: int
) -> list[tuple[Box, float]]:
    searched, scale, margin = _shrink_and_mirror(image, HOG_SIDE, border)
    rectangles, scores, _ = _hog().run(searched, enlarge, min(min_score, 0.0))
    return [
        (_box(rectangle, scale, margin), float(score))
        for rectangle, score in zip(rectangles, scores, strict=True)
        if score >= min_score
    ]


def _cnn_boxes(image: Image, min_score: float, border: float) -> list[tuple[Box, float]]:
    searched, scale, margin = _shrink_and_mirror(image, CNN_SIDE, border)
    if min(searched.shape[:2]) < MIN_CNN_SIDE:
        return []
    return [
        (_to_hog_box(_box(found.rect, scale, margin)), float(found.confidence))
        for found in _cnn()(searched, 0)
        if found.confidence >= min_score
    ]


def _box(rectangle: Any, scale: float, margin: int) -> Box:
    left, top = rectangle.left() - margin, rectangle.top() - margin
    width, height = rectangle.width(), rectangle.height()
    return Box(left / scale, top / scale, (left + width) / scale, (top + height) / scale)


def _to_hog_box(box: Box) -> Box:
    """Convert a CNN box to the box that HOG would return for the same face."""
    half = (box.right - box.left) / CNN_WIDTH / 2
    x, y = (box.left + box.right) / 2, (box.top + box.bottom) / 2 + CNN_RISE * 2 * half
    return Box(x - half, y - half, x + half, y + half)


def predict_with_spread(
    image: Image,
    box: Box,
    landmarks: str | None = None,
    around: Around = AROUND,
    sides: Sides = SIDES,
    once: bool = False,
) -> tuple[Points, float]:
    """Predict the 68 iBUG landmarks of a face, and measure how far predictions disagree.

    V. Kazemi and J. Sullivan, "One millisecond face alignment with an ensemble of regression
    trees", CVPR 2014. The landmarks shift with the box, so the predictions for several boxes around
    the given one are averaged. The detector's box may be off, so this is repeated around the box
    that fits the first average. The second average is used unless its predictions agree less.

    Args:
        image: (H, W, 3), or grey (H, W).
        box: The detector's box.
        landmarks: The path of a landmark model to use instead of dlib's own.
        around: Boxes to predict for: shift right and down as shares of the side, relative size.
        sides: Minimum and maximum side of the box in the image that the model sees.
        once: Whether the first average is enough, because the box is known to fit.

    Returns:
        landmarks: (68, 2), frame pixels.
        spread: Mean distance of a predicted point from the average of its predictions, over the
            side of the box; at most ``MAX_DISAGREEMENT`` on faces.

    Raises:
        InputError: If dlib's weights are missing or the landmark model cannot be used.
    """
    first, disagreement = _average_landmarks(image, box, landmarks, around, sides)
    if once:
        return first, disagreement
    try:
        second, improved = _average_landmarks(image, typical_box(first), landmarks, around, sides)
    except AlignmentError:  # all landmarks coincide, so no box fits them
        return first, disagreement
    return (second, improved) if improved <= disagreement else (first, disagreement)


def _average_landmarks(
    image: Image, box: Box, landmarks: str | None, around: Around, sides: Sides
) -> tuple[Points, float]:
    """Average the landmarks of several boxes around ``box``, (68, 2), and measure their spread.

    The second value is the mean distance of a predicted point from the average of its predictions,
    divided by the box's side.
    """
    chip, to_chip = _chip(image, box, sides)
    side = scale_of(to_chip) * max(box.right - box.left, 1.0)
    aspect = (box.bottom - box.top) / max(box.right - box.left, 1e-6)
    middle = [(box.left + box.right - 1) / 2, (box.top + box.bottom - 1) / 2]
    center_x, center_y = transform(np.array([middle], np.float32), to_chip)[0]
    model, predictions = landmark_model(landmarks), []
    for right, down, size in around:
        half_width, half_height = side * size / 2, side * size * aspect / 2
        x, y = center_x + 0.5 + side * right, center_y + 0.5 + side * down
        shape = model(
            chip,
            dlib.rectangle(
                round(x - half_width), math.floor(y - half_height),
                round(x + half_width) - 1, math.ceil(y + half_height) - 1,
            ),
        )  # fmt: skip
        predictions.append([(point.x, point.y) for point in shape.parts()])
    stacked = np.array(predictions, np.float32)
    mean: Points = stacked.mean(axis=0)
    disagreement = float(np.linalg.norm(stacked - mean, axis=2).mean()) / side
    return transform(mean, invert(to_chip)), disagreement


def _chip(image: Image, box: Box, sides: Sides) -> tuple[Image, Matrix]:
    """Crop the box with a margin of half a side; return the chip and the frame -> chip matrix.

    dlib rounds landmarks to whole pixels, so a small face is enlarged to make the rounding finer,
    and a large one is shrunk. A box whose side is within ``sides`` is cropped without resampling.
    """
    width = box.right - box.left
    center_x, center_y = (box.left + box.right - 1) / 2, (box.top + box.bottom - 1) / 2
    if sides[0] <= width <= sides[1]:
        left, top = max(math.floor(center_x - width), 0), max(math.floor(center_y - width), 0)
        right, bottom = math.ceil(center_x + width) + 1, math.ceil(center_y + width) + 1
        chip = image[top : max(bottom, top + 1), left : max(right, left + 1)]
        if chip.size:
            return np.ascontiguousarray(chip), shifted(np.eye(2, 3), left, top)
    side = min(max(round(width), sides[0]), sides[1])
    scale = side / max(width, 1.0)
    to_chip: Matrix = np.array(
        [[scale, 0, side - 0.5 - scale * center_x], [0, scale, side - 0.5 - scale * center_y]]
    )
    return warp_image(image, to_chip, 2 * side, 2 * side), to_chip


@cache
def _embedding_network() -> Any:
    return dlib.face_recognition_model_v1(weights("dlib_face_recognition_resnet_model_v1.dat"))


def compute_embedding(image: Image, landmarks: Points) -> Embedding:
    """Compute dlib's embedding (128,) of the face at the landmarks (68, 2) of an image (H, W, 3).

    dlib takes two faces for the same person if the distance of their embeddings is below 0.6.
    D. E. King, "High quality face recognition with deep metric learning", dlib blog, 2017.

    Raises:
        InputError: If dlib's weights are missing.
    """
    points = [dlib.point(round(float(x)), round(float(y))) for x, y in landmarks]
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, *image.shape[1::-1]), points)
    return np.asarray(_embedding_network().compute_face_descriptor(image, shape), np.float32)
