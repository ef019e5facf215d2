"""Evaluate: a model and two facesets -> numbers that say how good its swaps are.

Every face measured is one that training has not seen. Identity and expression stand side by side,
because either alone is easily fooled; so do three swaps that anybody could make without a model: a
blur, the other person's average face, and the original itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from faceswap import augment
from faceswap import model as models
from faceswap.aligner import describe, predict_landmarks
from faceswap.config import ConvertConfig, EvaluateConfig, ModelConfig
from faceswap.errors import NoFacesError
from faceswap.faceset import Faceset
from faceswap.model import Identity, TrainedModel
from faceswap.swapper import Painter, Swapper
from faceswap.types import (
    Box,
    Descriptor,
    Face,
    Frame,
    Image,
    OnProgress,
    Points,
    Progress,
    ignore_progress,
)

Numbers = npt.NDArray[np.float64]
Report = dict[str, Any]

SAME_PERSON = 0.6  # descriptor distance below which dlib's authors call two faces one person
CENTROID_FACES = 150  # training faces whose descriptors are averaged
# Six points of a generic head in its own frame (x to its left, y up, z towards the viewer), as
# common in head-pose tutorials, and the landmarks they belong to.
HEAD_POINTS = np.array(
    [[0, 0, 0], [0, -330, -65], [-225, 170, -135], [225, 170, -135], [-150, -150, -125],
     [150, -150, -125]], np.float64,
)  # fmt: skip
HEAD_LANDMARKS = [30, 8, 36, 45, 48, 54]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """One face: where its landmarks are and what it looks like to a recogniser."""

    landmarks: Points
    descriptor: Descriptor


def evaluate(
    model: str | Path,
    a: str | Path,
    b: str | Path,
    config: EvaluateConfig | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Report:
    """Measure a model on the faces that its training held out.

    Args:
        model: The model's folder or file.
        a: Faceset of identity a.
        b: Faceset of identity b.
        config: Settings.
        on_progress: Called after each measured swap.

    Returns:
        ``a_to_b`` and ``b_to_a``: see :func:`compare`, with ``baselines`` of the same measures;
        ``a_to_a`` and ``b_to_b``: see :func:`reconstruct`; ``faces``: how many were measured.

    Raises:
        InputError: If a folder is no faceset.
        ModelError: If the model cannot be read.
        NoFacesError: If a faceset holds no face that the model has not seen.
    """
    config = config or EvaluateConfig()
    device = models.resolve_device(config.device)
    trained = models.load(Path(model), device)
    facesets: dict[Identity, Faceset] = {"a": Faceset.read(Path(a)), "b": Faceset.read(Path(b))}
    unseen = {key: _unseen(faceset, key, trained, config) for key, faceset in facesets.items()}
    counter = _Counter(on_progress, 4 * sum(len(f.crops) for f in unseen.values()))
    known = {key: _known(f, trained.held_out[key]) for key, f in facesets.items()}
    centroids = {key: _centroid(f) for key, f in known.items()}
    originals = {key: [_measure(*face) for face in _faces(f)] for key, f in unseen.items()}
    report: Report = {"faces": {key: len(f.crops) for key, f in unseen.items()}}
    pairs: tuple[tuple[Identity, Identity], ...] = (("a", "b"), ("b", "a"))
    for own, other in pairs:
        painters: dict[str, Painter | None] = {
            "model": None,
            "blur": blur_painter(trained.network.config),
            "average": average_painter(known[other], trained),
        }
        margins = Margins(centroids[own], centroids[other], originals[own], originals[other])
        rows = {}
        for name, painter in painters.items():
            swapper = Swapper(trained, _settings(config, other), device, painter)
            swaps = [_measure(*_swap(swapper, *face)) for face in counter.each(_faces(unseen[own]))]
            rows[name] = compare(originals[own], swaps, margins)
        rows["original"] = compare(originals[own], originals[own], margins)
        counter.each_done(len(originals[own]))
        report[f"{own}_to_{other}"] = rows.pop("model") | {"baselines": rows}
        report[f"{own}_to_{own}"] = reconstruct(trained, unseen[own], own, device)
    return report


def _unseen(
    faceset: Faceset, key: Identity, trained: TrainedModel, config: EvaluateConfig
) -> Faceset:
    """The faces that training held out, or as many of them as the settings ask for."""
    held_out = faceset.subset(trained.held_out[key])
    if not held_out.keys:
        raise NoFacesError(
            f"none of the {len(trained.held_out[key])} faces that training held out is among "
            f"{faceset.name}'s: give the faceset the model was trained on (train --holdout)"
        )
    if config.faces and len(held_out.keys) > config.faces:
        step = len(held_out.keys) / config.faces
        held_out = held_out.subset({held_out.keys[int(i * step)] for i in range(config.faces)})
    return held_out


def _known(faceset: Faceset, held_out: list[str]) -> Faceset:
    """At most some 150 faces that training has seen; of all faces if it has seen none."""
    seen = faceset.subset(held_out, inside=False)
    seen = seen if seen.keys else faceset
    return seen.subset(seen.keys[:: max(len(seen.keys) // CENTROID_FACES, 1)])


def _faces(faceset: Faceset) -> list[tuple[Image, Box]]:
    """Each crop as a picture of its own, with the box that HOG would draw in it."""
    crops = faceset.crops.permute(0, 2, 3, 1).contiguous().numpy()
    return [
        (crop, _box_around(points)) for crop, points in zip(crops, faceset.landmarks, strict=True)
    ]


def _box_around(landmarks: Points) -> Box:
    """A square like HOG's around known landmarks: from brows to chin, as wide as high."""
    left, top = landmarks.min(axis=0)
    right, bottom = landmarks.max(axis=0)
    x, y, half = (left + right) / 2, (top + bottom) / 2, max(right - left, bottom - top) / 2
    return Box(float(x - half), float(y - half), float(x + half), float(y + half))


