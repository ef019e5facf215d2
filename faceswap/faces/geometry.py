"""Similarity transforms between a frame and an aligned crop, and the mean face they align to.

Points are (x, y) pixels with pixel centres at integers. A matrix is (2, 3) and maps frame to crop
unless its function says otherwise. The face's *square* is the unit square of the mean face. In a
crop of side S it is centred, and its side is ``coverage * S`` pixels.
"""

import json
import math
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TypeVar, cast

import cv2
import numpy as np

from faceswap.arrays import FloatImage, Image, Mask, Matrix, Points, Rect
from faceswap.config import DLIB_LANDMARKS
from faceswap.errors import AlignmentError
from faceswap.media.frame import Frame

Levels = TypeVar("Levels", Image, FloatImage)


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """A rectangle in frame pixels, right and bottom exclusive; it may extend beyond the frame."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A detected face: detector box, detector score and landmarks (68, 2).

    ``track`` identifies the face across the frames of a video; -1 means that it is not tracked.
    ``target`` is the index of the face's swap target; only a conversion with ``--cast`` has several
    targets. ``placed_by`` says what placed the landmarks: "dlib" (or a model that takes its place),
    "mesh" for FaceMesh, or "head" for an average head at the detector's points. ``bridged`` faces
    were not found but interpolated between two frames in which they were. ``distance`` is the
    embedding distance to the person whom the face was compared with; None if it was not compared.
    """

    box: Box
    score: float
    landmarks: Points
    track: int = -1
    target: int = 0
    placed_by: str = DLIB_LANDMARKS
    bridged: bool = False
    distance: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A face as a detector finds it, before its landmarks are placed.

    Attributes:
        box: The detector's own box.
        score: Score on the detector's own scale.
        points: Right eye, left eye, tip of the nose, and the right and left corner of the mouth, as
            the person has them, (5, 2); None if the detector does not say.
    """

    box: Box
    score: float
    points: Points | None


def scale_detection(detection: Detection, factor: float) -> Detection:
    """Return a detection of an image that was enlarged by a factor."""
    box = detection.box
    sides = (box.left, box.top, box.right, box.bottom)
    points = detection.points
    scaled = None if points is None else ((points + 0.5) * factor - 0.5).astype(np.float32)
    return replace(detection, box=Box(*(side * factor for side in sides)), points=scaled)


def shift_detection(detection: Detection, right: float, down: float) -> Detection:
    """Return a detection moved by some pixels."""
    box, points = detection.box, detection.points
    moved = Box(box.left + right, box.top + down, box.right + right, box.bottom + down)
    shifted_points = None if points is None else points + np.array([right, down], np.float32)
    return replace(detection, box=moved, points=shifted_points)


def without_overlaps(detections: list[Detection]) -> list[Detection]:
    """Keep the best-scored of detections that overlap by more than ``MAX_OVERLAP``."""
    boxes = [(d.box.left, d.box.top, d.box.right - d.box.left, d.box.bottom - d.box.top)
             for d in detections]  # fmt: skip
    lowest = min((detection.score for detection in detections), default=0.0)
    scores = [each.score - lowest + 1 for each in detections]  # NMSBoxes rejects negative scores
    kept = cv2.dnn.NMSBoxes(boxes, scores, 0.0, MAX_OVERLAP)
    return [detections[int(index)] for index in np.ravel(np.asarray(kept, int))]


FrameFaces = tuple[Frame, list[Face]]  # a frame and its faces


@dataclass(frozen=True, slots=True, eq=False)
class AlignedFace:
    """A face in the canonical pose.

    Attributes:
        face: The face in its frame.
        image: The crop, (S, S, 3).
        matrix: Maps frame to crop.
        skin: Where the face's skin is visible in the crop, (S, S) in [0, 1]; None if not looked at.
    """

    face: Face
    image: Image
    matrix: Matrix
    skin: Mask | None = None


MAX_OVERLAP = 0.3  # intersection over union above which two boxes show the same face
CUBIC_MARGIN = 4  # pixels: the reach of cubic interpolation plus one for rounding
# Brows, nose, eyes and mouth. The jaw line is left out; mean_face.json has only these landmarks.
INNER_LANDMARKS = slice(17, 68)
# Centre and side of HOG's box in the mean face's unit square: medians of 694 portraits.
BOX_X, BOX_Y, BOX_SIDE = 0.5, 0.478, 1.115
# Limits on a face's motion between two frames: the distance that its box's centre moves, in box
# sides, and the absolute natural log of the ratio of the box sides.
MAX_JUMP, MAX_GROWTH = 0.4, 0.25


@cache
def mean_face() -> Points:
    """Return the inner landmarks of the mean face in its unit square, (51, 2).

    Derived by ``scripts/tools/derive_mean_face.py`` from classic 256 px crops.
    """
    text = files("faceswap.faces").joinpath("mean_face.json").read_text(encoding="utf-8")
    return np.array(json.loads(text)["landmarks"], dtype=np.float32)


def umeyama(source: Points, target: Points) -> Matrix:
    """Estimate the similarity that maps ``source`` onto ``target`` with the least squared error.

    A similarity is a rotation, a uniform scale and a translation; reflections are excluded.
    S. Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", IEEE TPAMI 13(4), 1991, eqs. 34-43.

    Args:
        source: Points to map, (N, 2), pixels, N >= 2.
        target: The points they should map to, (N, 2), pixels.

    Returns:
        Matrix M, (2, 3), with ``target ~ source @ M[:, :2].T + M[:, 2]``.

    Raises:
        AlignmentError: If the shapes differ, N < 2, a source point is not finite, or all source
            points coincide.
    """
    if source.shape != target.shape or source.ndim != 2 or len(source) < 2:
        raise AlignmentError(
            f"umeyama needs two (N, 2) arrays with N >= 2, got {source.shape} and {target.shape}"
        )
    source, target = source.astype(np.float64), target.astype(np.float64)
    mean_source, mean_target = source.mean(axis=0), target.mean(axis=0)
    variance = ((source - mean_source) ** 2).sum() / len(source)  # eq. 36
    if not variance > 1e-12:
        raise AlignmentError("umeyama needs at least two distinct points, but all of them coincide")
    covariance = (target - mean_target).T @ (source - mean_source) / len(source)  # eq. 38
    u, singular, vt = np.linalg.svd(covariance)
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])  # eq. 39, 43
    rotation = u @ np.diag(signs) @ vt  # eq. 40
    scale = (singular * signs).sum() / variance  # eq. 42
    translation = mean_target - scale * rotation @ mean_source  # eq. 41
    return np.column_stack([scale * rotation, translation])


def square_to_crop(size: float, coverage: float) -> Matrix:
    """Return the matrix from the mean face's unit square to a crop of ``size`` pixels."""
    side = coverage * size
    offset = (size - side) / 2 - 0.5  # the left edge of pixel 0 is at -0.5
    return np.array([[side, 0.0, offset], [0.0, side, offset]])


