"""Find the visible skin of a face with a segmentation network, so that hands stay in front of it.

The network is Google's selfie multiclass segmenter (256 px, Apache-2.0), run by OpenCV. See
``faceswap/weights/manifest.json`` for its origin.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from faceswap.arrays import LUMA, FloatImage, Image, Mask
from faceswap.faces.eyes import EYES
from faceswap.faces.geometry import (
    AlignedFace,
    Face,
    compose,
    invert,
    rect_of,
    shifted,
    transform,
    typical_box,
    warp_image,
    warp_mask,
)
from faceswap.faces.guidance import Photos, from_view
from faceswap.faces.masks import hull_of, outline, smoothstep
from faceswap.media.frame import Frame

WEIGHTS = "selfie_multiclass.onnx"
SIDE = 256  # pixels of the network's input and output
FACE_SKIN = 3  # of the classes background, hair, body skin, face skin, clothes, others
# The network sees a square about the crop's centre that is this many times as large as the crop:
# 1.6 times the face's box, at which it cut hands, microphones and rims of glasses best.
FIELD = 290 / 256
AT_LEAST = 12  # frames of a track after which its skin is looked at again in any case
CELLS = 24  # cells along each side of the crop whose brightness is compared between looks
SURE = 0.5  # probability from which something counts as skin
LOOKED_AT = 8  # photos of a person in which skin is looked for
CHANGE = 10.0  # levels by which a cell must change to be looked at again
# Eyes and lips move without uncovering anything.
MOVING = (*EYES, slice(48, 68))


@cache
def _network() -> Any:
    with as_file(files("faceswap.weights") / WEIGHTS) as path:
        return cv2.dnn.readNetFromONNX(str(path))


def skin_of(frame: Frame, aligned: AlignedFace) -> Mask:
    """Return the probability that each pixel of a face's crop shows the skin of a face, (S, S).

    Eyes and lips count as skin; hair, hands, microphones and glasses do not.
    """
    size = len(aligned.image)
    scale = SIDE / (FIELD * size)
    offset = (SIDE - 1) / 2 - scale * (size - 1) / 2
    to_input = np.array([[scale, 0, offset], [0, scale, offset]])  # from the crop
    matrix = compose(to_input, aligned.matrix)
    rect = rect_of(matrix, SIDE, *frame.shape)
    from_rect = compose(matrix, shifted(np.eye(2, 3), -rect[0], -rect[1]))
    image = warp_image(frame.crop(rect), from_rect, SIDE, SIDE)
    return warp_mask(_probability(image), invert(to_input), size, size)


@lru_cache(4)  # evaluation builds many swappers with the same photos
def usual_skin(photos: Photos, view: float, size: int) -> Mask:
    """Return how often each pixel of a person's aligned crops shows skin of the face, (S, S).

    Below the nose and among the features it is 1, as a beard and glasses are part of the face. Hair
    that falls over a temple or the forehead in most photos is not. Photos so soft that their noses
    are not seen as skin tell nothing; without others it is 1 everywhere.

    Args:
        photos: Photos of the person.
        view: Side of the network crop as a share of the crop's side.
        size: Side of the result.
    """
    chosen = np.linspace(0, len(photos.crops) - 1, min(LOOKED_AT, len(photos.crops))).astype(int)
    found: list[Mask] = []
    noses: list[float] = []
    for number in dict.fromkeys(chosen.tolist()):
        crop = photos.crops[number]
        points = from_view(photos.points[number], len(crop), view)
        aligned = AlignedFace(Face(typical_box(points), 1.0, points), crop, np.eye(2, 3))
        skin = skin_of(Frame(crop, 0, Fraction(0), Path()), aligned)
        if skin[hull_of(points[27:36], *skin.shape) > 0].mean() < SURE:
            continue
        seen = np.maximum(skin, hull_of(points[17:], *skin.shape))
        small = cv2.resize(seen, (size, size), interpolation=cv2.INTER_AREA)
        found.append(np.asarray(small, np.float32))
        noses.append(float(points[30, 1]) * size / len(crop))
    if not found:
        return np.ones((size, size), np.float32)
    mean = np.asarray(np.mean(found, axis=0), np.float32)
    below = smoothstep(np.asarray((np.arange(size) - np.median(noses)) / (size / 16), np.float32))
    return np.asarray(np.maximum(mean, below[:, None]), np.float32)


def _probability(image: Image) -> Mask:
    """Return the probability of the class face skin, (256, 256), for an image of that size."""
    network = _network()
    network.setInput(image.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255))
    logits = np.asarray(network.forward(), np.float32)[0]  # (6, 256, 256)
    weights = np.exp(logits - logits.max(axis=0))
    return np.asarray(weights[FACE_SKIN] / weights.sum(axis=0), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What the last look at a track found.

    Attributes:
        index: The frame in which the face was last looked at or compared.
        skin: The skin, (S, S).
        cells: The brightness of the cells then, (CELLS, CELLS).
    """

    index: int
    skin: Mask
    cells: FloatImage


class SkinParser:
    """Looks for skin on some frames of a track and reuses the answer, in the crop, between them.

    It looks at least in every ``AT_LEAST`` th frame, and more often where the face changes: a hand
    that arrives is seen at once. Frames are chosen by index and by what they show, so that a
    conversion that is resumed at a multiple of ``AT_LEAST`` looks at the same ones.

    Args:
        every: In between, it compares every so many frames with the last look; a divisor of
            ``AT_LEAST``.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._seen: dict[int, _Seen] = {}  # by track

    def parse(self, frame: Frame, aligned: AlignedFace) -> AlignedFace:
        """Return the face with its ``skin``."""
        track = aligned.face.track
        if track < 0:
            return replace(aligned, skin=skin_of(frame, aligned))
        index, seen = frame.index, self._seen.get(track)
        if seen is None or seen.index // self._every != index // self._every:
            cells = _cells(aligned)
            is_old = seen is None or seen.index // AT_LEAST != index // AT_LEAST
            if seen is None or is_old or _differ(cells, seen.cells, aligned):
                seen = _Seen(index, skin_of(frame, aligned), cells)
            else:
                seen = replace(seen, index=index)
            self._seen[track] = seen
        return replace(aligned, skin=seen.skin)


def _cells(aligned: AlignedFace) -> FloatImage:
    """Return the mean brightness of the cells of a crop, (CELLS, CELLS)."""
    small = cv2.resize(aligned.image, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return np.asarray(small.astype(np.float32) @ LUMA, np.float32)


def _differ(one: FloatImage, other: FloatImage, aligned: AlignedFace) -> bool:
    """Return whether any cell of the skin changed more than the face as a whole."""
    shrink = CELLS / len(aligned.image)
    points = (transform(aligned.face.landmarks, aligned.matrix) + 0.5) * shrink - 0.5
    inside = outline(points.astype(np.float32), CELLS) > 0
    for part in MOVING:
        # The cells beside it show a part of it, too.
        inside &= cv2.dilate(hull_of(points[part], CELLS, CELLS), np.ones((3, 3), np.uint8)) == 0
    if not inside.any():
        return True
    change = (one - other)[inside]
    return bool(np.abs(change - np.median(change)).max() > CHANGE)
