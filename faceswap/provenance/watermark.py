"""An imperceptible watermark in the brightness of pictures, and its detector.

The picture is thought of as scaled to an area of 640 x 360 pixels, whatever its size, and covered
with copies of one square tile of 256 pixels. The tile is a sum of waves of 8 to 32 periods, whose
phases are fixed by a public key. A quarter of the waves are always the same; the detector looks for
these at every scale and shift. Each of the others is negated or not by one of 32 bits. The pattern
is a spread-spectrum watermark (I. Cox et al., "Secure spread spectrum watermarking for multimedia",
IEEE Trans. Image Processing 6(12), 1997), and is found by phase-only correlation (C. Kuglin and
D. Hines, 1975). docs/marking.md specifies it for other programs.

The key is public, so that anyone can find the watermark. Hence anyone can also remove or forge it:
it says where a picture probably comes from, and proves nothing.
"""

import hashlib
import math
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Annotated, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from faceswap.arrays import FloatImage, Image
from faceswap.types import Count

ALGORITHM = "faceswap.watermark.1"
KEY = b"faceswap watermark 1"
TILE = 256  # side of the tile, pixels
AREA = 640 * 360  # area that pictures are scaled to, pixels
MIN_PERIODS, MAX_PERIODS = 8, 32  # of a wave in the tile
BITS = 32
FIXED_SHARE = 0.25  # of the waves, those that carry no bit

# Strength in 8-bit levels, as the standard deviation of the pattern: at least MIN_STRENGTH, and
# PER_TEXTURE of that of the picture, which hides the pattern, up to MAX_STRENGTH.
MIN_STRENGTH, PER_TEXTURE, MAX_STRENGTH = 0.4, 0.45, 3.2
MEAN_STRENGTH = 1.9  # at most, as root mean square over the picture, so that PSNR is at least 42 dB
FINE = 1.0  # standard deviation of the blur whose remainder is texture, half pixels of the area
BLACK, DARK = 4.0, 24.0  # grey levels: none of the pattern up to the first, all from the second

# Scales at which the detector looks, relative to the area: a crop looks enlarged, bars shrink it.
SCALES = np.exp(np.arange(0.2, -0.36, -0.006))
DETAIL = 6.0  # standard deviation of the blur whose remainder holds the pattern, pixels
MAX_DEVIATION = 2.0  # the remainder is limited to this many local standard deviations
CANDIDATES = 4  # shifts for each scale at which all waves are compared
CERTAIN = 0.99998  # probability from which a bit is read
AGREEING = 0.6  # share of the bits' scores that must agree with a payload, of either half
FALSE_ALARM = 1e-9  # at most, each time that the detector looks