def face_matrix(landmarks: Points, size: int, coverage: float) -> Matrix:
    """Estimate the frame -> crop similarity of a face from its landmarks (68, 2).

    Raises:
        AlignmentError: If the landmarks coincide.
    """
    template = transform(mean_face(), square_to_crop(size, coverage))
    return umeyama(landmarks[INNER_LANDMARKS], template)


def typical_box(landmarks: Points) -> Box:
    """Estimate the box that the HOG detector would return for a face from its landmarks (68, 2).

    Raises:
        AlignmentError: If the landmarks coincide.
    """
    to_frame = invert(face_matrix(landmarks, 1, 1.0))  # from the square, with edges at -0.5 and 0.5
    center = transform(np.array([[BOX_X - 0.5, BOX_Y - 0.5]], np.float32), to_frame)[0]
    x, y, half = float(center[0]), float(center[1]), BOX_SIDE * scale_of(to_frame) / 2
    return Box(x - half, y - half, x + half, y + half)


def overlap(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(width, 0.0) * max(height, 0.0)
    both = sum((b.right - b.left) * (b.bottom - b.top) for b in (one, other))
    return shared / max(both - shared, 1e-9)


def centers_apart(one: Box, other: Box) -> float:
    """Return the distance between the centres of two boxes in pixels."""
    across = one.left + one.right - other.left - other.right
    return math.hypot(across, one.top + one.bottom - other.top - other.bottom) / 2


def is_one_step(before: Box, after: Box, image: Image) -> bool:
    """Return whether two boxes in successive frames can show the same face.

    The box may move and change its size only a little, within ``MAX_JUMP`` and ``MAX_GROWTH``, and
    its centre must stay inside the image.
    """
    side = before.right - before.left
    jump = centers_apart(before, after) / side
    growth = (after.right - after.left) / side
    height, width = image.shape[:2]
    inside = (
        0 <= after.left + after.right < 2 * width and 0 <= after.top + after.bottom < 2 * height
    )
    return inside and jump <= MAX_JUMP and abs(math.log(growth)) <= MAX_GROWTH


def transform(points: Points, matrix: Matrix) -> Points:
    """Map points (N, 2) by a matrix (2, 3); the result is float32."""
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def invert(matrix: Matrix) -> Matrix:
    """Invert an affine matrix (2, 3).

    Raises:
        numpy.linalg.LinAlgError: If the matrix is singular.
    """
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def compose(outer: Matrix, inner: Matrix) -> Matrix:
    """Return the matrix that applies ``inner`` first, then ``outer``."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def turned_square(center: Points, side: float, angle: float, size: int) -> Matrix:
    """Return the matrix from an image to a crop of a turned square.

    Args:
        center: Centre of the square, (2,), pixels.
        side: Side of the square in pixels of the image.
        angle: Direction in the image that becomes level in the crop, radians.
        size: Side of the crop in pixels.
    """
    scale = size / max(side, 1.0)
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    linear = np.array([[cosine, sine], [-sine, cosine]])
    return np.column_stack([linear, (size - 1) / 2 - linear @ center])


def scale_of(matrix: Matrix) -> float:
    """Return the scale of a matrix: the length in the target of one pixel of the source."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def resized(matrix: Matrix, factor: float) -> Matrix:
    """Return ``matrix`` followed by a scaling of its target image by ``factor``.

    The scaling maps pixel edges to pixel edges, so the target's top left corner stays at -0.5.
    """
    return np.column_stack([matrix[:, :2] * factor, (matrix[:, 2] + 0.5) * factor - 0.5])


def shifted(matrix: Matrix, left: float, top: float) -> Matrix:
    """Return ``matrix`` with its target cut to a rect whose top left pixel is (left, top)."""
    return np.column_stack([matrix[:, :2], matrix[:, 2] - [left, top]])


def shrunk(image: Image, longest: int) -> tuple[Image, float]:
    """Shrink an image by averaging so that its longest side is at most ``longest`` pixels.

    Args:
        image: (H, W, 3), or grey (H, W).
        longest: A larger image is shrunk to it, a smaller one returned as it is.

    Returns:
        image: The image.
        scale: Its size over that of the original, at most 1.
    """
    scale = min(1.0, longest / max(image.shape[:2]))
    if scale == 1:
        return image, scale
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), scale


