"""The records that travel between stages, and the conventions they keep.

Images are RGB. Points are (x, y) pixels with pixel centres at integers. A matrix is (2, 3) and
maps frame to crop. BGR exists only beside a cv2 call that demands it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]  # (H, W, 3) RGB
Mask = npt.NDArray[np.float32]  # (H, W) in [0, 1]
Points = npt.NDArray[np.float32]  # (N, 2) x, y
Descriptor = npt.NDArray[np.float32]  # (128,) of a face, for recognition
SAME_PERSON = 0.6  # distance of descriptors below which dlib's authors call two faces one person
Matrix = npt.NDArray[np.float64]  # (2, 3) frame -> crop


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One photo or one frame of a video, upright.

    Attributes:
        image: (H, W, 3) RGB.
        index: Position in its source, from 0.
        time: Seconds from the source's own zero; 0 for a photo.
        source: The file it was read from.
        native: The decoder's own frame. It carries what RGB cannot (duration, colour tags), and
            lets the writer pass a frame on whose ``image`` nobody replaced without converting it.
        changed: Where ``image`` differs from what was read: left, top, right, bottom, the last two
            exclusive; None: nowhere, or not known. Only there a frame needs to be converted back.
    """

    image: Image
    index: int
    time: Fraction
    source: Path
    native: Any = None
    changed: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """A rectangle in frame pixels, right and bottom exclusive; it may leave the frame."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face found in a frame: detector box, detector score and 68 landmarks (68, 2).

    ``track`` tells which of a video's faces it is, from frame to frame; -1 where none is followed.
    ``role`` is the index of the swap it gets, where a cast asks for several.
    """

    box: Box
    score: float
    landmarks: Points
    track: int = -1
    role: int = 0


Found = tuple[Frame, list[Face]]  # a frame and its faces, largest first


@dataclass(frozen=True, slots=True, eq=False)
class AlignedFace:
    """A face brought to the canonical pose: crop (S, S, 3) and the frame -> crop matrix."""

    face: Face
    image: Image
    matrix: Matrix


@dataclass(frozen=True, slots=True, eq=False)
class Swap:
    """What to paste: a new crop (S, S, 3) and where it counts (S, S), like ``aligned``'s crop.

    ``color`` holds what a colour match has measured, until it is applied to ``image``.
    """

    aligned: AlignedFace
    image: Image
    mask: Mask
    color: npt.NDArray[np.float64] | None = None


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
