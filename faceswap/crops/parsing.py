"""Find the visible skin of a face with a segmentation network, so that hands stay in front of it.

The network is Google's selfie multiclass segmenter (Apache-2.0), run by OpenCV. See
``faceswap/weights/manifest.json`` for its origin. It was made for images of 256 px; with 192 px it
takes 0.55 of the time and sees what is in front of a face as well.
"""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from faceswap.arrays import LUMA, FloatImage, Image, Mask, Points
from faceswap.crops.eyes import EYES
from faceswap.crops.guidance import Photos, from_view
from faceswap.crops.masks import hull_of, outline
from faceswap.faces import networks
from faceswap.faces.geometry import (
    AlignedFace,
    Face,
    compose,
    invert,
    rect_of,
    scale_of,
    shifted,
    transform,
    typical_box,
    warp_image,
    warp_mask,
)
from faceswap.media.frame import Frame

log = logging.getLogger(__name__)

WEIGHTS = "selfie_multiclass.onnx"
SIDE = 192  # pixels of the network's input and output
# The network's classes; the first, 0, is background. Glasses and microphones are others.
HAIR, BODY, SKIN, CLOTHES, OTHERS = 1, 2, 3, 4, 5
# Share of the surroundings of the eyes, from their middle down, that glasses cover: 0.04 or more in
# 95 % of the frames of one person's thin rims, at most 0.004 in 116 faces without glasses. Brims of
# caps are above the eyes.
GLASSES = 0.02
AROUND_EYES = 12 / 256  # how far these surroundings reach, as a share of the crop's side
# The network sees a square about the crop's centre that is this many times as large as the crop:
# 1.6 times the face's box, at which it cut hands, microphones and rims of glasses best.
FIELD = 290 / 256
# Pixels of the network's input per pixel of the frame, at most: a small face gets more of its
# surroundings. The network saw no skin in faces of 20 px that were enlarged seven times.
MAX_ENLARGED = 3.5
# What may be in front of a face (hands, clothes, things) hides it from a probability of FRONT on,
# where it is connected to a place at which it is likelier than not. Parts of a soft face have no
# such place. INSIDE keeps the neck at the jaw from counting, as a share of the crop's side.
FRONT, INSIDE = 0.15, 8 / 256
REACH = 3 / 256  # how far around such a thing its edge is softened, as a share of the crop's side
# Smallest patch of skin that is pasted, as a share of the crop. The network can mistake the middle
# of a black microphone for an open mouth, of 0.015. Skin between fingers stays as filmed.
ISLAND = 0.018
# Mean probability of skin and of what may be in front of it, inside a face, below which the network
# saw no face at all, so all of it counts as skin. This happens to some faces under 32 px.
BLIND = 0.3
AT_LEAST = 12  # frames of a track after which its skin is looked at again in any case
CELLS = 24  # cells along each side of the crop whose brightness is compared between looks
SURE = 0.5  # probability from which something counts as skin
LOOKS_WITH_GLASSES = 3  # looks that must show glasses on a track before the user is warned
LOOKED_AT = 8  # photos of a person in which skin is looked for
CHANGE = 10.0  # levels by which a cell must change to be looked at again
BEARD = slice(4, 13)  # landmarks of the jaw between which hair is a beard
# Eyes and lips move without uncovering anything.
MOVING = (*EYES, slice(48, 68))


def skin_of(frame: Frame, aligned: AlignedFace) -> Mask:
    """Return the probability that each pixel of a face's crop shows the skin of a face, (S, S).

    Eyes and lips count as skin; hair, hands, microphones and glasses do not.
    """
    return _parts(frame, aligned, scale_of(aligned.matrix)).skin


def skin_and_glasses(aligned: AlignedFace) -> tuple[Mask, bool]:
    """Return what :func:`skin_of` does from the crop alone, and whether the face wears glasses."""
    crop = aligned.image
    points = transform(aligned.face.landmarks, aligned.matrix)
    own = AlignedFace(replace(aligned.face, landmarks=points), crop, np.eye(2, 3))
    parts = _parts(Frame(crop, 0, Fraction(0), Path()), own, scale_of(aligned.matrix))
    return parts.skin, wears_glasses(parts.others, points)


