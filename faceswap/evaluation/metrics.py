"""What evaluation measures on faces: landmarks, recogniser's embeddings and seams; no model here.

Identity and expression stand side by side, because either alone is easily fooled.
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

from faceswap.faces.recognition import SAME_PERSON
from faceswap.types import Embedding, Image, Mask, Points

Numbers = npt.NDArray[np.float64]
Report = dict[str, Any]

CAMERA = 4.0  # heads are seen from some four head widths away
EDGE = 0.5  # of a soft mask
SEAM_REACH = 0.04  # of the crop's side, from the edge to either side


@dataclass(frozen=True, slots=True, eq=False)
class FaceMeasurement:
    """One face: where its landmarks are and what it looks like to a recogniser."""

    landmarks: Points
    embedding: Embedding


class IdentityScale:
    """Scales embedding margins so that real unseen own faces are 0 and real others 1.

    The margin of a embedding d is |d - own centroid| - |d - other's centroid|.
    """

    def __init__(
        self, own: Embedding, other: Embedding, faces_own: list[FaceMeasurement],
        faces_other: list[FaceMeasurement],
    ) -> None:  # fmt: skip
        self._open_no_follow, self.other = own, other
        self._zero = float(np.mean([self._margin(face) for face in faces_own]))
        self._one = float(np.mean([self._margin(face) for face in faces_other]))

    def _margin(self, face: FaceMeasurement) -> float:
        to_own = np.linalg.norm(face.embedding - self._open_no_follow)
        return float(to_own - np.linalg.norm(face.embedding - self.other))

    def scaled(self, face: FaceMeasurement) -> float:
        """0 looks like a real own face, 1 like a real face of the other person."""
        return (self._margin(face) - self._zero) / (self._one - self._zero)


def compare(
    originals: list[FaceMeasurement], swaps: list[FaceMeasurement], scale: IdentityScale
) -> Report:
    """Measure swaps against the faces they replace.

    Returns:
        identity_transfer: Mean scaled margin (:class:`IdentityScale`): 0 nothing, 1 a real other face.
        match_rate: Share within dlib's same-person distance 0.6 of the other's centroid.
        nme: Mean distance between landmarks of swap and original, over the distance between the
            eyes' centres: the expression and pose that got lost.
        eye_correlation, mouth_correlation: Pearson correlation of eye and mouth aspect ratios.
        pose_error_deg: Mean angle between the head rotations of swap and original (solvePnP).
    """
    distances = [np.linalg.norm(swap.embedding - scale.other) for swap in swaps]
    pairs = list(zip(originals, swaps, strict=True))
    return {
        "identity_transfer": mean(scale.scaled(swap) for swap in swaps),
        "match_rate": mean(distance < SAME_PERSON for distance in distances),
        "nme": mean(nme(one.landmarks, two.landmarks) for one, two in pairs),
        "eye_correlation": _correlation(pairs, eye_aspect_ratio),
        "mouth_correlation": _correlation(pairs, mouth_aspect_ratio),
        "pose_error_deg": mean(pose_error(one.landmarks, two.landmarks) for one, two in pairs),
    }


def mean(values: Iterable[Any]) -> float:
    """The mean as reports give it, to four digits."""
    return round(float(np.mean(list(values))), 4)


def nme(original: Points, swap: Points) -> float:
    """Mean distance between landmarks (68, 2), over the distance between the original's eyes."""
    return float(np.linalg.norm(original - swap, axis=1).mean() / eye_distance(original))


def eye_distance(points: Points) -> float:
    """Distance between the eyes' centres, pixels."""
    return float(np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0)))


def eye_aspect_ratio(points: Points) -> float:
    """Opening over width, mean of both eyes. T. Soukupova and J. Cech, CVWW 2016, eq. 1."""
    ratios = []
    for first in (36, 42):
        p = points[first : first + 6]
        opening = np.linalg.norm(p[1] - p[5]) + np.linalg.norm(p[2] - p[4])
        ratios.append(opening / (2 * np.linalg.norm(p[0] - p[3])))
    return float(np.mean(ratios))


def mouth_aspect_ratio(points: Points) -> float:
    """Opening over width of the inner lips."""
    p = points[60:68]
    opening = sum(np.linalg.norm(p[i] - p[8 - i]) for i in (1, 2, 3))
    return float(opening / (3 * np.linalg.norm(p[0] - p[4])))


def _correlation(
    pairs: list[tuple[FaceMeasurement, FaceMeasurement]], ratio: Callable[[Points], float]
) -> float | None:
    """Pearson correlation of a ratio over all pairs; None where it is not defined."""
    values: Numbers = np.array([[ratio(one.landmarks), ratio(two.landmarks)] for one, two in pairs])
    if len(values) < 3 or values.std(axis=0).min() < 1e-9:
        return None
    matrix: Numbers = np.asarray(np.corrcoef(values.T), np.float64)
    return round(float(matrix[0, 1]), 4)


