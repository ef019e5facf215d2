"""Give a swapped face the sharpness, grain and motion blur of the footage it is pasted into.

This works like a colour match: numbers are measured on the new face and the footage, smoothed over
time and applied to the face. Both images must be on the frame's own pixel grid, where grain is one
pixel wide. A resampled crop would average the grain of a large face away and magnify that of a
small one.

Statistics only use pixels where the mask is full. So that pixels outside have no influence, blurs
divide by the share of their kernel inside the mask (H. Knutsson and C.-F. Westin, "Normalized and
differential convolution", CVPR 1993), and other filters are used only where their kernel is inside.
"""

import math
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import LUMA, FloatImage, Image, Mask
from faceswap.faces.geometry import Face

Numbers = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.float32]
Inside = npt.NDArray[np.bool_]
Filter = Callable[[Pixels], Pixels]
Blur = Callable[[Pixels, float], Pixels]

NEUTRAL = np.array([0, 0, 0, 1, 1, 1, 0, 0], np.float64)  # numbers that leave a face unchanged
SCALES = (1.0, 2.0, 4.0)  # Gaussian standard deviations (pixels) that separate the bands
BLURS = (0.0, 0.4, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)  # tried on the new face, same unit
MAX_GAIN = 1.5  # for a band that is too weak; a higher gain draws halos
SHUTTER = 0.5  # exposed share of the frame interval: a 180 degree shutter
MIN_PIXELS = 400  # a face of 20 x 20; statistics on fewer pixels are unreliable
SMOOTH_AREA = 15  # side (pixels) of the area that is checked for smooth skin
MAX_GRAIN_BLUR = 0.75  # standard deviation (pixels) of the blur that makes the coarsest grain
QUANTIZATION = 0.05  # approximate luma variance caused by rounding to 8 bits
CHANCE = 0.12  # difference in log energy that two people's faces may have without motion blur


def measure(
    swapped: FloatImage, reference: Image, mask: Mask,
    displacement: tuple[float, float] = (0.0, 0.0), known: Numbers | None = None,
) -> Numbers:  # fmt: skip
    """Measure how the footage's detail differs from a swapped face's, (8,).

    The numbers may be averaged over time.

    Args:
        swapped: The new face in its final colours, (H, W, 3), on the frame's pixels.
        reference: The frame at the same place, (H, W, 3).
        mask: The pasted area, (H, W). Only pixels where it is full are measured.
        displacement: How far the face moves from one frame to the next, x and y in pixels.
        known: Numbers of the same face a few frames before. Then only the motion is measured.

    Returns:
        The x and y extent (pixels) of the line along which motion blurs the face; the standard
        deviation of a Gaussian blur (pixels); the gains of the three bands that ``SCALES``
        separates, from fine to coarse; and two standard deviations (levels) of the missing grain,
        measured by a fine filter and by one twice as coarse. The last two are equal for white
        grain. If the mask is full in fewer than ``MIN_PIXELS`` pixels, the result is ``NEUTRAL``.
    """
    inside = mask >= 0.99
    if np.count_nonzero(inside) < MIN_PIXELS:
        return NEUTRAL.copy()
    new, old = swapped @ LUMA, reference @ LUMA
    noise = _noise(old, inside)
    motion = _motion(new, old, inside, noise, displacement)
    if known is not None:
        return np.concatenate([motion, known[2:]])
    if motion.any():
        new = _within(new, inside, lambda pixels: _motion_blurred(pixels, motion))
    blur, gains = _sharpness(new, old, inside, noise)
    blurred = _blurred_within(inside)
    new = _equalized(blurred(new, blur), gains, blurred)
    missing = np.sqrt(np.maximum(noise**2 - _noise(new, inside) ** 2, 0))
    return np.array([*motion, blur, *gains, *missing])


def apply(swapped: FloatImage, numbers: Numbers, generator: np.random.Generator) -> FloatImage:
    """Blur or sharpen a face (H, W, 3) by the numbers of :func:`measure`, then add grain.

    Grain is added to luma only, because the chroma subsampling of cameras and codecs leaves little
    coloured grain.

    Args:
        swapped: The face that was measured.
        numbers: The measured numbers, (8,), perhaps smoothed over time.
        generator: Draws the grain. Seed it differently for each frame; with equal seeds the grain
            would stand still.
    """
    motion, blur, gains, missing = numbers[:2], numbers[2], numbers[3:6], numbers[6:]
    pixels = _motion_blurred(swapped, motion)
    pixels = _equalized(_blurred(pixels, blur), np.clip(gains, 1, MAX_GAIN), _blurred)
    amplitude, grain_blur = _grain(np.maximum(missing, 0))
    if amplitude > 0:
        white = generator.standard_normal(swapped.shape[:2], np.float32)
        pixels = pixels + (amplitude * _blurred(white, grain_blur))[..., np.newaxis]
    return np.asarray(np.clip(pixels, 0, 255), np.float32)