def _measure(image: Image, box: Box) -> Measured:
    landmarks = predict_landmarks(image, box)
    return Measured(landmarks, describe(image, landmarks))


def _centroid(faceset: Faceset) -> Descriptor:
    mean: Descriptor = np.mean([_measure(*face).descriptor for face in _faces(faceset)], axis=0)
    return mean


def _settings(config: EvaluateConfig, to: Identity) -> ConvertConfig:
    return ConvertConfig(to=to, color=config.color, mask=config.mask)


def _swap(swapper: Swapper, image: Image, box: Box) -> tuple[Image, Box]:
    """The crop with its face swapped, and the same box."""
    face = Face(box, 1.0, predict_landmarks(image, box))
    ((frame, _),) = swapper.swap([(Frame(image, 0, Fraction(0), Path("crop")), [face])])
    return frame.image, box


def blur_painter(config: ModelConfig) -> Painter:
    """A face of one soft blur: what an untrained model paints, and nobody in particular."""

    def paint(crops: list[Image]) -> list[Image]:
        blurred = [cv2.GaussianBlur(crop, (0, 0), len(crop) / 12) for crop in crops]
        return [_square_of(np.asarray(crop, np.uint8), config) for crop in blurred]

    return paint


def average_painter(faceset: Faceset, trained: TrainedModel) -> Painter:
    """The same average of a person's faces for everybody: right identity, no expression."""
    config = trained.network.config
    view = augment.network_view(faceset.crops, config).mean(dim=0)
    average: Image = (view * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return lambda crops: [average] * len(crops)


def _square_of(crop: Image, config: ModelConfig) -> Image:
    """The middle of a crop, where the face's square lies, as (size, size, 3)."""
    margin = round(len(crop) * (1 - config.coverage) / 2)
    inner = crop[margin : len(crop) - margin, margin : len(crop) - margin]
    side = (config.size, config.size)
    return np.asarray(cv2.resize(inner, side, interpolation=cv2.INTER_AREA), np.uint8)


class Margins:
    """Scales descriptor margins so that real unseen own faces are 0 and real others 1.

    The margin of a descriptor d is |d - own centroid| - |d - other's centroid|.
    """

    def __init__(
        self, own: Descriptor, other: Descriptor, faces_own: list[Measured],
        faces_other: list[Measured],
    ) -> None:  # fmt: skip
        self._own, self.other = own, other
        self._zero = float(np.mean([self._margin(face) for face in faces_own]))
        self._one = float(np.mean([self._margin(face) for face in faces_other]))

    def _margin(self, face: Measured) -> float:
        to_own = np.linalg.norm(face.descriptor - self._own)
        return float(to_own - np.linalg.norm(face.descriptor - self.other))

    def scaled(self, face: Measured) -> float:
        """0 looks like a real own face, 1 like a real face of the other person."""
        return (self._margin(face) - self._zero) / (self._one - self._zero)


def compare(originals: list[Measured], swaps: list[Measured], margins: Margins) -> Report:
    """Measure swaps against the faces they replace.

    Returns:
        identity_transfer: Mean scaled margin (:class:`Margins`): 0 nothing, 1 a real other face.
        match_rate: Share within dlib's same-person distance 0.6 of the other's centroid.
        nme: Mean distance between landmarks of swap and original, over the distance between the
            eyes' centres: the expression and pose that got lost.
        eye_correlation, mouth_correlation: Pearson correlation of eye and mouth aspect ratios.
        pose_error_deg: Mean angle between the head rotations of swap and original (solvePnP).
    """
    distances = [np.linalg.norm(swap.descriptor - margins.other) for swap in swaps]
    pairs = list(zip(originals, swaps, strict=True))
    return {
        "identity_transfer": _mean(margins.scaled(swap) for swap in swaps),
        "match_rate": _mean(distance < SAME_PERSON for distance in distances),
        "nme": _mean(nme(one.landmarks, two.landmarks) for one, two in pairs),
        "eye_correlation": _correlation(pairs, eye_aspect_ratio),
        "mouth_correlation": _correlation(pairs, mouth_aspect_ratio),
        "pose_error_deg": _mean(pose_error(one.landmarks, two.landmarks) for one, two in pairs),
    }


def _mean(values: Any) -> float:
    return round(float(np.mean(list(values))), 4)


def nme(original: Points, swap: Points) -> float:
    """Mean distance between landmarks (68, 2), over the distance between the original's eyes."""
    eyes = original[36:42].mean(axis=0) - original[42:48].mean(axis=0)
    return float(np.linalg.norm(original - swap, axis=1).mean() / np.linalg.norm(eyes))


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
    pairs: list[tuple[Measured, Measured]], ratio: Callable[[Points], float]
) -> float | None:
    """Pearson correlation of a ratio over all pairs; None where it is not defined."""
    values: Numbers = np.array([[ratio(one.landmarks), ratio(two.landmarks)] for one, two in pairs])
    if len(values) < 3 or values.std(axis=0).min() < 1e-9:
        return None
    matrix: Numbers = np.asarray(np.corrcoef(values.T), np.float64)
    return round(float(matrix[0, 1]), 4)