class _Waves(NamedTuple):
    """The waves of the tile, one for each pair of opposite frequencies.

    Attributes:
        rows: Periods from top to bottom, modulo TILE, (N,).
        columns: Periods from left to right, (N,).
        turns: exp(i phase) of each wave, (N,).
        bits: The bit that negates each wave; -1 if none does, (N,).
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    turns: npt.NDArray[np.complex128]
    bits: npt.NDArray[np.int64]


@cache
def _waves() -> _Waves:
    reach = np.arange(-MAX_PERIODS, MAX_PERIODS + 1)
    down, across = (grid.ravel() for grid in np.meshgrid(reach, reach, indexing="ij"))
    radius = np.hypot(down, across)
    is_one_of_two = (across > 0) | ((across == 0) & (down > 0))
    chosen = is_one_of_two & (radius >= MIN_PERIODS) & (radius <= MAX_PERIODS)
    down, across = down[chosen], across[chosen]
    stream = hashlib.shake_256(KEY).digest(4 * len(down))
    numbers = np.frombuffer(stream, ">u2").astype(np.int64).reshape(-1, 2)
    order = np.argsort(numbers[:, 1], kind="stable")
    fixed = round(FIXED_SHARE * len(order))
    bits = np.full(len(order), -1)
    bits[order[fixed:]] = np.arange(len(order) - fixed) % BITS
    return _Waves(down % TILE, across, np.exp(2j * np.pi * numbers[:, 0] / 2**16), bits)


@cache
def tile_of(payload: int) -> FloatImage:
    """Return the tile that carries some bits, (TILE, TILE), with mean 0 and standard deviation 1.

    Args:
        payload: BITS bits.
    """
    waves = _waves()
    signs = np.where((waves.bits >= 0) & ((payload >> np.maximum(waves.bits, 0)) & 1 == 0), -1, 1)
    tile = _sum_of(waves.rows, waves.columns, signs * waves.turns)
    return np.asarray(tile / tile.std(), np.float32)


def _sum_of(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], turns: npt.NDArray[np.complex128]
) -> npt.NDArray[np.float64]:
    """Return the sum of waves as a tile, (TILE, TILE)."""
    spectrum = np.zeros((TILE, TILE // 2 + 1), np.complex128)
    spectrum[rows, columns] = turns
    upright = columns == 0  # these need their opposite, the others have it by symmetry
    spectrum[-rows[upright] % TILE, 0] = np.conj(turns[upright])
    return np.asarray(np.fft.irfft2(spectrum, (TILE, TILE)))


def payload_of(model: str, source: str) -> int:
    """Return the bits that an output carries: 16 of the model's hash and 16 of the source's.

    Args:
        model: SHA-256 of the model's file, hexadecimal; those of several models are joined by
            commas, and the SHA-256 of this text takes its place.
        source: SHA-256 of the source, hexadecimal.
    """
    if "," in model:
        model = hashlib.sha256(model.encode()).hexdigest()
    return int(model[:4], 16) << 16 | int(source[:4], 16)


@dataclass(frozen=True, slots=True)
class Watermark:
    """Computes what to add to a picture so that it carries the watermark.

    Attributes:
        payload: BITS bits that the watermark carries.
    """

    payload: int

    def delta(self, gray: Image) -> FloatImage:
        """Return what to add to the brightness of a picture, in 8-bit levels, (H, W).

        Args:
            gray: Its grey levels, (H, W).
        """
        height, width = gray.shape
        strength = _strength(gray)
        enlarged = cv2.resize(strength, (width, height), interpolation=cv2.INTER_LINEAR)
        pattern = _pattern(self.payload, height, width)
        return np.asarray(enlarged * pattern, np.float32)


@lru_cache(4)
def _pattern(payload: int, height: int, width: int) -> FloatImage:
    """Return the pattern for pictures of one size, (height, width)."""
    rows, columns = _normal_size(height, width)
    repeats = -(-rows // TILE) + 1, -(-columns // TILE) + 1
    covered = np.tile(tile_of(payload), repeats)
    if height < rows or width < columns:  # average, because sampling would alias
        shrunk = cv2.resize(covered[:rows, :columns], (width, height),
                            interpolation=cv2.INTER_AREA)  # fmt: skip
        return np.asarray(shrunk, np.float32)
    x, y = width / columns, height / rows
    matrix = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])  # pixel centres at integers
    enlarged = cv2.warpAffine(covered, matrix, (width, height), flags=cv2.INTER_CUBIC)
    return np.asarray(enlarged, np.float32)


def _normal_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width of a picture scaled to the normal area."""
    scale = math.sqrt(AREA / (height * width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _strength(gray: Image) -> FloatImage:
    """Return the standard deviation of the pattern in places of a picture, (h, w), in levels."""
    rows, columns = _normal_size(*gray.shape)
    size = max(columns // 2, 1), max(rows // 2, 1)
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    # Only texture as fine as the pattern hides it; a blurred background does not.
    fine = small - cv2.GaussianBlur(small, (0, 0), FINE)
    texture = np.sqrt(np.maximum(cv2.blur(fine * fine, (5, 5)), 0))
    strength = np.minimum(MIN_STRENGTH + PER_TEXTURE * texture, MAX_STRENGTH)
    # A flat area beside an edge would show what the edge hides.
    strength = cv2.blur(cv2.erode(strength, np.ones((3, 3), np.uint8)), (3, 3))
    light = np.clip((cv2.blur(small, (5, 5)) - BLACK) / (DARK - BLACK), 0, 1)
    strength *= light
    mean = math.sqrt(float((strength * strength).mean()))
    return np.asarray(strength * (MEAN_STRENGTH / max(mean, MEAN_STRENGTH)), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """A watermark that may be in a picture.

    Attributes:
        score: Correlation of all waves, in standard deviations of what chance gives.
        bits: Correlation of the waves of each bit, positive if the bit is 1, (BITS,).
        is_mirrored: Whether the picture shows the watermark mirrored.
        scale: Size of the picture in which the watermark was embedded, relative to this one's.
    """

    score: float
    bits: npt.NDArray[np.float64]
    is_mirrored: bool
    scale: float

    @property
    def payload(self) -> int:
        """The most likely bits."""
        return sum(1 << place for place, value in enumerate(self.bits) if value > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatermarkCheck:
    """Whether a file carries the watermark of this program, and what it says."""

    found: Annotated[bool, Meta(description="Whether the watermark was found.")]
    model: Annotated[
        str,
        Meta(
            description="The first four digits of the model's SHA-256, hexadecimal, a question "
            "mark for each that cannot be read; empty without a watermark."
        ),
    ] = ""
    source: Annotated[
        str,
        Meta(
            description="The same for the photo or video that was swapped; for an image sequence, "
            "its first image."
        ),
    ] = ""
    score: Annotated[
        float | None,
        Meta(description="Correlation in standard deviations of what chance gives."),
    ] = None
    chance: Annotated[
        float | None,
        Meta(description="The greatest chance that a file without a watermark gives this."),
    ] = None
    mirrored: Annotated[bool, Meta(description="Whether the picture was mirrored.")] = False
    agrees: Annotated[
        bool | None,
        Meta(
            description="Whether it is the watermark that the file's credentials name; null if "
            "they name none."
        ),
    ] = None
    frames: Annotated[Count, Meta(description="Frames that were looked at; 1 for a photo.")] = 0
    complete: Annotated[
        bool,
        Meta(
            description="Whether all parts of the file were looked at, or as many as were needed; "
            "false for a long video without --thorough."
        ),
    ] = False
    reason: Annotated[
        str | None, Meta(description="Why it could not be looked for; null if it was.")
    ] = None


@dataclass(slots=True)
class Detector:
    """Looks for the watermark in a picture, or in the sum of several frames of a video.

    Attributes:
        frames: Number of pictures that were added.
    """

    frames: int = 0
    _total: FloatImage | None = field(default=None, repr=False)

    def add(self, gray: Image) -> None:
        """Add a picture, unless its shape differs from the first one's.

        Args:
            gray: Its grey levels, (H, W).
        """
        rest = _remainder(gray)
        if self._total is not None and self._total.shape != rest.shape:
            return
        self._total = rest if self._total is None else self._total + rest
        self.frames += 1

    def detect(self) -> Sighting | None:
        """Return the watermark, or None if there is none.

        For any picture, and over the choice of the key, the chance to find a watermark that is not
        there is at most FALSE_ALARM: the picture's waves have independent random phases relative
        to the key's, so their correlation with one tile exceeds z standard deviations in one place
        with a probability of at most exp(-z^2 / 2) (Hoeffding), and there are as many tiles as
        payloads and PLACES places.
        """
        best = self.best()
        return best if best and best.score >= MIN_SCORE else None

    def best(self) -> Sighting | None:
        """Return the most likely watermark, whether or not it is one; None without a picture."""
        if self._total is None:
            return None
        # Most marked pictures still have their original size, so try that first.
        as_it_is = _best_at(self._total, 1.0)
        if as_it_is.score >= MIN_SCORE:
            return as_it_is
        found = [as_it_is, *(_best_at(self._total, float(scale)) for scale in SCALES)]
        return max(found, key=_score_of)


PLACES = 2 * len(SCALES) * TILE**2  # scales, shifts, and both ways round
MIN_SCORE = math.sqrt(2 * (math.log(PLACES / FALSE_ALARM) + BITS * math.log(2)))


def _best_at(total: FloatImage, scale: float) -> Sighting:
    """Return the most likely watermark at a scale, (h, w)."""
    rows, columns = total.shape
    size = max(round(columns * scale), 1), max(round(rows * scale), 1)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = np.asarray(cv2.resize(total, size, interpolation=method), np.float32)
    found = []
    for is_mirrored, turns in enumerate(_turns_of(scaled)):
        for shift in _likely_shifts(turns):
            score, bits = _correlate(turns, shift)
            found.append(Sighting(score, bits, bool(is_mirrored), scale))
    return max(found, key=_score_of)


def _score_of(sighting: Sighting) -> float:
    return sighting.score


def chance_of(score: float) -> float:
    """Return the greatest chance of a watermark with this score that is not there."""
    return math.exp(min(math.log(PLACES) + BITS * math.log(2) - score**2 / 2, 0))


def are_clear(bits: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return whether each bit is certain, (BITS,).

    The scores are taken for Gaussian with a variance of 1 around plus or minus one size.

    Args:
        bits: The score of each bit, (BITS,).
    """
    size = math.sqrt(max(float((bits * bits).mean()) - 1, 0))
    log_odds = 2 * size * np.abs(bits)
    return np.asarray(log_odds >= math.log(CERTAIN / (1 - CERTAIN)))


def agree(bits: npt.NDArray[np.float64], payload: int) -> bool:
    """Return whether bits are those of a payload, even if not each of them can be read.

    Half of another payload agrees in 13 of 16 bits, as must be, in one of a hundred cases.

    Args:
        bits: The score of each bit, (BITS,).
        payload: The payload.
    """
    signs = np.where([payload >> place & 1 for place in range(BITS)], 1, -1)
    halves = (signs * bits).reshape(2, -1).sum(1) / np.abs(bits).reshape(2, -1).sum(1)
    return bool((halves >= AGREEING).all())


def digits_of(bits: npt.NDArray[np.float64]) -> str:
    """Return the bits in hexadecimal; a digit whose bits are not all clear is a question mark.

    Args:
        bits: The score of each bit, (BITS,).
    """
    digits, clear = [], are_clear(bits)
    for low in range(BITS - 4, -1, -4):
        four = bits[low : low + 4]
        value = sum(1 << place for place, score in enumerate(four) if score > 0)
        digits.append(f"{value:x}" if clear[low : low + 4].all() else "?")
    return "".join(digits)


def _remainder(gray: Image) -> FloatImage:
    """Scale a picture to the normal area and keep fine detail, as strong everywhere, (h, w)."""
    rows, columns = _normal_size(*gray.shape)
    shrinks = rows * columns < gray.size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    scaled = cv2.resize(gray.astype(np.float32), (columns, rows), interpolation=method)
    rest = scaled - cv2.GaussianBlur(scaled, (0, 0), DETAIL)
    spread = np.sqrt(cv2.GaussianBlur(rest * rest, (0, 0), DETAIL))
    limited = np.clip(rest / (spread + 1), -MAX_DEVIATION, MAX_DEVIATION)
    return np.asarray(limited, np.float32)


def _turns_of(picture: FloatImage) -> list[npt.NDArray[np.complex128]]:
    """Return exp(i phase) of each wave in the sum of all tiles of a picture, relative to the key's.

    Both the waves' own phases and the picture's amplitudes are divided out. The second array is
    that of the mirrored picture, shifted.
    """
    rows, columns = picture.shape
    down, across = -(-rows // TILE), -(-columns // TILE)
    padded = np.zeros((down * TILE, across * TILE), np.float32)
    padded[:rows, :columns] = picture
    folded = padded.reshape(down, TILE, across, TILE).sum((0, 2))
    waves = _waves()
    spectrum = np.fft.rfft2(folded)
    seen = spectrum[waves.rows, waves.columns]
    mirrored = np.conj(spectrum[-waves.rows % TILE, waves.columns])
    relative = (found * np.conj(waves.turns) for found in (seen, mirrored))
    return [np.asarray(found / np.maximum(np.abs(found), 1e-12)) for found in relative]


@cache
def _roots_of_one() -> npt.NDArray[np.complex128]:
    return np.asarray(np.exp(2j * np.pi * np.arange(TILE) / TILE))


def _likely_shifts(turns: npt.NDArray[np.complex128]) -> list[tuple[int, int]]:
    """Return the shifts of the tile at which the fixed waves agree best, rows and columns."""
    waves = _waves()
    fixed = waves.bits < 0
    agreement = _sum_of(waves.rows[fixed], waves.columns[fixed], turns[fixed]).ravel()
    best = np.argpartition(agreement, -CANDIDATES)[-CANDIDATES:]
    return [divmod(int(place), TILE) for place in best]


def _correlate(
    turns: npt.NDArray[np.complex128], shift: tuple[int, int]
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the score of all waves at a shift of the tile, and that of each bit, (BITS,)."""
    waves = _waves()
    powers = _roots_of_one()
    back = powers[waves.rows * shift[0] % TILE] * powers[waves.columns * shift[1] % TILE]
    agreement = (turns * back).real
    sums = np.bincount(waves.bits + 1, agreement, BITS + 1)
    counts = np.bincount(waves.bits + 1, minlength=BITS + 1)
    # A sum of N cosines of random phases has the variance N / 2.
    score = (sums[0] + np.abs(sums[1:]).sum()) / math.sqrt(counts.sum() / 2)
    return float(score), np.asarray(sums[1:] / np.sqrt(counts[1:] / 2))
