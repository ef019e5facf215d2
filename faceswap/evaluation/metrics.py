"""Score faces from landmarks, face embeddings, texture, eyes, light and seams.

No network runs here. Every score comes with a bootstrap interval over the faces. No score can be
trusted alone: a blur keeps expression, an average face wins identity, a wide feather wins the seam.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.color import deltaE_ciede2000, rgb2lab

from faceswap.arrays import LUMA, Embedding, Image, Mask, Points
from faceswap.crops.eyes import Iris, gaze, irises
from faceswap.crops.masks import FEATURES, hull_of
from faceswap.evaluation import texture
from faceswap.evaluation.bootstrap import Draw, mean_of, scored
from faceswap.evaluation.results import Score, SwapScores
from faceswap.evaluation.texture import Area, Energies, Patches
from faceswap.faces import blendshapes
from faceswap.faces.expressions import mouth_aspect_ratio
from faceswap.faces.pose import rotation

Numbers = npt.NDArray[np.float64]

EDGE = 0.5  # value of a soft mask that counts as its edge
SEAM_REACH = 0.04  # distance to either side of the edge, as a share of the crop's side
SEAM_PERCENTILE = 90.0  # of the steps along a part of the edge
UPRIGHT = 0.7071  # least cosine between the edge's normal and the vertical, on forehead and jaw
OPEN_MOUTH = 0.15  # aspect ratio of the inner lips above which teeth may be seen
LIGHT_BLUR = 1 / 6  # standard deviation of low-frequency luma, as a share of the crop's side
LIGHT_GRID = 32  # side of the low-frequency luma that is kept
# Dark brows and open lips are no shadows, so light is measured on the skin around them.
AROUND_FEATURES = 5 / 256  # width of the skin around features that is left out, in crop sides
DARK = 8.0  # levels added to luma before its logarithm is taken
SWD_RESAMPLES = 200  # of the bootstrap; a distance takes milliseconds

JAW, EYES_AND_BROWS, MOUTH = slice(0, 17), [*range(17, 27), *range(36, 48)], slice(48, 68)


@dataclass(frozen=True, slots=True, eq=False)
class FaceMeasurement:
    """The measurements of one 256 px crop.

    Attributes:
        landmarks: (68, 2) in pixels of the crop.
        embedding: (128,).
        bands: Energy of four octaves inside the face, see :func:`texture.band_energies`.
        patches: Patches of three pyramid levels, see :func:`texture.patches_of`.
        irises: Of both eyes; None where an eye is closed.
        mouth: Luma of the pixels between the lips, in reading order; None if they are closed.
        light: Low-frequency luma of the skin, (32, 32).
        inside: Share of each of its cells that lies inside the face, (32, 32).
        expression: Blendshape scores, (52,); None if no mesh fits the face.
    """

    landmarks: Points
    embedding: Embedding
    bands: Energies
    patches: list[Patches]
    irises: list[Iris | None]
    mouth: npt.NDArray[np.float32] | None
    light: Numbers
    inside: Numbers
    expression: npt.NDArray[np.float32] | None

    @property
    def gaze(self) -> float:
        """Mean position of the irises between the eye corners; NaN if none is seen."""
        return gaze(self.irises)

    @property
    def catch_light(self) -> float:
        """Mean contrast of the irises' brightest pixel; NaN if none is seen."""
        found = [iris.catch_light for iris in self.irises if iris]
        return float(np.mean(found)) if found else float("nan")


