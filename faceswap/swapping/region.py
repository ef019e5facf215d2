"""Choose which part of a face is pasted, how softly, and hide the footage's brows beside it.

The region is the face's outline where skin is seen. Its edge is soft where there is room: wide on
the forehead, narrow along the jaw. Brows of the footage that stick out of it would show as a second
pair, so they are painted over with the skin around them.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import LUMA, FloatImage, Image, Mask, Points
from faceswap.crops.masks import FEATURES, hull_of, smoothstep
from faceswap.faces.geometry import AlignedFace, resized, transform
from faceswap.media.frame import rounded

JAW = 0.90  # the core's jaw is drawn in to this share of its distance from the nose
CLEAR = 3 / 160  # the core's brows are raised by this share of the face's square
MAX_FEATHER = 0.30  # widest edge, as a share of the face's square
BROW_RISE, BROW_DROP = 0.5, 0.08  # of the zone around the brows, in nose lengths
ZONE, MARGIN = 12 / 256, 5 / 256  # by which zone and features are dilated, in crop sides
BROW_EDGE = 4 / 256  # half the height of a brow, as a share of the crop
GROW = 3 / 256  # growth of dark pixels, whose rims are a mixture, as a share of the crop
GRID = 64  # cells per side of the crop on which skin is continued over the brows
FILLS = ((1.5, 1.0), (4.0, 0.02), (10.0, 0.0004))  # deviations in cells and weights
BARE = 10 / 256  # width of the skin around features that is replaced with them, in crop sides
# Width of the skin around brows and eyes in which pixels that are darker than it by so many levels
# belong to them, in crop sides.
WIDE, DRAWN = 16 / 256, 20.0
SURE = 0.8  # probability from which a pixel counts as skin
# Levels darker than the skin: where painting over begins, and the ramp until it is complete.
DARKER, RAMP = 1.5, 6.0

BROWS = (slice(17, 22), slice(22, 27))
SIDES = FEATURES[:2]  # a brow and its eye


@dataclass(frozen=True, slots=True, eq=False)
class Cover:
    """Skin to paint over the footage before the new face is pasted.

    Attributes:
        image: (S, S, 3).
        mask: (S, S) in [0, 1].
        brows: Its part that hides brows, without the shadows between brows and eyes, (S, S).
    """

    image: Image
    mask: Mask
    brows: Mask


def feathered(region: Mask, aligned: AlignedFace, coverage: float, narrow: float) -> Mask:
    """Soften the edge of a region (S, S), more where the features are far from it.

    The mask is 1 in a core around the features and 0 outside the region, and rises smoothly in
    between.

    Args:
        region: 1 where the face may be pasted.
        aligned: The face.
        coverage: Fraction of the crop's side that the face's square covers.
        narrow: Least width of the edge, as a share of the face's square.
    """
    size = len(region)
    side = coverage * size
    points = transform(aligned.face.landmarks, aligned.matrix)
    center, up = points[27:36].mean(axis=0), points[27] - points[33]
    raised = points[17:27] + CLEAR * side * up / max(float(np.linalg.norm(up)), 1e-6)
    core = np.vstack([center + JAW * (points[1:16] - center), raised, points[27:]])
    inner = _hulls(core, [list(range(len(core)))], 0, size)
    outwards = cv2.distanceTransform((inner < 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    inwards = cv2.distanceTransform((region > 0.5).astype(np.uint8), cv2.DIST_L2, 5) - 1
    inwards = np.maximum(inwards, 0)
    width = np.clip(inwards + outwards, max(narrow * side, 1e-3), MAX_FEATHER * side)
    return smoothstep(inwards / width)


def halved(aligned: AlignedFace) -> AlignedFace:
    """Return an aligned face with half as large an image and skin."""
    assert aligned.skin is not None, "the mask needs the skin"
    half = (len(aligned.image) // 2,) * 2
    image = np.asarray(cv2.resize(aligned.image, half, interpolation=cv2.INTER_AREA), np.uint8)
    skin = np.asarray(cv2.resize(aligned.skin, half, interpolation=cv2.INTER_AREA), np.float32)
    return replace(aligned, image=image, skin=skin, matrix=resized(aligned.matrix, 0.5))


def enlarged(cover: Cover, size: int) -> Cover:
    """Return a cover in another size."""
    image, mask, brows = (
        cv2.resize(each, (size, size), interpolation=cv2.INTER_LINEAR)
        for each in (cover.image, cover.mask, cover.brows)
    )
    return Cover(
        np.asarray(image, np.uint8), np.asarray(mask, np.float32), np.asarray(brows, np.float32)
    )


def brow_cover(aligned: AlignedFace) -> Cover:
    """Continue the skin over the footage's brows.

    Args:
        aligned: The face, with its ``skin``.
    """
    assert aligned.skin is not None, "the mask needs the skin too"
    size, skin = len(aligned.image), aligned.skin
    points = transform(aligned.face.landmarks, aligned.matrix)
    up = points[27] - points[33]
    around = [
        np.vstack([points[brow], points[brow] + BROW_RISE * up, points[brow] - BROW_DROP * up])
        for brow in BROWS
    ]
    zone: Mask = np.maximum(
        *(_hulls(brow, [list(range(15))], ZONE * size, size) for brow in around)
    )
    square = np.ones((2 * round(2 * size / 256) + 1,) * 2, np.uint8)
    features = _hulls(points, list(SIDES), MARGIN * size, size)
    sure = (skin > SURE).astype(np.float32)
    clean = (1 - np.maximum(cv2.dilate(zone, square), features)) * sure
    footage = aligned.image.astype(np.float32)
    fill = _continued(footage, clean)
    pixel = size / 256
    # Skin beside the brow tells its colour better than skin above the whole zone.
    dark = ((fill - footage) @ LUMA > DARKER).astype(np.uint8)
    grown = cv2.dilate(dark, np.ones((3, 3), np.uint8), iterations=max(round(GROW * size), 1))
    above = np.maximum(*(_hulls(brow[:10], [list(range(10))], 0, size) for brow in around))
    beside = above * (1 - grown) * (1 - features) * sure
    fill = _continued(footage, np.maximum(clean, beside).astype(np.float32))
    darker = cv2.GaussianBlur(np.asarray((fill - footage) @ LUMA, np.float32), (0, 0), pixel)
    share = smoothstep(np.asarray((darker - DARKER) / RAMP, np.float32))
    soft: Mask = share * np.asarray(
        cv2.GaussianBlur(zone * cv2.erode(skin, square), (0, 0), 2 * pixel), np.float32
    )
    grown = cv2.dilate(soft, np.ones((3, 3), np.uint8))
    soft = np.asarray(cv2.GaussianBlur(grown, (0, 0), pixel), np.float32)
    edge = max(round(BROW_EDGE * size), 1)
    upper = cv2.dilate(above, np.ones((2 * edge + 1, 2 * edge + 1), np.uint8))
    upper = cv2.GaussianBlur(upper, (0, 0), 2 * pixel)
    return Cover(rounded(fill), soft, soft * np.asarray(upper, np.float32))


def without_brows(footage: Image, cover: Cover) -> Image:
    """Hide the brows of a face of the footage, (S, S, 3)."""
    share = cover.brows[..., None]
    return rounded(np.asarray(footage + share * (cover.image - footage.astype(np.float32))))


def bare(face: Image, points: Points, inside: Mask) -> Image:
    """Continue the skin of a face over its eyes, brows and lips, so that they count as no shadows.

    Args:
        face: The footage's face or the new one, (S, S, 3).
        points: The landmarks of the footage's face, which tell where the features are.
        inside: 1 on skin to continue, (S, S).
    """
    size = len(face)
    features = _hulls(points, list(FEATURES), BARE * size, size)
    pixels = face.astype(np.float32)
    fill = _continued(pixels, inside * (1 - features))
    # Brows and lines drawn around the eyes can reach farther than the landmarks tell.
    dark = ((fill - pixels) @ LUMA > DRAWN).astype(np.float32)
    wide = _hulls(points, list(SIDES), WIDE * size, size)
    features = np.maximum(features, cv2.dilate(dark * wide, np.ones((3, 3), np.uint8)))
    fill = _continued(pixels, inside * (1 - features))
    soft = np.asarray(cv2.GaussianBlur(features, (0, 0), size / 128), np.float32)
    return rounded(pixels + soft[..., None] * (fill - pixels))


def sticks_out(cover: Cover, mask: Mask) -> bool:
    """Return whether the footage's brows show through the mask of a new face, (S, S)."""
    return bool(((cover.mask > 0) & (mask < 0.99)).any())