def displacement(face: Face, moments: list[list[Face]]) -> tuple[float, float]:
    """Return how far a tracked face moves per frame, x and y in pixels; (0, 0) if it is untracked.

    Args:
        face: The face.
        moments: The lists of faces in the frame before, its own frame and the frame after, as far
            as these frames exist.
    """
    if face.track < 0:
        return 0.0, 0.0
    centers = [
        other.landmarks.mean(axis=0)
        for faces in moments
        for other in faces
        if other.track == face.track
    ]
    x, y = (centers[-1] - centers[0]) / max(len(centers) - 1, 1)
    return float(x), float(y)


def is_blurred_by(displacement: tuple[float, float]) -> bool:
    """Return whether a face that moves so far in a frame is exposed over a pixel or more."""
    return SHUTTER * math.hypot(*displacement) >= 1


def _blurred(pixels: Pixels, sigma: float) -> Pixels:
    if sigma < 0.15:  # the kernel's centre has almost all the weight
        return pixels
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.float32)


def _motion_blurred(pixels: Pixels, motion: Numbers) -> Pixels:
    """Average pixels along a line of extent (x, y), in pixels, that is centred on each pixel."""
    length = math.hypot(*motion)
    if length < 1:
        return pixels
    reach = math.ceil(length / 2)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for at in np.linspace(-0.5, 0.5, 8 * reach + 1):
        x, y = reach + at * motion
        across = np.maximum(1 - abs(np.arange(2 * reach + 1) - x), 0)
        kernel += np.outer(np.maximum(1 - abs(np.arange(2 * reach + 1) - y), 0), across)
    return np.asarray(cv2.filter2D(pixels, -1, kernel / kernel.sum()), np.float32)


def _within(pixels: Pixels, inside: Inside, smooth: Filter) -> Pixels:
    """Smooth the pixels inside the mask using only each other; pixels outside become 0."""
    share = inside.astype(np.float32)
    weight = np.maximum(smooth(share), 1e-3)
    return np.asarray(smooth(pixels * share) / weight * share, np.float32)


def _blurred_within(inside: Inside) -> Blur:
    """Return a Gaussian blur that works like :func:`_within`; its weights are cached per sigma."""
    share = inside.astype(np.float32)
    weights: dict[float, Pixels] = {}

    def blurred(pixels: Pixels, sigma: float) -> Pixels:
        if sigma not in weights:
            weight = share / np.maximum(_blurred(share, sigma), 1e-3)
            weights[sigma] = np.asarray(weight, np.float32)
        return _blurred(pixels * share, sigma) * weights[sigma]

    return blurred


def _bands(pixels: Pixels, blur: Blur) -> list[Pixels]:
    """Return three differences of Gaussians of the pixels, from fine to coarse.

    What the widest blur leaves over is dropped.
    P. J. Burt and E. H. Adelson, "The Laplacian pyramid as a compact image code", IEEE Trans.
    Communications 31(4), 1983, here without subsampling.
    """
    bands, reached = [], 0.0
    for scale in SCALES:
        coarse = blur(pixels, math.sqrt(scale**2 - reached**2))
        bands.append(pixels - coarse)
        pixels, reached = coarse, scale
    return bands


def _equalized(pixels: Pixels, gains: Numbers, blur: Blur) -> Pixels:
    if np.allclose(gains, 1):
        return pixels
    for gain, band in zip(gains, _bands(pixels, blur), strict=True):
        pixels = pixels + np.float32(gain - 1) * band
    return pixels


def _energies(pixels: Pixels, inside: Inside, blur: Blur) -> Numbers:
    """Return the mean square of each band inside the mask, (3,)."""
    return np.array([_energy(band[inside]) for band in _bands(pixels, blur)])


def _energy(values: Pixels) -> float:
    """Return the mean square, with the largest 5 % of magnitudes clipped.

    The energies of a new face and its footage are compared, and glasses on only one of the two
    would dominate them.
    """
    strength = np.abs(values)
    strongest = np.partition(strength, int(0.95 * len(strength)))[int(0.95 * len(strength))]
    return float(np.mean(np.minimum(strength, strongest) ** 2))