def measure_face(
    image: Image, landmarks: Points, embedding: Embedding, area: Area, mouth_of: Points
) -> FaceMeasurement:
    """Measure everything that a crop shows.

    Args:
        image: A crop of 256 px, (256, 256, 3).
        landmarks: Of this image, (68, 2).
        embedding: Of this image.
        area: Where texture and light are measured, the same for a swap and its footage.
        mouth_of: Landmarks of the footage, so that a swap's mouth is read at the same place.
    """
    weight = area.astype(np.float32)
    luma = image.astype(np.float32) @ LUMA
    skin = weight * (1 - _features(landmarks, len(image)))
    sigma = LIGHT_BLUR * len(image)
    blurred = np.asarray(cv2.GaussianBlur(luma * skin, (0, 0), sigma), np.float64)
    blurred = blurred / np.maximum(cv2.GaussianBlur(skin, (0, 0), sigma), 1e-3)
    small = (LIGHT_GRID, LIGHT_GRID)
    return FaceMeasurement(
        landmarks,
        embedding,
        texture.band_energies(image, area),
        texture.patches_of(image, area),
        irises(image, landmarks),
        _mouth(luma, mouth_of),
        cv2.resize(blurred, small, interpolation=cv2.INTER_AREA).astype(np.float64),
        cv2.resize(weight, small, interpolation=cv2.INTER_AREA).astype(np.float64),
        blendshapes.of_face(image, landmarks),
    )


def _features(points: Points, size: int) -> npt.NDArray[np.float32]:
    """Return 1 on eyes, brows and lips and close to them, (size, size), and 0 elsewhere."""
    drawn = np.zeros((size, size), np.uint8)
    for group in FEATURES:
        drawn |= hull_of(points[group], size, size)
    width = 2 * round(AROUND_FEATURES * size) + 1
    return np.asarray(cv2.dilate(drawn, np.ones((width, width), np.uint8)), np.float32)


def _mouth(luma: npt.NDArray[Any], points: Points) -> npt.NDArray[np.float32] | None:
    """Luma of the pixels between open lips, in reading order; None if they are closed."""
    if mouth_aspect_ratio(points) <= OPEN_MOUTH:
        return None
    inside = hull_of(points[60:68], *luma.shape) > 0
    values: npt.NDArray[np.float32] = luma[inside].astype(np.float32)
    return values if len(values) >= 60 else None


class IdentityScale:
    """Scales embedding margins: 0 for unseen real faces of the own person, 1 for the other's.

    The margin of an embedding d is |d - own centroid| - |d - other's centroid|.
    """

    def __init__(
        self, own: Embedding, other: Embedding, faces_own: list[Embedding],
        faces_other: list[Embedding],
    ) -> None:  # fmt: skip
        self._own, self.other = own, other
        self._zero = float(np.mean([self._margin(face) for face in faces_own]))
        self._one = float(np.mean([self._margin(face) for face in faces_other]))

    def _margin(self, face: Embedding) -> float:
        return float(np.linalg.norm(face - self._own) - np.linalg.norm(face - self.other))

    def scaled(self, face: Embedding) -> float:
        """Scale a face's margin: 0 for a typical face of the own person, 1 for the other's."""
        return (self._margin(face) - self._zero) / (self._one - self._zero)


@dataclass(frozen=True, slots=True)
class Seam:
    """How visible the edge of a pasted face is; see :func:`seam`."""

    color_step: float
    forehead: float
    jaw: float
    gradient_ratio: float


