"""Measure how sharp a face is, and how its texture differs from that of real faces.

All crops are 256 px here, whatever the network's size: scores at the network's own size would not
see what a small network cannot show.
"""

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import LUMA, FloatImage, Image, Points
from faceswap.crops.masks import outline

SIZE = 256  # side of the crops that are measured, in pixels
BANDS = 4  # octaves of sharpness, from the finest
LEVELS = 3  # of the Laplacian pyramid: fine, mid and coarse
INSET = 6  # pixels between the face's outline and the area that is measured
BRIGHTEST = 0.05  # share of a band's strongest pixels that is clipped: highlights, lashes
PATCHES, PATCH = 128, 7  # patches per face and level, and their side in pixels
DIRECTIONS = 128  # random projections of the sliced Wasserstein distance
RESAMPLED = 16  # projections that the bootstrap uses, to save time

Area = npt.NDArray[np.bool_]  # (SIZE, SIZE), True where a face is measured
Energies = npt.NDArray[np.float64]  # (BANDS,) mean square of each band
Patches = npt.NDArray[np.float32]  # (PATCHES, PATCH * PATCH * 3), RGB in [0, 1]


def area_of(points: Points, view: float) -> Area:
    """Return the area of a crop in which texture is measured: the face without its edge.

    Args:
        points: Landmarks (68, 2) in pixels of the 256 px crop.
        view: Side of the network crop as a share of the crop's side.
    """
    margin = round((1 - view) / 2 * SIZE) + 2
    inside = np.zeros((SIZE, SIZE), np.float32)
    inside[margin : SIZE - margin, margin : SIZE - margin] = 1
    side = 2 * INSET + 1
    inner: Area = cv2.erode(outline(points, SIZE) * inside, np.ones((side, side))) > 0.5
    return inner


def band_energies(image: Image | FloatImage, area: Area) -> Energies:
    """Return the energy of four octaves of luma in an area, (4,), the finest first.

    Band k is the difference of two Gaussian blurs with standard deviations 2^(k-1) and 2^k; the
    first one is the difference of the image and a blur of 1 px.
    """
    return np.array([_energy(band[area]) for band in bands(image)])


def bands(image: Image | FloatImage) -> list[npt.NDArray[np.float32]]:
    """Split the luma of an image (H, W, 3) into four octaves, each (H, W)."""
    luma = np.asarray(image.astype(np.float32) @ LUMA, np.float32)
    found = []
    for octave in range(BANDS):
        sigma = 2.0**octave * np.sqrt(1 if octave == 0 else 0.75)  # variances add up
        blurred = np.asarray(cv2.GaussianBlur(luma, (0, 0), sigma), np.float32)
        found.append(luma - blurred)
        luma = blurred
    return found


def _energy(band: npt.NDArray[np.float32]) -> float:
    if not band.size:
        return float("nan")
    strength = np.abs(band)
    return float(np.mean(np.minimum(strength, np.quantile(strength, 1 - BRIGHTEST)) ** 2))


def sharpness(energies: Energies, real: Energies) -> float:
    """Return the sharpness of one band: 1 is that of real faces, below is soft.

    Args:
        energies: The band's energies of the measured faces, (n,).
        real: The band's energies of real faces, (m,).
    """
    return float(np.sqrt(np.nanmedian(energies) / max(float(np.nanmedian(real)), 1e-9)))


def patches_of(image: Image, area: Area) -> list[Patches]:
    """Cut patches from each level of a crop's Laplacian pyramid, always at the same places.

    Returns:
        A list of three arrays (128, 147); empty ones for a level without a place for a patch.
    """
    found = []
    reach = PATCH // 2
    for number, level in enumerate(_laplacian(image)):
        inner = area[:: 2**number, :: 2**number][: len(level), : level.shape[1]].copy()
        inner[: reach + 1] = inner[-reach - 1 :] = False
        inner[:, : reach + 1] = inner[:, -reach - 1 :] = False
        rows, columns = np.nonzero(inner)
        if not len(rows):
            found.append(np.empty((0, PATCH * PATCH * 3), np.float32))
            continue
        places = np.random.default_rng(number).choice(len(rows), PATCHES)
        windows = np.lib.stride_tricks.sliding_window_view(level, (PATCH, PATCH), axis=(0, 1))
        chosen = windows[rows[places] - reach, columns[places] - reach]  # (128, 3, 7, 7)
        found.append(chosen.transpose(0, 2, 3, 1).reshape(PATCHES, -1).astype(np.float32))
    return found


def _laplacian(image: Image) -> list[FloatImage]:
    """Split an image into two levels of detail and the small image that remains."""
    rest: FloatImage = (image / np.float32(255)).astype(np.float32)
    levels: list[FloatImage] = []
    for _ in range(LEVELS - 1):
        small = np.asarray(cv2.pyrDown(rest), np.float32)
        larger = np.asarray(cv2.pyrUp(small, dstsize=rest.shape[1::-1]), np.float32)
        levels.append(rest - larger)
        rest = small
    return [*levels, rest]


class SlicedWasserstein:
    """Distance between the patches of some faces and those of real faces at one pyramid level.

    T. Karras et al., "Progressive growing of GANs", ICLR 2018, appendix C, with one change: both
    sets are normalised by the mean and spread of the real patches' channels. Normalising each set
    by itself, as in the paper, would forgive lost contrast.

    Args:
        faces: Patches of each measured face, (128, 147) each.
        real: Patches of each real face.
    """

    def __init__(self, faces: list[Patches], real: list[Patches]) -> None:
        there = np.concatenate(real).reshape(-1, PATCH * PATCH, 3)
        mean, spread = there.mean(axis=(0, 1)), there.std(axis=(0, 1)) + 1e-9
        axes = np.random.default_rng(1).standard_normal((PATCH * PATCH * 3, DIRECTIONS))
        axes /= np.linalg.norm(axes, axis=0)

        def projected(patches: list[Patches]) -> npt.NDArray[np.float32]:
            values = (np.concatenate(patches).reshape(-1, PATCH * PATCH, 3) - mean) / spread
            return np.asarray(values.reshape(len(values), -1) @ axes, np.float32)

        both = np.concatenate([projected(faces), projected(real)])
        owner = np.concatenate([np.repeat(i, len(patches)) for i, patches in enumerate(faces)])
        # The real patches belong to one more, last owner, whose weight is never resampled.
        owner = np.concatenate([owner, np.full(len(both) - len(owner), len(faces))])
        order = both.argsort(axis=0)
        self._steps = np.diff(np.take_along_axis(both, order, axis=0), axis=0)
        self._owner = owner[order]
        self._counts = np.array([len(patches) for patches in faces], np.float64)
        self._real = len(both) - self._counts.sum()

    def distance(self, weights: npt.NDArray[np.float64], directions: int | None = None) -> float:
        """Return the distance times 1000.

        In one dimension the Wasserstein distance is the area between the two cumulative
        distributions.

        Args:
            weights: How often each face counts, (n,).
            directions: Number of projections [default: all].
        """
        total = float(self._counts @ weights)
        if total <= 0:
            return float("nan")
        share = np.append(weights / total, -1 / self._real).astype(np.float32)
        gap = np.abs(np.cumsum(share[self._owner[:-1, :directions]], axis=0))
        return float((gap * self._steps[:, :directions]).sum(axis=0).mean() * 1000)
