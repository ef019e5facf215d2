"""Choose the faces that training never sees, so that scores on them are honest.

Neighbouring video frames and photos of the same moment show nearly the same face. Scores on one of
them, while the other is trained on, would measure memory. Video is therefore held out in contiguous
blocks with a gap around them, and photos that look like a held-out face are left out as well.
"""

import logging
import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.facesets.faceset import Faceset

log = logging.getLogger(__name__)

GAP = 1.0  # seconds between a held-out frame and the nearest training frame
SHORTEST = 5.0  # seconds; the gap is the same share of a shorter video
BLOCKS = 5  # maximum number of blocks per video
MAX_COST = 0.2  # share of a video that gaps may take, apart from those of one block
ALIKE = 0.97  # correlation of two crops from which they show the same moment
SIDE = 64  # pixels; crops are compared at this size
INNER = 0.1  # share of the crop's side that is cut off before comparing: the background
MAX_LEFT_OUT = 0.5  # share of the faces; beyond it, nothing is left out

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Split:
    """The faces that training does not see.

    Attributes:
        held_out: Keys of the faces that scores are measured on.
        left_out: Keys of the faces that resemble those too much to train on.
    """

    held_out: list[str]
    left_out: list[str]


def split(faceset: Faceset, share: float) -> Split:
    """Hold out a share of the faces.

    Args:
        faceset: All faces of a person.
        share: Share to hold out, 0 to 1.
    """
    count = len(faceset.keys)
    if not share or not count:
        return Split([], [])
    sources = np.array([key.rpartition("#")[0] for key in faceset.keys])
    held_out, gap = np.zeros(count, bool), np.zeros(count, bool)
    photos = np.ones(count, bool)
    for source in np.unique(sources):
        of_source = sources == source
        if len(np.unique(faceset.times[of_source])) > 1:
            photos &= ~of_source
            blocks, around = _blocks(faceset.times[of_source], share)
            held_out[of_source], gap[of_source] = blocks, around
    held_out[np.flatnonzero(photos)[:: round(1 / share)]] = True
    alike = _alike(faceset, sources, held_out) & ~held_out & ~gap
    if (alike | gap).sum() > MAX_LEFT_OUT * count:
        log.warning(
            "%s: most faces look like the held-out ones, so they stay in training and held-out "
            "scores will be too good: extract more varied footage", faceset.name,
        )  # fmt: skip
        alike[:] = gap[:] = False
    return Split(_keys(faceset, held_out), _keys(faceset, alike | gap))


def _keys(faceset: Faceset, chosen: Bools) -> list[str]:
    return [faceset.keys[index] for index in np.flatnonzero(chosen)]


def _blocks(times: npt.NDArray[np.float64], share: float) -> tuple[Bools, Bools]:
    """Choose blocks of a video by time; return which frames they hold and which lie around them."""
    start, end = times.min(), times.max()
    length = end - start
    gap = min(GAP, length * GAP / SHORTEST)
    number = min(max(math.floor(MAX_COST * length / (2 * gap)), 1), BLOCKS)
    held_out, around = np.zeros(len(times), bool), np.zeros(len(times), bool)
    for block in range(1, number + 1):
        last = start + block * length / number  # the last block ends with the video, with one gap
        first = last - share * length / number
        held_out |= (times > first) & (times <= last)
        around |= (times > first - gap) & (times <= last + gap)
    return held_out, around & ~held_out


def _alike(faceset: Faceset, sources: npt.NDArray[np.str_], held_out: Bools) -> Bools:
    """Return which faces show the same moment as a held-out face of another source."""
    margin = round(INNER * SIDE)
    inner = slice(margin, SIDE - margin)
    gray = [
        cv2.resize(crop.float().mean(0).numpy(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for crop in faceset.crops
    ]
    rows = np.stack([image[inner, inner].ravel() for image in gray])
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    chosen = np.flatnonzero(held_out)
    same_source = sources[:, None] == sources[chosen]
    found: Bools = ((rows @ rows[chosen].T > ALIKE) & ~same_source).any(axis=1)
    return found