class Scorer:
    """Scores faces of one direction.

    Args:
        scale: Scales the embedding margins.
        real: Real unseen faces of the wanted person.
    """

    def __init__(self, scale: IdentityScale, real: list[FaceMeasurement]) -> None:
        self._scale, self._real = scale, real
        self._distances = np.sort([self._distance(face) for face in real])
        self._spread = _spread(np.stack([face.embedding for face in real]))
        self._bands = np.stack([face.bands for face in real])
        self._catch_light = _median([face.catch_light for face in real])
        self._mouth = _median([_contrast(face.mouth) for face in real])

    def _distance(self, face: FaceMeasurement) -> float:
        return float(np.linalg.norm(face.embedding - self._scale.other))

    def scores(
        self,
        looks: list[FaceMeasurement],
        pairs: list[tuple[FaceMeasurement, FaceMeasurement]],
        seams: list[Seam],
    ) -> SwapScores:
        """Score faces.

        Args:
            looks: The faces that are compared with real faces of the wanted person.
            pairs: Footage and the face that replaces it.
            seams: The seam of each replaced face; empty if there is none.
        """
        return SwapScores(**self._against_real(looks), **_against_footage(pairs), **_seams(seams))

    def _against_real(self, looks: list[FaceMeasurement]) -> dict[str, Score | None]:
        """Score the faces against real faces of the wanted person."""
        count = len(looks)
        embeddings = np.stack([face.embedding for face in looks])
        energies = np.stack([face.bands for face in looks])
        found = {
            "identity_transfer": mean_of([self._scale.scaled(face.embedding) for face in looks]),
            "typicality": mean_of([self._typicality(face) for face in looks]),
            "diversity": scored(count, partial(_ratio_of_spreads, embeddings, self._spread)),
        }
        for band in range(texture.BANDS):
            found[f"sharpness_{band + 1}"] = scored(
                count, partial(_sharpness, energies[:, band], self._bands[:, band])
            )
        for level, name in enumerate(("fine", "mid", "coarse")):
            found[f"swd_{name}"] = self._texture_distance(looks, level)
        found["catch_light"] = _median_ratio([f.catch_light for f in looks], self._catch_light)
        found["mouth_contrast"] = _median_ratio([_contrast(f.mouth) for f in looks], self._mouth)
        return found

    def _typicality(self, face: FaceMeasurement) -> float:
        below = np.searchsorted(self._distances, self._distance(face)) / len(self._distances)
        return 2 * min(float(below), 1 - float(below))

    def _texture_distance(self, looks: list[FaceMeasurement], level: int) -> Score | None:
        """Return the sliced Wasserstein distance at one pyramid level."""
        faces = [face.patches[level] for face in looks]
        real = [face.patches[level] for face in self._real]
        if not sum(map(len, faces)) or not sum(map(len, real)):
            return None
        distances = texture.SlicedWasserstein(faces, real)

        def distance(draw: Draw) -> float:
            whole = np.array_equal(draw, np.arange(len(faces)))
            weights = np.bincount(draw, minlength=len(faces)).astype(np.float64)
            return distances.distance(weights, None if whole else texture.RESAMPLED)

        return scored(len(faces), distance, SWD_RESAMPLES)


def _against_footage(
    pairs: list[tuple[FaceMeasurement, FaceMeasurement]],
) -> dict[str, Score | None]:
    """Score faces against the footage that they replace."""
    parts = {"": slice(None), "_jaw": JAW, "_eyes": EYES_AND_BROWS, "_mouth": MOUTH}
    found: dict[str, Score | None] = {
        f"nme{name}": mean_of([nme(one.landmarks, two.landmarks, part) for one, two in pairs])
        for name, part in parts.items()
    }
    found["mouth_structure"] = mean_of([_structure(one.mouth, two.mouth) for one, two in pairs])
    eyes, mouths = (
        np.array([[ratio(face.landmarks) for face in pair] for pair in pairs]).reshape(-1, 2)
        for ratio in (eye_aspect_ratio, mouth_aspect_ratio)
    )
    gazes = np.array([[one.gaze, two.gaze] for one, two in pairs]).reshape(-1, 2)
    gazes = gazes[np.isfinite(gazes).all(axis=1)]
    for name, values in (("eye", eyes), ("mouth", mouths), ("gaze", gazes)):
        found[f"{name}_correlation"] = scored(len(values), partial(_correlation, values))
    found["gaze_slope"] = scored(len(gazes), lambda draw: slope(gazes[draw]))
    for part in blendshapes.PARTS:
        found[f"expression_{part}"] = mean_of([_expression(*pair, part) for pair in pairs])
    found["pose_error_deg"] = mean_of([pose_error(a.landmarks, b.landmarks) for a, b in pairs])
    lights = np.array([_light(one, two) for one, two in pairs]).reshape(-1, 3)
    for name, column in zip(("correlation", "slope", "error"), lights.T, strict=True):
        found[f"light_{name}"] = mean_of(list(column))
    return found


