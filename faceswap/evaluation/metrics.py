"""Score face swaps from landmarks, face embeddings and seams. No network runs here.

Identity and expression are reported side by side, because either score alone is easy to game.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.color import deltaE_ciede2000, rgb2lab

from faceswap.arrays import Embedding, Image, Mask, Points
from faceswap.evaluation.results import FlickerScores, SwapScores
from faceswap.faces.recognition import SAME_PERSON

Numbers = npt.NDArray[np.float64]

CAMERA = 4.0  # focal length in face widths, for a camera about four face widths from the head
EDGE = 0.5  # value of a soft mask that counts as its edge
SEAM_REACH = 0.04  # distance to either side of the edge, as a share of the crop's side


@dataclass(frozen=True, slots=True, eq=False)
class FaceMeasurement:
    """The landmarks of one face and its embedding."""

    landmarks: Points
    embedding: Embedding


class IdentityScale:
    """Scales embedding margins: 0 is the person in the footage, 1 the other person.

    The margin of an embedding d is |d - own centroid| - |d - other centroid|. It is scaled linearly
    so that the mean over unseen faces is 0 for the person in the footage and 1 for the other.

    Args:
        own: Mean embedding of the person in the footage, (128,).
        other: Mean embedding of the person whose face is swapped in, (128,).
        faces_own: Unseen real faces of the person in the footage.
        faces_other: Unseen real faces of the other person.
    """

    def __init__(
        self, own: Embedding, other: Embedding, faces_own: list[FaceMeasurement],
        faces_other: list[FaceMeasurement],
    ) -> None:  # fmt: skip
        self._own, self.other = own, other
        self._zero = float(np.mean([self._margin(face) for face in faces_own]))
        self._one = float(np.mean([self._margin(face) for face in faces_other]))

    def _margin(self, face: FaceMeasurement) -> float:
        to_own = np.linalg.norm(face.embedding - self._own)
        return float(to_own - np.linalg.norm(face.embedding - self.other))

    def scaled(self, face: FaceMeasurement) -> float:
        """Return the scaled margin: 0 is typical of the person in the footage, 1 of the other."""
        return (self._margin(face) - self._zero) / (self._one - self._zero)


def compare(
    originals: list[FaceMeasurement],
    swaps: list[FaceMeasurement],
    seams: list[tuple[float, float]],
    scale: IdentityScale,
) -> SwapScores:
    """Measure swaps against the faces they replace.

    Args:
        originals: The faces before the swap.
        swaps: The same faces swapped.
        seams: The result of :func:`seam` for each swap.
        scale: Scales the embedding margins.
    """
    distances = [np.linalg.norm(swap.embedding - scale.other) for swap in swaps]
    pairs = list(zip(originals, swaps, strict=True))
    return SwapScores(
        identity_transfer=mean(scale.scaled(swap) for swap in swaps),
        match_rate=mean(distance < SAME_PERSON for distance in distances),
        nme=mean(nme(one.landmarks, two.landmarks) for one, two in pairs),
        eye_correlation=_correlation(pairs, eye_aspect_ratio),
        mouth_correlation=_correlation(pairs, mouth_aspect_ratio),
        pose_error_deg=mean(pose_error(one.landmarks, two.landmarks) for one, two in pairs),
        seam_color_step=mean(step for step, _ in seams),
        seam_gradient_ratio=mean(ratio for _, ratio in seams),
    )


def mean(values: Iterable[Any]) -> float:
    """Return the mean, rounded to the four decimals that reports show."""
    return round(float(np.mean(list(values))), 4)


def nme(original: Points, swap: Points) -> float:
    """Return the mean landmark (68, 2) distance, divided by the original's eye distance."""
    return float(np.linalg.norm(original - swap, axis=1).mean() / eye_distance(original))


def eye_distance(points: Points) -> float:
    """Return the distance between the eyes' centres in pixels, from landmarks (68, 2)."""
    return float(np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0)))


def eye_aspect_ratio(points: Points) -> float:
    """Return the eyes' mean ratio of opening to width, from landmarks (68, 2).

    T. Soukupova and J. Cech, "Real-time eye blink detection using facial landmarks", CVWW 2016,
    eq. 1.
    """
    ratios = []
    for first in (36, 42):
        p = points[first : first + 6]
        opening = np.linalg.norm(p[1] - p[5]) + np.linalg.norm(p[2] - p[4])
        ratios.append(opening / (2 * np.linalg.norm(p[0] - p[3])))
    return float(np.mean(ratios))


def mouth_aspect_ratio(points: Points) -> float:
    """Return the inner lips' ratio of opening to width, from landmarks (68, 2)."""
    p = points[60:68]
    opening = sum(np.linalg.norm(p[i] - p[8 - i]) for i in (1, 2, 3))
    return float(opening / (3 * np.linalg.norm(p[0] - p[4])))


def _correlation(
    pairs: list[tuple[FaceMeasurement, FaceMeasurement]], ratio: Callable[[Points], float]
) -> float | None:
    """Return the Pearson correlation of a ratio over all pairs; None if it is undefined."""
    values: Numbers = np.array([[ratio(one.landmarks), ratio(two.landmarks)] for one, two in pairs])
    if len(values) < 3 or values.std(axis=0).min() < 1e-9:
        return None
    matrix: Numbers = np.asarray(np.corrcoef(values.T), np.float64)
    return round(float(matrix[0, 1]), 4)