def rotation(points: Points) -> Numbers:
    """Rotation matrix (3, 3) of a head from six of its 68 landmarks, by solvePnP."""
    image_points = points[HEAD_LANDMARKS].astype(np.float64)
    center = points.mean(axis=0)
    focal = 4.0 * float(np.ptp(points[:, 0]))  # a head seen from some four head widths away
    camera = np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], np.float64)
    _, vector, _ = cv2.solvePnP(
        HEAD_POINTS * [1, -1, -1], image_points, camera, None, flags=cv2.SOLVEPNP_SQPNP
    )
    return np.asarray(cv2.Rodrigues(vector)[0], np.float64)


def pose_error(original: Points, swap: Points) -> float:
    """Angle between two heads' rotations, degrees."""
    cosine = (np.trace(rotation(original).T @ rotation(swap)) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


@torch.no_grad()
def reconstruct(
    trained: TrainedModel, faceset: Faceset, identity: Identity, device: torch.device
) -> Report:
    """How well a person's own decoder paints unseen faces of that person.

    Returns:
        ssim: Structural similarity, uniform 7 px window, at the network's size.
        psnr: Decibels. l1: Mean absolute difference of values in [0, 1].
    """
    network = trained.network
    view = augment.network_view(faceset.crops, network.config).to(device)
    if identity == "a":
        view = augment.shift_color(view, trained.color_shift)
    painted = network(view, identity).cpu().numpy()
    target = view.cpu().numpy()
    options: dict[str, Any] = {"channel_axis": 0, "data_range": 1.0}
    pairs = list(zip(target, painted, strict=True))
    return {
        "ssim": _mean(structural_similarity(t, p, win_size=7, **options) for t, p in pairs),  # type: ignore[no-untyped-call]
        "psnr": _mean(peak_signal_noise_ratio(t, p, data_range=1.0) for t, p in pairs),  # type: ignore[no-untyped-call]
        "l1": _mean(np.abs(t - p).mean() for t, p in pairs),
    }


class _Counter:
    """Counts measured swaps."""

    def __init__(self, on_progress: OnProgress, total: int) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0

    def each(self, items: list[tuple[Image, Box]]) -> Any:
        """Yield items, counting each when the next is asked for."""
        for item in items:
            yield item
            self.each_done(1)

    def each_done(self, count: int) -> None:
        self._done += count
        self._on_progress(Progress(self._done, self._total, "faces"))
