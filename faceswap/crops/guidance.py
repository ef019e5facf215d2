"""Lay the eyes and the fine detail of a person's photo over a face that shows the same person.

The photo's landmarks are moved onto those of the face by a smooth warp, and its irises to where the
face looks. Its detail is each pixel divided by its surroundings, so that it does not depend on the
photo's light. Its eyes take their light from the face.

Points are shares of the network crop here: (0, 0) and (1, 1) are its corners.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import LUMA, NEUTRAL, RANGE, Detail, Image, Mask, Points
from faceswap.crops import eyes
from faceswap.crops.masks import hull_of, smoothstep

SURROUNDINGS = 0.025  # standard deviation of the blur that a pixel is divided by
DARK = 8.0  # levels added to a pixel and its surroundings, so that black has no detail
RIGIDITY = 1e-3  # of the warp; 0 moves each landmark exactly
SHRINK_FROM = 0.75  # of a photo's size, below which it is shrunk before it is sampled
NODES = 31  # grid points along each side, at which the warp is computed
FOREHEAD = (0.45, 0.9)  # heights above the brows, in nose lengths, at which points are added
OUTSIDE = 0.05  # distance of the fixed points from the network crop
JAW_SHARE = 0.3  # weight of the jaw in the distance of two faces
SHAPE_WEIGHT, LOOK_WEIGHT = 12.0, 0.5  # of the landmarks and of the coarse brightness
LOOK = 12  # pixels along each side of the coarse image; its outer two are ignored
EYE_WIDTH, EYE_HEIGHT = 0.78, 0.46  # half axes of the ellipse that is taken over, eye lengths
EYE_REACH = 0.5  # height up to which lids stretch the skin, eye lengths
EYE_EDGE = 0.35  # share of the ellipse's radius over which it fades out
EYE_LIGHT = 0.35  # standard deviation of the blur that keeps the face's light, eye lengths
BLINK, CLOSED, SLIT = 0.85, 0.62, 0.1  # shares of an eye's usual opening, see _lids
MOUTHS = 5  # photos that are chosen, from closed lips to a wide mouth
MOUTH_SHAPE = 8.0  # weight of the distance to the first photo against the wanted opening
MOUTH_REACH = 0.1  # how far the mouth's mask reaches beyond the lips, mouth widths
FLAT = 8.0  # levels added to the contrast of a coarse image

Float64 = npt.NDArray[np.float64]


class Photos(Protocol):
    """Photos of a person; :class:`faceswap.models.exemplars.Exemplars` describes the attributes."""

    @property
    def crops(self) -> Sequence[Image]: ...

    @property
    def points(self) -> npt.NDArray[np.float32]: ...

    @property
    def painted(self) -> npt.NDArray[np.float32]: ...

    @property
    def usual(self) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Where the features of a face are.

    Attributes:
        points: Landmarks (68, 2), shares of the network crop.
        gaze: Where the face looks, see :func:`faceswap.crops.eyes.gaze`; NaN if unknown.
    """

    points: Points
    gaze: float


def to_view(points: Points, size: int, view: float) -> Points:
    """Convert pixels of a crop of side ``size`` to shares of its network crop.

    Args:
        points: Pixels, (N, 2).
        size: Side of the crop.
        view: Side of the network crop as a share of the crop's side.
    """
    start = (1 - view) / 2 * size
    return np.asarray((points.astype(np.float64) + 0.5 - start) / (view * size), np.float32)


def from_view(points: Points, size: int, view: float) -> Points:
    """Convert shares of the network crop to pixels of a crop; the inverse of :func:`to_view`."""
    start = (1 - view) / 2 * size
    return np.asarray(points.astype(np.float64) * (view * size) + start - 0.5, np.float32)


def look_of(image: Image) -> Float64:
    """Return the coarse brightness of a network crop (H, W, 3), without its level and contrast."""
    luma = image.astype(np.float32) @ LUMA
    small = cv2.resize(luma, (LOOK, LOOK), interpolation=cv2.INTER_AREA)[2:-2, 2:-2]
    coarse: Float64 = np.asarray((small - small.mean()) / (small.std() + FLAT), np.float64)
    return coarse