def covered(face: FloatImage, mask: Mask, cover: Cover) -> tuple[FloatImage, Mask]:
    """Merge a new face and the skin beneath it into one image and one mask."""
    below = (1 - mask) * cover.mask
    merged: Mask = np.asarray(mask + below, np.float32)
    rows, columns = np.flatnonzero(below.any(axis=1)), np.flatnonzero(below.any(axis=0))
    if not len(rows):
        return face, merged
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    mixed = mask[box][..., None] * face[box] + below[box][..., None] * cover.image[box]
    share = np.maximum(merged[box], 1e-4)[..., None]
    image = face.copy()
    image[box] = np.where(merged[box][..., None] > 1e-3, mixed / share, face[box])
    return image, merged


def _continued(image: FloatImage, clean: Mask) -> FloatImage:
    """Continue the clean pixels of an image over the others by normalised convolution."""
    size = len(image)
    cells = (GRID, GRID)
    weight = np.asarray(cv2.resize(clean, cells, interpolation=cv2.INTER_AREA), np.float32)
    colors = cv2.resize(image * clean[..., None], cells, interpolation=cv2.INTER_AREA)
    total: npt.NDArray[np.float32] = np.zeros((GRID, GRID, 3), np.float32)
    norm: npt.NDArray[np.float32] = np.full((GRID, GRID, 1), 1e-6, np.float32)
    for sigma, trust in FILLS:
        blurs = [
            np.asarray(
                cv2.GaussianBlur(x, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT), np.float32
            )
            for x in (np.asarray(colors, np.float32), weight)
        ]
        total = total + trust * blurs[0]
        norm = norm + trust * blurs[1][..., None]
    filled = cv2.resize(total / norm, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(filled, np.float32)


def _hulls(points: Points, groups: list[list[int]], grow: float, size: int) -> Mask:
    """Draw the convex hulls of groups of points, grown by some pixels, (size, size)."""
    drawn = np.zeros((size, size), np.uint8)
    for group in groups:
        drawn |= hull_of(points[group], size, size)
    side = 2 * round(grow) + 1
    if side > 1:
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        drawn = np.asarray(cv2.dilate(drawn, disk), np.uint8)
    return drawn.astype(np.float32)
