"""Light a new face as the footage lights the face it replaces.

The colours of footage and face are divided at a low resolution, per channel: coarsely in the middle
of the face, where finer structure belongs to the new person, and finely at the mask's edge, where
both must meet. The quotient turns a shadow on the footage into a shadow on the new face, dims it in
a dark frame and tints it under coloured light. Average Color Adjust, one shift per channel, is the
limit of this for an even light.
"""

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import LUMA, FloatImage, Image, Mask
from faceswap.config import COVERAGE
from faceswap.crops.masks import smoothstep

Numbers = npt.NDArray[np.float64]
Grid = npt.NDArray[np.float32]

GRID = 64  # cells per side of the crop; the light is as smooth as these
FACE = COVERAGE * GRID  # cells that the face's square covers
# Deviations of the quotient's blur in face squares: in the middle of the face, and at the edge.
COARSE, FINE = 0.25, 0.05
DEPTH = 0.22  # face squares from the edge inwards over which the fine quotient fades out
DARK = 8.0  # levels added before dividing, so that black divides by something
MAX_CHANGE = float(np.log(2))  # of the quotient's logarithm away from its mean; it saturates
# Log distance from the median quotient: cells beyond it count less, and beyond twice it not at all.
ODD = 0.5
TRUST_COARSE, TRUST_FINE = 0.02, 0.05  # weight of what fills cells without skin nearby
MAX_CONTRAST = 0.18  # log gain of local contrast; it saturates
TEXTURE = 0.10  # deviation of the blur that separates local contrast, in face squares
NO_CHROMA = 1e-4  # relative chroma below which the footage is grey but for rounding
COLOURLESS = 0.5  # share of the new face's chroma below which the footage is seen as pale
INSIDE = 0.3  # share of a cell that must lie in the mask for its quotient to be compared
MAX_PIGMENT = 0.25  # log quotient by which the chroma of two skins differs at most
# Red minus blue over luma: least of a coloured face, and shares of the face's own up to which a
# pixel is surely something else, such as a tooth, and from which it is surely skin.
LEAST_WARMTH, TOOTH_WARMTH, SKIN_WARMTH = 0.08, 0.4, 0.8
PLANES = 5  # log quotient of R, G and B; log gain of contrast; gain of chroma


def measure_light(swapped: Image, reference: Image, mask: Mask) -> Numbers:
    """Measure the light of the footage on a face, (64, 64, 5).

    Args:
        swapped: The new face, (S, S, 3).
        reference: The footage, (S, S, 3).
        mask: Where the footage's skin is seen and the face will be pasted, (S, S).

    Returns:
        Logarithms of the light quotient in red, green and blue, logarithm of the gain of local
        contrast, and gain of chroma. They may be averaged over time.
    """
    share = _to_grid(mask)
    if not (share > INSIDE).any():
        return np.dstack([np.zeros((GRID, GRID, PLANES - 1)), np.ones((GRID, GRID))])
    footage, face = (_means(image, mask, share) + DARK for image in (reference, swapped))
    chroma_gain = _chroma_gain(footage, face, share[..., None])
    gray = (face @ LUMA)[..., None]
    face = gray + chroma_gain * (face - gray)  # as apply_light will see it
    log: Grid = np.log(footage / face)
    median = np.median(log[share > INSIDE], axis=0)
    distance = np.abs(log - median).max(axis=-1)  # brows of one face beside skin of the other
    weight = (share * np.clip(2 - distance / ODD, 0, 1))[..., None] + np.float32(1e-6)
    means = [(cells * weight).sum(axis=(0, 1)) / weight.sum() for cells in (footage, face)]
    coarse = [
        _filled(cells, weight, COARSE, mean, TRUST_COARSE)
        for cells, mean in zip((footage, face), means, strict=True)
    ]
    fine = [
        _filled(cells, weight, FINE, back, TRUST_FINE)
        for cells, back in zip((footage, face), coarse, strict=True)
    ]
    quotient, at_edge = (np.log(one / two) for one, two in (coarse, fine))
    near = _near_edge(share)
    quotient = quotient + near[..., None] * (at_edge - quotient)
    even = np.log(means[0] / means[1])  # limited about the mean, or a colour cast would stay
    quotient = even + MAX_CHANGE * np.tanh((quotient - even) / MAX_CHANGE)
    contrast = _contrast_gain(swapped, reference, share, quotient) * (1 - near)
    return np.dstack([quotient, contrast, np.full((GRID, GRID), chroma_gain)]).astype(np.float64)


def apply_light(swapped: FloatImage, numbers: Numbers) -> FloatImage:
    """Give a face (S, S, 3) the light that :func:`measure_light` found.

    A channel that is amplified, and more than luma, is so because the skins differ in colour. That
    must not multiply the wrinkles in this channel, so its fine contrast grows at most as luma does.
    """
    size = len(swapped)
    grids = numbers.astype(np.float32)
    planes = _enlarged(grids, size)
    quotient = _by_material(grids[..., :3], swapped)
    base = _enlarged(_blurred(_to_grid(swapped), TEXTURE), size)
    fine = np.exp(planes[..., 3:4]) * (swapped - base)
    base, fine = (_with_chroma(image, planes[..., 4:5]) for image in (base, fine))
    gain = np.exp(quotient)
    most = np.maximum(np.exp(quotient @ LUMA)[..., None], 1)
    lit = (base + DARK) * gain - DARK + fine * np.minimum(gain, most)
    return _within_range(lit)


def _within_range(pixels: FloatImage) -> FloatImage:
    """Darken pixels (S, S, 3) that are too bright for a display; limit dark ones to black.

    Cutting off the brightest channel alone would turn lit teeth yellow.
    """
    red, green, blue = np.moveaxis(pixels, -1, 0)
    brightest = np.maximum(np.maximum(red, green), blue)  # far faster than max(axis=-1)
    bright = brightest > 255
    pixels[bright] *= (255 / brightest[bright])[:, None]
    return np.asarray(np.maximum(pixels, 0), np.float32)