# Second difference along x and then along y: gradients and edges along either axis vanish, and
# grain stays.
_FINE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
# The same filter on means of 2 x 2 pixels, doubled so that white grain has the same deviation.
_COARSE = np.asarray(np.kron(_FINE, np.ones((2, 2), np.float32)) / 2, np.float32)


def _eroded(inside: Inside, width: int) -> Inside:
    """Return the pixels around which a square of this width is entirely inside."""
    square = np.ones((width, width), np.uint8)
    eroded = cv2.erode(inside.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT,
                       borderValue=0)  # fmt: skip
    return np.asarray(eroded, np.bool_)


def _noise(pixels: Pixels, inside: Inside) -> Numbers:
    """Measure the standard deviations of fine and coarse grain, (2,); white grain has equal ones.

    The filter is from J. Immerkaer, "Fast noise variance estimation", CVIU 64(2), 1996. The median
    of its response replaces his mean, as in D. L. Donoho and I. M. Johnstone, "Ideal spatial
    adaptation by wavelet shrinkage", Biometrika 81(3), 1994. Only the smoother half of the face is
    measured, because texture would count as grain. Both values are 0 if too few pixels are inside.
    """
    clear = _eroded(inside, 7)  # at these pixels both filters read only pixels inside the mask
    if np.count_nonzero(clear) < MIN_PIXELS // 4:
        return np.zeros(2)
    fine, coarse = (np.abs(cv2.filter2D(pixels, -1, kernel)) for kernel in (_FINE, _COARSE))
    around = (SMOOTH_AREA, SMOOTH_AREA)
    share = clear.astype(np.float32)
    texture = cv2.blur(coarse * share, around) / np.maximum(cv2.blur(share, around), 1e-3)
    smooth = clear & (texture <= np.median(texture[clear]))
    deviations = [1.4826 * float(np.median(response[smooth])) for response in (fine, coarse)]
    return np.array([deviations[0], min(deviations[1], _max_grain_ratio() * deviations[0])])


def _max_grain_ratio() -> float:
    """Return the highest ratio of coarse to fine deviation that counts as grain.

    The response to wrinkles has a higher ratio.
    """
    blurs, (fine, coarse, *_) = _responses()
    return float(np.interp(MAX_GRAIN_BLUR, blurs, coarse / fine))


@cache
def _responses() -> tuple[Numbers, Numbers]:
    """Compute the deviations of the filters' responses to blurred white noise of deviation 1.

    Returns:
        The standard deviations (N,) of the Gaussian blurs, and for each of them the deviations
        (6, N) of the fine filter, the coarse filter, the three bands, and the slope after a further
        blur by ``SCALES[0]``.
    """
    blurs = np.linspace(0, 8, 65)
    impulse = np.zeros((97, 97), np.float32)
    impulse[48, 48] = 1
    columns = []
    for sigma in blurs:
        spread = _blurred(impulse, float(sigma))
        bands = _bands(spread, _blurred)
        filtered = [*(cv2.filter2D(spread, -1, k) for k in (_FINE, _COARSE)), *bands]
        filtered.append(_slopes(_blurred(spread, SCALES[0]))[0])
        columns.append([float(np.linalg.norm(response)) for response in filtered])
    return blurs, np.array(columns).T


def _grain(noise: Numbers) -> tuple[float, float]:
    """Return the blurred white noise that fits both measured deviations (2,) of the grain best.

    Returns:
        The amplitude of the white noise (levels) and the standard deviation of its blur (pixels).
    """
    if noise.max() < 0.1:
        return 0.0, 0.0
    blurs, (fine, coarse, *_) = _responses()
    allowed = blurs <= MAX_GRAIN_BLUR
    ratio = noise[1] / max(noise[0], 1e-3)
    blur = float(np.interp(ratio, coarse[allowed] / fine[allowed], blurs[allowed]))
    expected = np.hypot(np.interp(blur, blurs, fine), np.interp(blur, blurs, coarse))
    return float(np.hypot(*noise) / expected), blur


def _noise_energies(noise: Numbers, row: slice, blur: float = 0.0) -> Numbers:
    """Return the mean squares of the filters' responses to grain, after a further blur.

    Args:
        noise: The grain's deviations (2,), measured by :func:`_noise`.
        row: The filters, as rows of the table that :func:`_responses` returns.
        blur: Standard deviation of the further blur in pixels.
    """
    amplitude, grain_blur = _grain(noise)
    blurs, rows = _responses()
    return np.array(
        [(amplitude * np.interp(math.hypot(grain_blur, blur), blurs, r)) ** 2 for r in rows[row]]
    )