class Guide:
    """Lays photos of one person over faces.

    Args:
        photos: At least one photo.
        view: Side of the network crop as a share of the crops' sides.
        side: Side of the detail images in pixels.
    """

    def __init__(self, photos: Photos, view: float, side: int) -> None:
        self._photos, self._view, self._side = photos, view, side
        self._size = len(photos.crops[0])
        self._points = photos.points.astype(np.float64)
        self._pixels = [from_view(points, self._size, view) for points in photos.points]
        self._irises = [
            [iris.along if iris else None for iris in eyes.irises(crop, points)]
            for crop, points in zip(photos.crops, self._pixels, strict=True)
        ]
        self._looks = np.stack([look_of(_inner(crop, view)) for crop in photos.crops])
        self._details = [_relative(crop, SURROUNDINGS * view * self._size)
                         for crop in photos.crops]  # fmt: skip
        self._mouths = self._by_opening()

    def painted(self, footage: Look) -> Look:
        """Predict where the features of a painted face are, from those of the footage's face."""
        mapped = np.append(footage.points.ravel(), 1.0) @ self._photos.painted
        points = np.asarray(mapped.reshape(68, 2), np.float32)
        (gaze, opening), (own_gaze, own_opening) = self._photos.usual
        if opening > 0 and own_opening > 0:  # both are known
            share = _lids(eyes.opening(footage.points) / opening)
            eyes.open_to(points, float(own_opening * share))
        return Look(points, float(footage.gaze + own_gaze - gaze))

    def distances(self, points: Points, image: Image) -> Float64:
        """Return how unlike each photo is to a face, (N,): its shape and where it is lit.

        Args:
            points: Landmarks of the face (68, 2).
            image: The face's network crop (H, W, 3).
        """
        apart = np.abs(self._points - points)
        shape = apart[:, 17:].mean((1, 2)) + JAW_SHARE * apart[:, :17].mean((1, 2))
        looks = np.abs(self._looks - look_of(image)).mean((1, 2))
        combined: Float64 = SHAPE_WEIGHT * shape + LOOK_WEIGHT * looks
        return combined

    def lay(self, number: int, look: Look, face: Image) -> tuple[Image, Detail]:
        """Lay a photo over a face.

        Args:
            number: The photo.
            look: Where the features of the face are.
            face: The face's network crop, (H, H, 3).

        Returns:
            The face with the photo's eyes, (H, H, 3), and the photo's detail, (side, side, 3).
        """
        nodes = self._nodes(number, look.points)
        return self._with_eyes(face, number, look, nodes), self._detail(number, look, nodes)

    def lay_in_video(self, look: Look, face: Image) -> tuple[Image, Detail]:
        """Lay the first photo over a face of a video, but take the mouth from similar ones.

        One photo for all frames keeps the skin from jumping, but the detail of closed lips smears
        over an open mouth. So the detail of the mouth is mixed from two photos, one with
        a mouth that is a little less open and one with a mouth that is a little more open. Their
        shares change continuously.

        Args:
            look: Where the features of the face are.
            face: The face's network crop, (H, H, 3).

        Returns:
            As :meth:`lay`.
        """
        laid, detail = self.lay(0, look, face)
        openings = [opening for opening, _ in self._mouths]
        share = float(np.interp(_mouth_opening(look.points), openings, range(len(openings))))
        inside = _mouth_mask(look.points, self._side)[..., None]
        mixed = detail.astype(np.float32)
        for place in {math.floor(share), math.ceil(share)}:
            number, weight = self._mouths[place][1], 1 - abs(share - place)
            if number:
                mixed += inside * weight * (self.detail(number, look).astype(np.float32) - detail)
        return laid, np.asarray(np.rint(mixed), np.uint8)

    def _by_opening(self) -> list[tuple[float, int]]:
        """Return photos whose mouths are open to different degrees, from closed to wide.

        The first photo is among them. The others look like it apart from their mouths.
        """
        openings = np.array([_mouth_opening(points) for points in self._photos.points])
        apart = np.abs(self._points - self._points[0])[:, :48].mean((1, 2))
        wanted = np.linspace(openings.min(), openings.max(), MOUTHS)
        reach = max(float(openings.max() - openings.min()), 1e-6)
        costs = np.abs(openings - wanted[:, None]) / reach + MOUTH_SHAPE * apart
        chosen = {0, *costs.argmin(1).tolist()}
        kept: list[tuple[float, int]] = []
        for opening, number in sorted((float(openings[number]), number) for number in chosen):
            if not kept or opening - kept[-1][0] > reach / (2 * MOUTHS):
                kept.append((opening, number))
            elif number == 0:  # rather than a photo that is open as far
                kept[-1] = opening, number
        return kept

    def eyes_on(self, face: Image, number: int, look: Look) -> Image:
        """Lay only a photo's eyes over a face's network crop (H, H, 3)."""
        return self._with_eyes(face, number, look, self._nodes(number, look.points))

    def detail(self, number: int, look: Look) -> Detail:
        """Lay only a photo's detail over a face, (side, side, 3)."""
        return self._detail(number, look, self._nodes(number, look.points))

    def _with_eyes(self, face: Image, number: int, look: Look, nodes: Points) -> Image:
        slid = self._slid(self._photos.crops[number], number, look)
        places = self._places(number, look.points, nodes, len(face))
        return _with_eyes(face, _sampled(slid, places, self._view), look.points)

    def _detail(self, number: int, look: Look, nodes: Points) -> Detail:
        slid = self._slid(self._details[number], number, look)
        places = self._places(number, look.points, nodes, self._side)
        return _sampled(slid, places, self._view)

    def _slid(self, image: Image, number: int, look: Look) -> Image:
        """Slide the irises of a photo, or of its detail."""
        if not np.isfinite(look.gaze):
            return image
        return eyes.slide(image, self._pixels[number], self._irises[number], look.gaze)

    def _nodes(self, number: int, points: Points) -> Points:
        """Return the places in a photo of a grid over the face, (NODES, NODES, 2), as shares."""
        target = np.vstack([_controls(points), _FIXED])
        source = np.vstack([_controls(self._points[number]), _FIXED])
        return _thin_plate(target, source)(_GRID).reshape(NODES, NODES, 2)

    def _places(self, number: int, points: Points, nodes: Points, side: int) -> Points:
        """Return which pixel of a photo's crop each pixel shows, (side, side, 2).

        The warp of the whole face is smooth, so inside an eye the lids decide.
        """
        at = ((np.arange(side) + 0.5) / side * (NODES - 1)).astype(np.float32)
        places = np.asarray(cv2.remap(nodes, *np.meshgrid(at, at), cv2.INTER_LINEAR), np.float32)
        for part in eyes.EYES:
            eye, photo = _Eye.of(points[part]), _Eye.of(self._photos.points[number][part])
            if eye is None or photo is None:
                continue
            window = eye.window(side)
            along, across = eye.inside(window, side)
            moved = photo.at(along, photo.lids_at(across, along, eye))
            share = _ellipse(along, across)[..., None]
            places[window] += share * (moved - places[window])
        return from_view(places.reshape(-1, 2), self._size, self._view).reshape(places.shape)