def _by_material(quotient: Grid, swapped: FloatImage) -> FloatImage:
    """Enlarge a log quotient (64, 64, 3), without the difference of two skins where no skin is.

    A quotient of skins holds the difference of their pigments besides the light. It would turn
    teeth yellow and blue eyes green. What is more than such a difference is light, and tints all; a
    far stronger tint is light alone.

    Returns:
        (S, S, 3) for a new face ``swapped`` (S, S, 3).
    """
    size = len(swapped)
    large = _enlarged(quotient, size)
    half = (max(size // 2, 1),) * 2  # the material of smaller parts cannot be told by colour
    pixels = cv2.resize(swapped, half, interpolation=cv2.INTER_AREA).astype(np.float32)
    warmth = (pixels[..., 0] - pixels[..., 2]) / (pixels @ LUMA + DARK)
    middle = slice(len(warmth) * 3 // 8, len(warmth) * 5 // 8)
    usual = float(np.median(warmth[middle, middle]))
    if usual < LEAST_WARMTH:  # the new face is colourless itself
        return large
    share = (warmth / usual - TOOTH_WARMTH) / (SKIN_WARMTH - TOOTH_WARMTH)
    other = 1 - smoothstep(np.asarray(share, np.float32))
    tint = quotient - (quotient @ LUMA)[..., None]
    strength = np.abs(tint).max(axis=-1, keepdims=True)
    pigment = tint * np.minimum(1, MAX_PIGMENT / np.maximum(strength, 1e-6))
    pigment = pigment * np.clip(2 - strength / (2 * MAX_PIGMENT), 0, 1)
    return large - _enlarged(other, size)[..., None] * _enlarged(pigment, size)


def _with_chroma(image: FloatImage, gain: FloatImage) -> FloatImage:
    """Multiply the chroma of an image (S, S, 3) by a gain (S, S, 1)."""
    if (gain == 1).all():
        return image
    luma = (image @ LUMA)[..., None]
    return np.asarray(luma + gain * (image - luma), np.float32)


def _to_grid(image: npt.NDArray[np.float32]) -> Grid:
    return np.asarray(cv2.resize(image, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)


def _enlarged(cells: Grid, size: int) -> FloatImage:
    large = cv2.resize(cells, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large, np.float32)


def _blurred(cells: Grid, sigma: float) -> Grid:
    """Blur by a deviation in face squares."""
    return np.asarray(cv2.GaussianBlur(cells, (0, 0), sigma * FACE), np.float32)


def _sums(cells: Grid, sigma: float) -> Grid:
    """Blur by a deviation in face squares, with nothing beyond the border."""
    border = cv2.BORDER_CONSTANT
    return np.asarray(cv2.GaussianBlur(cells, (0, 0), sigma * FACE, borderType=border), np.float32)


def _means(image: Image, mask: Mask, share: Grid) -> Grid:
    """Mean colour of the masked pixels of each cell, (64, 64, 3)."""
    sums = _to_grid(np.asarray(image * mask[..., None], np.float32))
    return np.asarray(sums / np.maximum(share, 1e-3)[..., None], np.float32)


def _filled(cells: Grid, weight: Grid, sigma: float, back: Grid, trust: float) -> Grid:
    """Normalised convolution (H. Knutsson and C.-F. Westin, 1993), filled from ``back``."""
    total = _sums(weight[..., 0], sigma)[..., None] + trust
    return np.asarray((_sums(cells * weight, sigma) + trust * back) / total, np.float32)


def _near_edge(share: Grid) -> Grid:
    """Return 1 at the mask's edge, falling to 0 over ``DEPTH``, (64, 64)."""
    distance = cv2.distanceTransform((share > 0.5).astype(np.uint8), cv2.DIST_L2, 3)
    return 1 - smoothstep(np.asarray(distance / (DEPTH * FACE), np.float32))


def _contrast_gain(swapped: Image, reference: Image, share: Grid, quotient: Grid) -> Grid:
    """Log gain of local contrast, limited, (64, 64)."""

    def spread(image: Image) -> Grid:
        luma = _to_grid(image.astype(np.float32)) @ LUMA
        weight = _sums(share, TEXTURE) + np.float32(1e-3)
        detail = (luma - _sums(luma * share, TEXTURE) / weight) * share
        wide = _sums(share, 2 * TEXTURE) + np.float32(1e-3)
        deviation: Grid = np.sqrt(_sums(detail * detail, 2 * TEXTURE) / wide)
        return deviation

    lit = spread(swapped) * np.exp(quotient @ LUMA)
    wanted = np.log((spread(reference) + 1) / (lit + 1))
    gain: Grid = MAX_CONTRAST * np.tanh(wanted / MAX_CONTRAST)
    return gain


def _chroma_gain(footage: Grid, face: Grid, weight: Grid) -> float:
    """Return 1, or less if the footage is pale: 0 in black and white.

    Chroma is measured about its mean, so that a tint is not mistaken for colour.
    """
    spreads = []
    for cells in (footage, face):
        chroma = cells - (cells @ LUMA)[..., None]
        chroma = chroma / (cells @ LUMA)[..., None]  # relative, so that a dark frame is not pale
        mean = (chroma * weight).sum(axis=(0, 1)) / weight.sum()
        spreads.append(float(np.sqrt((((chroma - mean) ** 2) * weight).sum() / weight.sum())))
    if spreads[0] < NO_CHROMA:
        return 0.0
    return min(1.0, spreads[0] / max(COLOURLESS * spreads[1], 1e-6))