@cache
def head_shape() -> Numbers:
    """Return an average head's landmarks (68, 3): x right, y down, z away, eyes 1 apart.

    Derived by ``scripts/tools/derive_head_shape.py``.
    """
    text = files("faceswap.evaluation").joinpath("head_shape.json").read_text(encoding="utf-8")
    return np.array(json.loads(text)["landmarks"], np.float64)


def rotation(points: Points) -> Numbers:
    """Estimate a head's rotation matrix (3, 3) from its landmarks (68, 2) with solvePnP."""
    center = points.mean(axis=0)
    focal = CAMERA * float(np.ptp(points[:, 0]))
    camera = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], np.float64)
    _, vector, _ = cv2.solvePnP(
        head_shape(), points.astype(np.float64), camera, None, flags=cv2.SOLVEPNP_SQPNP
    )
    return np.asarray(cv2.Rodrigues(vector)[0], np.float64)


def pose_error(original: Points, swap: Points) -> float:
    """Return the angle in degrees between the head rotations of two sets of landmarks (68, 2)."""
    cosine = (np.trace(rotation(original).T @ rotation(swap)) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def seam(original: Image, swapped: Image, mask: Mask) -> tuple[float, float]:
    """Measure how visible the edge of a pasted face is.

    The edge is the contour where the mask is 0.5. The colour step is taken between points that are
    4 % of the crop's side inside and outside it, the gradient between points one pixel from it.

    Args:
        original: The crop, (S, S, 3).
        swapped: The crop with the face pasted in, (S, S, 3).
        mask: The pasted mask, (S, S).

    Returns:
        The mean colour step (CIEDE2000) across the edge in the swap minus that in the original, and
        the mean gradient across the edge in the swap divided by that in the original. Without an
        edge they are (0, 1).
    """
    outlines, _ = cv2.findContours(
        (mask >= EDGE).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    if not outlines:
        return 0.0, 1.0
    edge = max(outlines, key=len)[:, 0].astype(np.float32)  # (N, 2)
    smooth = cv2.GaussianBlur(mask, (0, 0), SEAM_REACH * len(mask) / 2)
    slope = np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)])
    x, y = edge.astype(int).T
    uphill: Points = slope[:, y, x].T.astype(np.float32)
    inward: Points = uphill / np.maximum(np.linalg.norm(uphill, axis=1, keepdims=True), 1e-6)
    reach = inward * SEAM_REACH * len(mask)
    steps, gradients = [], []
    for image in (original, swapped):
        lab = np.asarray(cv2.GaussianBlur(_lab(image), (0, 0), 1.0), np.float32)
        inside, outside = _read(lab, edge + reach), _read(lab, edge - reach)
        steps.append(float(np.mean(deltaE_ciede2000(inside, outside))))  # type: ignore[no-untyped-call]
        near = np.subtract(_read(lab, edge + inward), _read(lab, edge - inward))
        gradients.append(float(np.mean(np.linalg.norm(near, axis=-1))))
    return steps[1] - steps[0], gradients[1] / max(gradients[0], 1e-6)


def _lab(image: Image) -> npt.NDArray[np.float32]:
    return np.asarray(rgb2lab(image), np.float32)


def _read(lab: npt.NDArray[np.float32], points: npt.NDArray[Any]) -> Numbers:
    """Sample colours (N, 1, 3) bilinearly at points (N, 2)."""
    x, y = points.astype(np.float32).T[..., None]
    read = cv2.remap(lab, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(read, np.float64)


def mean_lab(picture: Image, mask: Mask) -> Numbers:
    """Return the mean CIE Lab colour (3,) of a crop (S, S, 3), weighted by a mask (S, S)."""
    weight = np.maximum(mask.sum(), 1e-6)
    return np.asarray((_lab(picture) * mask[..., None]).sum(axis=(0, 1)) / weight, np.float64)


def flicker(
    originals: Sequence[FaceMeasurement],
    swaps: Sequence[FaceMeasurement],
    colors: Sequence[tuple[Numbers, Numbers]],
    placed: Sequence[Points],
) -> FlickerScores:
    """Measure how much more a swap varies from frame to frame than its footage does.

    Args:
        originals: The face in successive frames.
        swaps: The swapped face in the same frames.
        colors: Mean Lab colour of the face in the original and in the swap, for each frame.
        placed: The landmarks (68, 2) that each swap was placed by.
    """

    def acceleration(landmarks: Sequence[Points]) -> float:
        points = np.stack(landmarks)
        second = np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=2)
        return float(second.mean() / np.mean([eye_distance(p) for p in points]))

    def spread(values: list[Any]) -> float:
        stacked = np.stack(values).astype(np.float64)
        return float(np.sqrt(stacked.var(axis=0).sum()))

    before, after = zip(*colors, strict=True)
    old, new = (acceleration([face.landmarks for face in faces]) for faces in (originals, swaps))
    return FlickerScores(
        frames=len(originals),
        landmark_acceleration=round(new - old, 5),
        placement_acceleration=round(acceleration(placed), 5),
        color_spread=round(spread(list(after)) - spread(list(before)), 4),
        embedding_spread=round(
            spread([f.embedding for f in swaps]) - spread([f.embedding for f in originals]), 4
        ),
    )