@dataclass(frozen=True, slots=True, eq=False)
class _Eye:
    """The frame of an eye: the middle between its corners, along them, in eye lengths.

    Attributes:
        middle: (2,).
        axis: Unit vector along the corners, (2,).
        length: Distance of the corners.
        upper: Height of the upper lid's parabola across the axis; negative is upwards.
        lower: Height of the lower lid's parabola.
    """

    middle: Float64
    axis: Float64
    length: float
    upper: float
    lower: float

    @classmethod
    def of(cls, points: Points) -> "_Eye | None":
        """Measure an eye (6, 2); None if its corners coincide."""
        eye = points.astype(np.float64)
        length = float(np.hypot(*(eye[3] - eye[0])))
        if length < 1e-3:
            return None
        axis, middle = (eye[3] - eye[0]) / length, (eye[0] + eye[3]) / 2
        along, across = (
            (eye - middle) @ axis / length,
            (eye - middle) @ [-axis[1], axis[0]] / length,
        )
        heights = across[[1, 2, 4, 5]] / np.maximum(1 - 4 * along[[1, 2, 4, 5]] ** 2, 0.3)
        upper, lower = float(heights[:2].mean()), float(heights[2:].mean())
        return cls(middle, axis, length, min(upper, lower - 1e-3), lower)

    def window(self, side: int) -> tuple[slice, slice]:
        """Return the rows and columns of an image (side, side) that hold the eye."""
        reach = EYE_WIDTH * self.length
        low = np.clip(np.floor((self.middle - reach) * side), 0, side).astype(int)
        high = np.clip(np.ceil((self.middle + reach) * side), 0, side).astype(int)
        return slice(low[1], high[1]), slice(low[0], high[0])

    def inside(self, window: tuple[slice, slice], side: int) -> tuple[Mask, Mask]:
        """Return the coordinates along and across the eye of the pixels of a window."""
        rows, columns = window
        y, x = np.mgrid[rows, columns].astype(np.float32)
        x, y = (x + 0.5) / side - self.middle[0], (y + 0.5) / side - self.middle[1]
        along = (x * self.axis[0] + y * self.axis[1]) / self.length
        across = (y * self.axis[0] - x * self.axis[1]) / self.length
        return np.asarray(along, np.float32), np.asarray(across, np.float32)

    def lids_at(self, across: Mask, along: Mask, other: "_Eye") -> Mask:
        """Move heights of another eye so that its lids fall on this one's."""
        arch = np.maximum(1 - 4 * along**2, 0)
        ends = np.full_like(arch, EYE_REACH)
        theirs = [-ends, other.upper * arch, other.lower * arch, ends]
        ours = [-ends, self.upper * arch, self.lower * arch, ends]
        moved = across.copy()
        for before, after in zip(range(3), range(1, 4), strict=True):
            height = np.maximum(theirs[after] - theirs[before], 1e-4)
            share = (across - theirs[before]) / height
            between = (share >= 0) & (share <= 1)
            placed = ours[before] + share * (ours[after] - ours[before])
            moved = np.where(between, placed, moved)
        return np.asarray(moved, np.float32)

    def at(self, along: Mask, across: Mask) -> Points:
        """Return the places of coordinates of the eye, (..., 2)."""
        x = self.middle[0] + self.length * (along * self.axis[0] - across * self.axis[1])
        y = self.middle[1] + self.length * (along * self.axis[1] + across * self.axis[0])
        return np.stack([x, y], axis=-1).astype(np.float32)


