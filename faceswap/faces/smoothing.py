"""Values that belong to a face, steadied over the frames around it, without lag."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count, takewhile
from typing import TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

TrackValues = dict[int, npt.NDArray[np.floating]]  # by track

SMOOTHING_FRAMES = (
    4  # frames looked at on either side: the delay of what is steadied, and its memory
)


def smooth_over_time(
    items: Iterable[T],
    values: Callable[[T], TrackValues],
    replaced: Callable[[T, TrackValues], T],
    reach: int = SMOOTHING_FRAMES,
) -> Iterator[T]:
    """Yield every item with its tracks' values replaced by :func:`local_line` over time.

    Args:
        items: One a frame, in order.
        values: Gives an item's values by track.
        replaced: Makes an item with other values.
        reach: Frames on either side. At most ``2 * reach + 1`` items are held.
    """
    window: deque[tuple[T, TrackValues]] = deque()
    middle = 0  # of the window: the next item to yield
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
        item, own = window[middle]
        yield replaced(item, {track: _smoothed(window, middle, track, reach) for track in own})
        if middle < reach:
            middle += 1
        else:
            window.popleft()


def _smoothed(
    window: "deque[tuple[T, TrackValues]]", middle: int, track: int, reach: int
) -> npt.NDArray[np.floating]:
    """The value of a track at the window's middle, from the frames it is in without a break."""

    def walk(step: int) -> list[int]:
        within = takewhile(
            lambda at: 0 <= at < len(window) and track in window[at][1], count(middle + step, step)
        )
        return [at for at, _ in zip(within, range(reach), strict=False)]

    near = sorted([*walk(-1), middle, *walk(1)])
    offsets = np.array([at - middle for at in near], np.float64)
    return local_line(offsets, np.stack([window[at][1][track] for at in near]), reach)


def local_line(
    offsets: npt.NDArray[np.float64], values: npt.NDArray[np.floating], reach: int
) -> npt.NDArray[np.floating]:
    """The value at offset 0 of the straight line that fits best, near frames weighing more.

    W. S. Cleveland, "Robust locally weighted regression and smoothing scatterplots", JASA 74(368),
    1979, with Gaussian weights. A line has no lag where things move steadily, not even at the ends
    of a track.

    Args:
        offsets: Frames before and after, (N,).
        values: (N, ...).
        reach: Two standard deviations of the weights.
    """
    weights = np.exp(-2 * (offsets / max(reach, 1)) ** 2)
    weights /= weights.sum()
    mean = weights @ offsets
    spread = weights @ (offsets - mean) ** 2
    if spread > 1e-9:
        weights = weights * (1 - mean * (offsets - mean) / spread)
    smoothed: npt.NDArray[np.floating] = np.tensordot(weights, values, axes=1).astype(values.dtype)
    return smoothed