@cache
def head_shape() -> Numbers:
    """The 68 landmarks of an average head, (68, 3): x right, y down, z away, eyes 1 apart.

    Derived by ``scripts/tools/derive_head_shape.py``.
    """
    text = files("faceswap.evaluation").joinpath("head_shape.json").read_text(encoding="utf-8")
    return np.array(json.loads(text)["landmarks"], np.float64)


def rotation(points: Points) -> Numbers:
    """Rotation matrix (3, 3) of a head from its 68 landmarks, by solvePnP."""
    center = points.mean(axis=0)
    focal = CAMERA * float(np.ptp(points[:, 0]))
    camera = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], np.float64)
    _, vector, _ = cv2.solvePnP(
        head_shape(), points.astype(np.float64), camera, None, flags=cv2.SOLVEPNP_SQPNP
    )
    return np.asarray(cv2.Rodrigues(vector)[0], np.float64)


def pose_error(original: Points, swap: Points) -> float:
    """Angle between two heads' rotations, degrees."""
    cosine = (np.trace(rotation(original).T @ rotation(swap)) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def seam(original: Image, swapped: Image, mask: Mask) -> tuple[float, float]:
    """How visible the edge of a pasted face is.

    Along the outline where the mask is 0.5, colour is read at a few pixels inside and outside.

    Args:
        original: The crop, (S, S, 3).
        swapped: The same with the face pasted.
        mask: What was pasted, (S, S).

    Returns:
        The mean colour step across the edge, CIEDE2000, in the swap minus that in the original; and
        the mean gradient across it in the swap over that in the original. (0, 1) without an edge.
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
    for picture in (original, swapped):
        lab = np.asarray(cv2.GaussianBlur(_lab(picture), (0, 0), 1.0), np.float32)
        inside, outside = _read(lab, edge + reach), _read(lab, edge - reach)
        steps.append(float(np.mean(deltaE_ciede2000(inside, outside))))  # type: ignore[no-untyped-call]
        near = np.subtract(_read(lab, edge + inward), _read(lab, edge - inward))
        gradients.append(float(np.mean(np.linalg.norm(near, axis=-1))))
    return steps[1] - steps[0], gradients[1] / max(gradients[0], 1e-6)


def _lab(picture: Image) -> npt.NDArray[np.float32]:
    return np.asarray(rgb2lab(picture), np.float32)


def _read(lab: npt.NDArray[np.float32], points: npt.NDArray[Any]) -> Numbers:
    """Colours at points (N, 2), bilinear, (N, 1, 3)."""
    x, y = points.astype(np.float32).T[..., None]
    read = cv2.remap(lab, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(read, np.float64)


def mean_lab(picture: Image, mask: Mask) -> Numbers:
    """Mean CIE Lab colour of a crop within a mask, (3,)."""
    weight = np.maximum(mask.sum(), 1e-6)
    return np.asarray((_lab(picture) * mask[..., None]).sum(axis=(0, 1)) / weight, np.float64)


def flicker(
    originals: Sequence[FaceMeasurement],
    swaps: Sequence[FaceMeasurement],
    colors: Sequence[tuple[Numbers, Numbers]],
    placed: Sequence[Points],
) -> Report:
    """How much more a swap moves, from frame to frame, than the footage it is made of.

    Args:
        originals: The face in successive frames.
        swaps: The same frames, swapped.
        colors: Mean Lab colour of the face in the original and in the swap, frame by frame.
        placed: The landmarks (68, 2) by which each swap was put in its place.

    Returns:
        landmark_acceleration: Mean length of the landmarks' second difference over the distance
            between the eyes. placement_acceleration: The same of ``placed``, by itself: the head's
            own and how the pasted face shivers. color_spread: Standard deviation over time of the
            mean Lab colour, length over the three channels. descriptor_spread: Root mean square
            distance of the embeddings from their mean. Each of the others is the swap's minus the
            original's.
    """

    def acceleration(landmarks: Sequence[Points]) -> float:
        points = np.stack(landmarks)
        second = np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=2)
        return float(second.mean() / np.mean([eye_distance(p) for p in points]))

    def spread(values: list[Any]) -> float:
        stacked = np.stack(values).astype(np.float64)
        return float(np.sqrt(stacked.var(axis=0).sum()))

    before, after = zip(*colors, strict=True)
    own, new = (acceleration([face.landmarks for face in some]) for some in (originals, swaps))
    return {
        "landmark_acceleration": round(new - own, 5),
        "placement_acceleration": round(acceleration(placed), 5),
        "color_spread": round(spread(list(after)) - spread(list(before)), 4),
        "descriptor_spread": round(
            spread([f.embedding for f in swaps]) - spread([f.embedding for f in originals]), 4
        ),
    }
