"""The records that travel between stages, and the conventions they keep.

Images are RGB. Points are (x, y) pixels with pixel centres at integers. A matrix is (2, 3) and
maps frame to crop. BGR exists only beside a cv2 call that demands it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB
FloatImage = npt.NDArray[np.float32]  # (H, W, 3) RGB, 0 to 255 in steps as fine as the source's
Rect = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive
Mask = npt.NDArray[np.float32]  # (H, W) in [0, 1]
Points = npt.NDArray[np.float32]  # (N, 2) x, y
Embedding = npt.NDArray[np.float32]  # (128,) of a face, for recognition
Matrix = npt.NDArray[np.float64]  # (2, 3) frame -> crop
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue, ITU-R BT.601

Identity = Literal["a", "b"]
DIRECTIONS: tuple[tuple[Identity, Identity], ...] = (("a", "b"), ("b", "a"))  # footage, new face


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long call is: ``done`` of ``total`` units, and a short note such as the loss.

    ``total`` is None where it cannot be known. A unit is a word for the plural: "frames", "steps".
    """

    done: float
    total: float | None
    unit: str
    note: str = ""


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Default of every ``on_progress``: nobody is watching."""
