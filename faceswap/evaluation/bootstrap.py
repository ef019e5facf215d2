"""Bootstrap intervals: how far a score would move with other faces of the same people.

B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7(1), 1979. Faces
are drawn again with replacement, and the percentiles of the repeated scores give the width of the
interval. A resample holds fewer different faces, which makes spreads smaller and distances larger,
so the interval is moved until the median of the repeated scores equals the score.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from faceswap.evaluation.results import Score

Draw = npt.NDArray[np.int64]  # (n,) indices of the faces of one resample, with repetitions

CONFIDENCE = 0.95
RESAMPLES = 1000
MIN_FACES = 3  # fewer faces give no interval


def scored(
    count: int, statistic: Callable[[Draw], float], resamples: int = RESAMPLES
) -> Score | None:
    """Return a statistic of all faces with its interval, or None if it is undefined.

    Args:
        count: Number of faces.
        statistic: Takes the indices of the faces and returns the score; NaN if it is undefined.
        resamples: Number of resamples.
    """
    value = statistic(np.arange(count)) if count else math.nan
    if not math.isfinite(value):
        return None
    if count < MIN_FACES:
        return Score(_rounded(value), None, None)
    draws = np.random.default_rng(0).integers(count, size=(resamples, count))
    repeated = np.array([statistic(draw) for draw in draws])
    repeated = repeated[np.isfinite(repeated)]  # a resample may hold no open mouth at all
    tail = (1 - CONFIDENCE) / 2
    low, median, high = np.quantile(repeated, [tail, 0.5, 1 - tail])
    bias = float(median) - value
    return Score(_rounded(value), _rounded(float(low) - bias), _rounded(float(high) - bias))


def mean_of(values: list[float]) -> Score | None:
    """Return the mean of one number per face; faces whose number is NaN are left out."""
    numbers = np.asarray(values, np.float64)
    return scored(len(numbers), lambda draw: _mean(numbers[draw]))


def _mean(numbers: npt.NDArray[np.float64]) -> float:
    known = numbers[np.isfinite(numbers)]
    return float(known.mean()) if len(known) else math.nan


def _rounded(value: float) -> float:
    """Round to the four digits that reports show."""
    return round(value, 4)