def _expression(one: FaceMeasurement, other: FaceMeasurement, part: str) -> float:
    """Return how far the blendshapes of a part of two faces differ; NaN if no mesh fits one."""
    if one.expression is None or other.expression is None:
        return float("nan")
    return blendshapes.distance(one.expression, other.expression, part)


def _seams(seams: list[Seam]) -> dict[str, Score | None]:
    return {
        "seam_color_step": mean_of([found.color_step for found in seams]),
        "seam_forehead": mean_of([found.forehead for found in seams]),
        "seam_jaw": mean_of([found.jaw for found in seams]),
        "seam_gradient_ratio": mean_of([found.gradient_ratio for found in seams]),
    }


def _ratio_of_spreads(embeddings: npt.NDArray[Any], real: float, draw: Draw) -> float:
    return _spread(embeddings[draw]) / real if real > 0 else float("nan")


def _sharpness(energies: Numbers, real: Numbers, draw: Draw) -> float:
    return texture.sharpness(energies[draw], real)


def _correlation(values: Numbers, draw: Draw) -> float:
    return correlation(values[draw])


def _spread(embeddings: npt.NDArray[Any]) -> float:
    """Root of the trace of the covariance of embeddings (n, 128)."""
    return float(np.sqrt(embeddings.astype(np.float64).var(axis=0).sum()))


def _median(values: list[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.median(known)) if known else float("nan")


def _median_ratio(values: list[float], real: float) -> Score | None:
    """Median of one number per face divided by that of real faces; NaNs are left out."""
    numbers = np.asarray(values, np.float64)
    return scored(len(numbers), lambda draw: _median(list(numbers[draw])) / max(real, 1e-6))


def _contrast(mouth: npt.NDArray[np.float32] | None) -> float:
    """Range of luma inside open lips, 5th to 95th percentile; NaN if they are closed."""
    if mouth is None:
        return float("nan")
    low, high = np.quantile(mouth, [0.05, 0.95])
    return float(high - low)


def _structure(one: npt.NDArray[np.float32] | None, two: npt.NDArray[np.float32] | None) -> float:
    """Correlation of the same pixels inside open lips; NaN if they are closed."""
    if one is None or two is None:
        return float("nan")
    return correlation(np.stack([one, two], axis=1).astype(np.float64))


def _light(footage: FaceMeasurement, swap: FaceMeasurement) -> tuple[float, float, float]:
    """Correlation, log slope and RMS difference of low-frequency luma inside the face."""
    inside = footage.inside > 0.5
    if inside.sum() < 3:
        return float("nan"), float("nan"), float("nan")
    levels = np.stack([footage.light[inside], swap.light[inside]], axis=1)
    error = float(np.sqrt(np.mean((levels[:, 1] - levels[:, 0]) ** 2)))
    return correlation(levels), slope(np.log(levels + DARK)), error


def nme(original: Points, swap: Points, part: Any = slice(None)) -> float:
    """Mean distance between landmarks (68, 2), divided by the original's eye distance."""
    return float(
        np.linalg.norm(original[part] - swap[part], axis=1).mean() / eye_distance(original)
    )


def eye_distance(points: Points) -> float:
    """Distance between the eyes' centres in pixels."""
    return float(np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0)))


def eye_aspect_ratio(points: Points) -> float:
    """Eye opening over width, mean of both eyes (T. Soukupova and J. Cech, CVWW 2016, eq. 1)."""
    ratios = []
    for first in (36, 42):
        p = points[first : first + 6]
        opening = np.linalg.norm(p[1] - p[5]) + np.linalg.norm(p[2] - p[4])
        ratios.append(opening / (2 * np.linalg.norm(p[0] - p[3])))
    return float(np.mean(ratios))