def wears_glasses(others: Mask, points: Points) -> bool:
    """Return whether a face wears glasses.

    Args:
        others: Probability that a pixel of the crop shows neither hair, skin, clothes nor
            background, (S, S).
        points: The landmarks in the crop, (68, 2).
    """
    eyes = hull_of(points[36:48], *others.shape)
    reach = round(AROUND_EYES * len(others))
    around = cv2.dilate(eyes, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
    around[: round(float(points[36:48, 1].mean()))] = False
    return bool(around.any()) and float((others[around] > SURE).mean()) >= GLASSES


@dataclass(frozen=True, slots=True, eq=False)
class _Parts:
    """What each pixel of a face's crop shows.

    Attributes:
        hair: Probability of hair, (S, S).
        skin: Probability of the skin of a face.
        others: Probability of neither of them, nor of clothes or background.
        is_face: Whether the network saw a face, or something in front of one, at all.
    """

    hair: Mask
    skin: Mask
    others: Mask
    is_face: bool


def _parts(frame: Frame, aligned: AlignedFace, enlarged: float) -> _Parts:
    """Return what each pixel of a face's crop shows.

    Args:
        frame: The frame.
        aligned: A face in it.
        enlarged: Pixels of the crop per pixel that a camera saw.
    """
    size = len(aligned.image)
    scale = min(SIDE / (FIELD * size), MAX_ENLARGED / enlarged)
    offset = (SIDE - 1) / 2 - scale * (size - 1) / 2
    to_input = np.array([[scale, 0, offset], [0, scale, offset]])  # from the crop
    matrix = compose(to_input, aligned.matrix)
    rect = rect_of(matrix, SIDE, *frame.shape)
    from_rect = compose(matrix, shifted(np.eye(2, 3), -rect[0], -rect[1]))
    image = warp_image(frame.crop(rect), from_rect, SIDE, SIDE)
    back = invert(to_input)
    hair, skin, others, front = (
        warp_mask(each, back, size, size) for each in _probabilities(image)
    )
    face = outline(transform(aligned.face.landmarks, aligned.matrix), size)
    inside = face > 0
    is_face = not inside.any() or max(skin[inside].mean(), front[inside].mean()) >= BLIND
    skin = _without_front(skin, front, face) if is_face else np.ones_like(skin)
    return _Parts(hair, skin, others, is_face)


def _without_front(skin: Mask, front: Mask, face: Mask) -> Mask:
    """Return the skin without what is in front of it, (S, S); see ``FRONT`` and ``ISLAND``.

    Args:
        skin: Probability that a pixel shows the skin of a face.
        front: Probability that it shows something that may be in front of one.
        face: Outline of the face.
    """
    size = len(skin)
    reach, border = round(REACH * size), round(INSIDE * size)
    inner = cv2.erode(face, np.ones((2 * border + 1,) * 2, np.uint8))
    count, labels = cv2.connectedComponents((front > FRONT).astype(np.uint8))
    hides = np.zeros(count, np.uint8)
    hides[labels[(front > SURE) & (inner > 0)]] = 1
    around = cv2.dilate(hides[labels], np.ones((2 * reach + 1,) * 2, np.uint8)) > 0
    clear = 1 - np.clip(front * (SURE / FRONT), 0, 1)  # 0.5 where the thing begins to hide
    skin = np.where(around, np.minimum(skin, clear), skin)
    seen = ((skin > SURE) & (face > 0)).astype(np.uint8)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(seen)
    island = statistics[:, cv2.CC_STAT_AREA] < ISLAND * size**2
    island[0] = False  # what is not seen
    return np.where(island[labels], np.float32(0), skin)


@lru_cache(4)  # evaluation builds many swappers with the same photos
def usually_bare(photos: Photos, view: float, size: int) -> Mask:
    """Return how often each pixel of a person's aligned crops is free of hair, (S, S).

    Among the features and on the chin it is 1, as brows and a beard are part of the face. Photos so
    soft that their noses are not seen as skin tell nothing; without others it is 1 everywhere.

    Args:
        photos: Photos of the person.
        view: Side of the network crop as a share of the crop's side.
        size: Side of the result.
    """
    chosen = np.linspace(0, len(photos.crops) - 1, min(LOOKED_AT, len(photos.crops))).astype(int)
    found: list[Mask] = []
    for number in dict.fromkeys(chosen.tolist()):
        crop = photos.crops[number]
        points = from_view(photos.points[number], len(crop), view)
        aligned = AlignedFace(Face(typical_box(points), 1.0, points), crop, np.eye(2, 3))
        parts = _parts(Frame(crop, 0, Fraction(0), Path()), aligned, 1.0)
        hair, skin = parts.hair, parts.skin
        if not parts.is_face or skin[hull_of(points[27:36], *skin.shape) > 0].mean() < SURE:
            continue
        beard = np.concatenate([points[BEARD], points[31:36]])
        kept = np.maximum(hull_of(points[17:], *skin.shape), hull_of(beard, *skin.shape))
        bare = np.maximum(1 - hair, kept)
        small = cv2.resize(bare, (size, size), interpolation=cv2.INTER_AREA)
        found.append(np.asarray(small, np.float32))
    if not found:
        return np.ones((size, size), np.float32)
    return np.asarray(np.mean(found, axis=0), np.float32)


def _probabilities(image: Image) -> FloatImage:
    """Return what each pixel of an image (192, 192, 3) shows: hair, face skin, others, or a front.

    The result (4, 192, 192) has the probability of each. Body skin, clothes and other things may be
    in front of a face.

    In the dark the network sees nothing, so a dark image is brightened.
    """
    lit = networks.brightened(image)
    image = image if lit is None else lit
    (logits,) = networks.load(WEIGHTS).run(networks.channels_first(image)).values()
    logits = logits[0]  # (6, 192, 192)
    weights = np.exp(logits - logits.max(axis=0))
    shares = np.asarray(weights / weights.sum(axis=0), np.float32)
    front = shares[BODY] + shares[CLOTHES] + shares[OTHERS]
    return np.stack([shares[HAIR], shares[SKIN], shares[OTHERS], front])


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
        self._glasses: Counter[int] = Counter()  # looks that saw glasses, by track

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
                parts = _parts(frame, aligned, scale_of(aligned.matrix))
                self._note_glasses(aligned, parts)
                seen = _Seen(index, parts.skin, cells)
            else:
                seen = replace(seen, index=index)
            self._seen[track] = seen
        return replace(aligned, skin=seen.skin)

    def _note_glasses(self, aligned: AlignedFace, parts: _Parts) -> None:
        """Warn once if a face wears glasses."""
        if max(self._glasses.values(), default=0) >= LOOKS_WITH_GLASSES:
            return
        points = transform(aligned.face.landmarks, aligned.matrix)
        self._glasses[aligned.face.track] += wears_glasses(parts.others, points)
        if self._glasses[aligned.face.track] == LOOKS_WITH_GLASSES:
            log.warning(
                "a face of the footage wears glasses: the rims stay in front, but reflections and "
                "what the lenses distort are painted over"
            )


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
