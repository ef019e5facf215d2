"""Smooth per-track values over time without lag."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count, takewhile
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

TrackValues = dict[int, npt.NDArray[np.floating]]  # track number -> value

SMOOTHING_FRAMES = 4  # frames used on either side, so the output is as many frames behind the input


def smooth_over_time(
    items: Iterable[T],
    values: Callable[[T], TrackValues],
    replaced: Callable[[T, TrackValues], T],
    reach: int = SMOOTHING_FRAMES,
) -> Iterator[T]:
    """Yield every item with its tracks' values smoothed by :func:`local_line`.

    Args:
        items: One item per frame, in order.
        values: Returns the values of an item, by track.
        replaced: Returns a copy of an item with new values, by track.
        reach: Frames used on either side. At most ``2 * reach + 1`` items are held in memory.
    """
    window: deque[tuple[T, TrackValues]] = deque()
    middle = 0  # position in the window of the next item to yield
    source = iter(items)
    ended = False
    while True:
        while not ended and len(window) <= middle + reach:
            try:
                item = next(source)
            except StopIteration:
                ended = True
                break
            window.append((item, values(item)))
        if middle >= len(window):
            return
        item, tracks = window[middle]
        yield replaced(item, {track: _smoothed(window, middle, track, reach) for track in tracks})
        if middle < reach:
            middle += 1
        else:
            window.popleft()


def _smoothed(
    window: "deque[tuple[T, TrackValues]]", middle: int, track: int, reach: int
) -> npt.NDArray[np.floating]:
    """Smooth a track's value at ``middle`` over the frames around it, up to the track's gaps."""

    def walk(step: int) -> list[int]:
        contiguous = takewhile(
            lambda at: 0 <= at < len(window) and track in window[at][1], count(middle + step, step)
        )
        return [at for at, _ in zip(contiguous, range(reach), strict=False)]

    near = sorted([*walk(-1), middle, *walk(1)])
    offsets = np.array([at - middle for at in near], np.float64)
    return local_line(offsets, np.stack([window[at][1][track] for at in near]), reach)


def local_line(
    offsets: npt.NDArray[np.float64], values: npt.NDArray[np.floating], reach: int
) -> npt.NDArray[np.floating]:
    """Fit a straight line by weighted least squares and return its value at offset 0.

    This is the local regression of W. S. Cleveland, "Robust locally weighted regression and
    smoothing scatterplots", JASA 74(368), 1979, with Gaussian weights and without the robust
    iterations. A line does not lag behind steady motion, not even at the ends of a track.

    Args:
        offsets: Frame offsets from the smoothed frame, (N,).
        values: The value at each offset, (N, ...).
        reach: Twice the standard deviation of the Gaussian weights, in frames.
    """
    weights = np.exp(-2 * (offsets / max(reach, 1)) ** 2)
    weights /= weights.sum()
    mean = weights @ offsets
    spread = weights @ (offsets - mean) ** 2
    if spread > 1e-9:
        weights = weights * (1 - mean * (offsets - mean) / spread)
    smoothed: npt.NDArray[np.floating] = np.tensordot(weights, values, axes=1).astype(values.dtype)
    return smoothed
