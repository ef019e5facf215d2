"""Types that stages exchange, and the conventions for them.

Images are RGB. Points are (x, y) pixels with pixel centres at integers. A matrix is (2, 3) and
maps frame to crop. BGR exists only beside a cv2 call that demands it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB
FloatImage = npt.NDArray[np.float32]  # (H, W, 3) RGB, 0 to 255, at the source's precision
Rect = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive
Mask = npt.NDArray[np.float32]  # (H, W) in [0, 1]
Points = npt.NDArray[np.float32]  # (N, 2) x, y
Embedding = npt.NDArray[np.float32]  # (128,) face embedding
Matrix = npt.NDArray[np.float64]  # (2, 3) frame -> crop
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # weights of R, G and B, ITU-R BT.601

Identity = Literal["a", "b"]
Count = Annotated[int, Meta(ge=0)]
# Marks a dict that always has both identities as keys, for the JSON schemas.
BOTH_IDENTITIES = Meta(
    extra_json_schema={"propertyNames": {"enum": ["a", "b"]}, "required": ["a", "b"]}
)
DIRECTIONS: tuple[tuple[Identity, Identity], ...] = (("a", "b"), ("b", "a"))  # (footage, new face)


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a long call: ``done`` of ``total`` units, and a short note such as the loss.

    ``total`` is None if it is unknown. ``unit`` is a plural such as "frames" or "steps". Work that
    is limited by time counts "minutes" and says in ``steps`` how many steps it has done.
    """

    done: float
    total: float | None
    unit: str
    note: str = ""
    steps: int | None = None


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Do nothing; the default of every ``on_progress``."""


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 face" or "0 faces"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