def _ellipse(along: Mask, across: Mask) -> Mask:
    """Return 1 inside an eye's ellipse, falling smoothly to 0 at its edge."""
    radius = np.hypot(along / EYE_WIDTH, across / EYE_HEIGHT)
    return smoothstep(np.asarray((1 - radius) / EYE_EDGE, np.float32))


def _mouth_opening(points: Points) -> float:
    """Return the height between the lips over the distance of the eyes' outer corners."""
    gaps = np.linalg.norm(points[[61, 62, 63]] - points[[67, 66, 65]], axis=1)
    return float(gaps.mean() / max(float(np.linalg.norm(points[36] - points[45])), 1e-6))


def _mouth_mask(points: Points, side: int) -> Mask:
    """Return 1 on the lips and between them, falling smoothly to 0 around them, (side, side)."""
    mouth = hull_of(points[48:60] * side - 0.5, side, side)
    reach = MOUTH_REACH * side * float(np.linalg.norm(points[48] - points[54]))
    size = 2 * max(round(reach), 1) + 1
    grown = cv2.dilate(mouth, np.ones((size, size), np.uint8))
    return np.asarray(cv2.GaussianBlur(grown.astype(np.float32), (0, 0), reach / 2), np.float32)


def _lids(share: float) -> float:
    """Return how far the painted eyes open, where 1 is usual, for eyes of the footage.

    Landmarks of a closed eye still lie about half as far apart as those of an open one.
    """
    return share if share >= BLINK else float(np.interp(share, [CLOSED, BLINK], [SLIT, BLINK]))