def warp_image(image: Image, matrix: Matrix, width: int, height: int) -> Image:
    """Warp an image to ``height`` rows and ``width`` columns, cubically and with repeated edges.

    If the matrix shrinks the image to less than 2/3, the result is rendered at up to 16 times its
    size and averaged down to avoid aliasing.

    Args:
        image: (H, W, 3), or grey (H, W).
        matrix: Matrix from the image to the result.
        width: Width of the result in pixels.
        height: Height of the result in pixels.
    """
    # cv2 interpolates over 4 x 4 source pixels at every scale, so strong shrinking would alias.
    factor = min(math.ceil(1 / max(scale_of(matrix), 1e-3) - 0.5), 16)
    if factor > 1:
        large = warp_image_at(image, resized(matrix, factor), width * factor, height * factor)
        small = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.uint8)
    return warp_image_at(image, matrix, width, height)


def warp_image_at(image: Levels, matrix: Matrix, width: int, height: int) -> Levels:
    """Warp an image like :func:`warp_image`, but without protection against aliasing.

    Floating-point levels may go beyond the range of the image.
    """
    warped = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return cast(Levels, np.asarray(warped, image.dtype))


def warp_mask(mask: Mask, matrix: Matrix, width: int, height: int) -> Mask:
    """Warp a mask (H, W) to (height, width) linearly; pixels from outside the mask become 0."""
    warped = cv2.warpAffine(
        mask, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )
    return np.asarray(warped, np.float32)


def rect_of(matrix: Matrix, size: int, height: int, width: int) -> Rect:
    """Return the rect of a frame (height, width) that a crop of side ``size`` is sampled from.

    The rect includes a margin for the interpolation, is clipped to the frame, and has at least one
    pixel.
    """
    last = size - 0.5
    corners: Points = np.array([(-0.5, -0.5), (last, -0.5), (last, last), (-0.5, last)], np.float32)
    in_frame = transform(corners, invert(matrix))
    low = np.floor(in_frame.min(axis=0)).astype(int) - CUBIC_MARGIN
    high = np.ceil(in_frame.max(axis=0)).astype(int) + CUBIC_MARGIN + 1
    left, top = min(max(int(low[0]), 0), width - 1), min(max(int(low[1]), 0), height - 1)
    right, bottom = min(max(int(high[0]), left + 1), width), min(max(int(high[1]), top + 1), height)
    return left, top, right, bottom


def align_face(frame: Frame, face: Face, size: int, coverage: float) -> AlignedFace:
    """Sample the aligned crop (size, size, 3) of a face from its frame.

    Raises:
        AlignmentError: If the landmarks coincide.
    """
    matrix = face_matrix(face.landmarks, size, coverage)
    rect = rect_of(matrix, size, *frame.shape)
    from_rect = compose(matrix, shifted(np.eye(2, 3), -rect[0], -rect[1]))
    return AlignedFace(face, warp_image(frame.crop(rect), from_rect, size, size), matrix)