def _sharpness(new: Pixels, old: Pixels, inside: Inside, noise: Numbers) -> tuple[float, Numbers]:
    """Find the blur after which the bands of the new face match the footage's energies best.

    Returns:
        The blur's standard deviation in pixels, and the gains (3,) of the bands that are still too
        weak after it.
    """
    in_bands = slice(2, 5)
    noise_energies = _noise_energies(noise, in_bands)
    blurred = _blurred_within(inside)
    energy = _energies(old, inside, blurred)
    wanted = np.maximum(energy - noise_energies, energy / 20)
    trust = wanted / (wanted + noise_energies + QUANTIZATION)
    new_noise = _noise(new, inside)
    logs = []
    for blur in BLURS:
        energy = _energies(blurred(new, blur), inside, blurred)
        clean = energy - _noise_energies(new_noise, in_bands, blur)
        logs.append(np.log(np.maximum(clean, energy / 20) + 1e-4))
    fine = np.linspace(0, BLURS[-1], 113)
    # Blurring cannot add detail. If the energy seems to rise, less noise was subtracted.
    falling = np.minimum.accumulate(logs)
    tried = np.stack([np.interp(fine, BLURS, band) for band in falling.T], axis=1)
    wanted = np.log(wanted + 1e-4)
    best = int(np.argmin(((tried - wanted) ** 2) @ trust))
    gains = np.clip(np.exp((wanted - tried[best]) / 2), 1, MAX_GAIN)
    return float(fine[best]), 1 + trust * (gains - 1)


def _slopes(pixels: Pixels) -> tuple[Pixels, Pixels]:
    across = np.array([[-0.5, 0, 0.5]], np.float32)
    return (
        np.asarray(cv2.filter2D(pixels, -1, across), np.float32),
        np.asarray(cv2.filter2D(pixels, -1, across.T), np.float32),
    )


def _directional(
    pixels: Pixels, inside: Inside, along: Numbers, noise: Numbers, blur: float
) -> tuple[float, float]:
    """Return the log energies of the slopes along a unit vector and across it, after a blur."""
    x, y = _slopes(_blurred_within(inside)(pixels, math.hypot(blur, SCALES[0])))
    clear = _eroded(inside, 3)
    noise_energy = float(_noise_energies(noise, slice(5, 6), blur)[0])
    logs = []
    for direction in (along, np.array([-along[1], along[0]])):
        energy = _energy((direction[0] * x + direction[1] * y)[clear])
        logs.append(math.log(max(energy - noise_energy, energy / 20) + 1e-4))
    return logs[0], logs[1]


def _motion(
    new: Pixels, old: Pixels, inside: Inside, noise: Numbers, displacement: tuple[float, float]
) -> Numbers:
    """Estimate the extent (x, y) of the footage's motion blur, no longer than the shutter allows.

    Both faces have the same pose. If the sharper one is blurred until both have equal slopes across
    the motion, their slopes along it should be equal too. If the footage still has weaker slopes
    along the motion, motion blur is the cause.
    """
    line = SHUTTER * np.asarray(displacement, np.float64)
    if not is_blurred_by(displacement):
        return np.zeros(2)
    length = math.hypot(*line)
    along = line / length
    moved = _within(new, inside, lambda pixels: _motion_blurred(pixels, line))
    new_noise = _noise(new, inside)
    logs = [
        np.array([_directional(pixels, inside, along, grain, blur) for blur in BLURS[::2]])
        for pixels, grain in ((new, new_noise), (moved, np.zeros(2)), (old, noise))
    ]
    deficit, remaining = _slope_deficit(logs[0], logs[2]), _slope_deficit(logs[1], logs[2])
    explained = deficit - remaining  # the deficit that blur along the whole line explains
    if explained < CHANCE or deficit < max(explained / 3, CHANCE):
        return np.zeros(2)
    # For a short line, the log energy lost grows with the square of its length.
    return line * math.sqrt(min(deficit / explained, 1.0))


def _slope_deficit(new: Numbers, old: Numbers) -> float:
    """Return the log energy that the old face lacks along the motion when both are equal across it.

    Args:
        new: Log energies of the new face's slopes along and across the motion, after each of
            ``BLURS[::2]``, (5, 2).
        old: The same of the footage.
    """
    blurs = BLURS[::2]
    if old[0, 1] < new[0, 1]:
        blur = np.interp(-old[0, 1], -new[:, 1], blurs)
        return float(np.interp(blur, blurs, new[:, 0]) - old[0, 0])
    blur = np.interp(-new[0, 1], -old[:, 1], blurs)
    return float(new[0, 0] - np.interp(blur, blurs, old[:, 0]))