def _sampled(image: Image, places: Points, view: float) -> Image:
    """Sample an image (S, S, 3) at places (side, side, 2) of its pixels."""
    x, y = cv2.split(places)
    shrunk = max(round(len(places) / view), 1)
    if shrunk < SHRINK_FROM * len(image):  # several pixels of the photo fall into one
        factor = shrunk / len(image)
        small = cv2.resize(image, (shrunk, shrunk), interpolation=cv2.INTER_AREA)
        image = np.asarray(small, np.uint8)
        x, y = ((v + 0.5) * factor - 0.5 for v in (x, y))
    laid = cv2.remap(
        image, np.asarray(x, np.float32), np.asarray(y, np.float32), cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(laid, np.uint8)


def _with_eyes(face: Image, photo: Image, points: Points) -> Image:
    """Blend the eyes of a photo into a face at the same place, in the face's light."""
    size = len(face)
    result = face.astype(np.float32)
    for part in eyes.EYES:
        eye = _Eye.of(points[part])
        if eye is None or eye.length * size < 2:
            continue
        window = eye.window(size)
        along, across = eye.inside(window, size)
        share = _ellipse(along, across)[..., None]
        sigma = EYE_LIGHT * eye.length * size
        change = photo - result
        light = np.asarray(cv2.GaussianBlur(change, (0, 0), sigma), np.float32)
        result[window] += share * (change - light)[window]
    return np.asarray(np.clip(np.rint(result), 0, 255), np.uint8)


def _inner(crop: Image, view: float) -> Image:
    margin = round(len(crop) * (1 - view) / 2)
    return crop[margin : len(crop) - margin, margin : len(crop) - margin]


def _relative(image: Image, sigma: float) -> Detail:
    """Encode each pixel relative to its surroundings."""
    pixels = image.astype(np.float32) + DARK
    around = cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    encoded = NEUTRAL + (pixels / around - 1) * (127 / RANGE)
    return np.asarray(np.clip(np.rint(encoded), 0, 255), np.uint8)


def _controls(points: Points | Float64) -> Float64:
    """Return the points that the warp moves: the landmarks and two rows on the forehead."""
    up = points[27] - points[33]
    rows = [points, *(points[17:27] + height * up for height in FOREHEAD)]
    return np.vstack(rows).astype(np.float64)


def _thin_plate(source: Float64, target: Float64) -> "_Warp":
    """Fit a smooth map from points (N, 2) to others, (N, 2).

    G. Wahba, "Spline models for observational data", 1990, with the kernel r instead of r^2 log r,
    which bends the map less far from the points.
    """
    count = len(source)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _distances(source, source) - RIGIDITY * np.eye(count)
    system[:count, count] = system[count, :count] = 1
    system[:count, count + 1 :], system[count + 1 :, :count] = source, source.T
    weights = np.linalg.solve(system, np.vstack([target, np.zeros((3, 2))]))
    return _Warp(source, np.asarray(weights, np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class _Warp:
    """A fitted map of points."""

    centers: Float64
    weights: Float64

    def __call__(self, points: Float64) -> Points:
        count = len(self.centers)
        near = _distances(points, self.centers) @ self.weights[:count]
        mapped = near + self.weights[count] + points @ self.weights[count + 1 :]
        return np.asarray(mapped, np.float32)


def _distances(one: Float64, other: Float64) -> Float64:
    x, y = one[:, None, 0] - other[:, 0], one[:, None, 1] - other[:, 1]
    apart: Float64 = np.sqrt(x * x + y * y)
    return apart


_axis = np.linspace(0, 1, NODES)
_GRID = np.stack(np.meshgrid(_axis, _axis), axis=-1).reshape(-1, 2)
_edge = np.linspace(-OUTSIDE, 1 + OUTSIDE, 5)
_FIXED = np.array([(x, y) for x in _edge for y in _edge if {x, y} & {_edge[0], _edge[-1]}])