def correlation(values: Numbers) -> float:
    """Pearson correlation of the columns of (n, 2); NaN if it is undefined."""
    if len(values) < 3 or values.std(axis=0).min() < 1e-9:
        return float("nan")
    matrix: Numbers = np.asarray(np.corrcoef(values.T), np.float64)
    return float(matrix[0, 1])


def slope(values: Numbers) -> float:
    """Least-squares slope of the second column over the first, of (n, 2); NaN if undefined."""
    centered = values - values.mean(axis=0)
    variance = float((centered[:, 0] ** 2).sum())
    if len(values) < 3 or variance < 1e-12:
        return float("nan")
    return float((centered[:, 0] * centered[:, 1]).sum() / variance)


def pose_error(original: Points, swap: Points) -> float:
    """Angle between the rotations of two heads in degrees."""
    cosine = (np.trace(rotation(original).T @ rotation(swap)) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def seam(original: Image, swapped: Image, mask: Mask) -> Seam:
    """Measure how visible the edge of a pasted face is.

    Colours are sampled a few pixels inside and outside the contour where the mask is 0.5.

    Args:
        original: The crop, (S, S, 3).
        swapped: The crop with the face pasted in, (S, S, 3).
        mask: The pasted mask, (S, S).

    Returns:
        Colour steps are CIEDE2000 distances across the edge in the swap minus those in the
        original: their mean, and the 90th percentile over forehead and jaw. The gradient across the
        edge in the swap is divided by that in the original. Without an edge they are 0 and 1.
    """
    outlines, _ = cv2.findContours(
        (mask >= EDGE).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    if not outlines:
        return Seam(0.0, 0.0, 0.0, 1.0)
    edge = max(outlines, key=len)[:, 0].astype(np.float32)  # (N, 2)
    smooth = cv2.GaussianBlur(mask, (0, 0), SEAM_REACH * len(mask) / 2)
    gradient = np.stack([cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)])
    x, y = edge.astype(int).T
    uphill: Points = gradient[:, y, x].T.astype(np.float32)
    inward: Points = uphill / np.maximum(np.linalg.norm(uphill, axis=1, keepdims=True), 1e-6)
    reach = inward * SEAM_REACH * len(mask)
    steps, gradients = [], []
    for image in (original, swapped):
        lab = np.asarray(cv2.GaussianBlur(_lab(image), (0, 0), 1.0), np.float32)
        inside, outside = _read(lab, edge + reach), _read(lab, edge - reach)
        steps.append(np.ravel(deltaE_ciede2000(inside, outside)))  # type: ignore[no-untyped-call]
        near = np.subtract(_read(lab, edge + inward), _read(lab, edge - inward))
        gradients.append(float(np.mean(np.linalg.norm(near, axis=-1))))
    more = steps[1] - steps[0]
    upright = inward[:, 1]  # of the outward normal; crops are aligned, so a face's up is theirs
    return Seam(
        float(np.mean(more)),
        _percentile(more[upright > UPRIGHT]),
        _percentile(more[upright < -UPRIGHT]),
        gradients[1] / max(gradients[0], 1e-6),
    )


def _percentile(steps: npt.NDArray[Any]) -> float:
    return float(np.percentile(steps, SEAM_PERCENTILE)) if len(steps) else float("nan")


def _lab(image: Image) -> npt.NDArray[np.float32]:
    return np.asarray(rgb2lab(image), np.float32)


def _read(lab: npt.NDArray[np.float32], points: npt.NDArray[Any]) -> Numbers:
    """Bilinearly sampled colours at points (N, 2), (N, 1, 3)."""
    x, y = points.astype(np.float32).T[..., None]
    read = cv2.remap(lab, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(read, np.float64)


def mean_lab(image: Image, mask: Mask) -> Numbers:
    """Mean CIE Lab colour of a crop within a mask, (3,)."""
    weight = np.maximum(mask.sum(), 1e-6)
    return np.asarray((_lab(image) * mask[..., None]).sum(axis=(0, 1)) / weight, np.float64)
