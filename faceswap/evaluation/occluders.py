"""Draw synthetic occluders whose exact shape is known: a microphone, fingers, a strand of hair."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import FloatImage, Image, Mask, Points

KINDS = ("microphone", "fingers", "strand")


@dataclass(frozen=True, slots=True, eq=False)
class Occluded:
    """A crop with an occluder in front of the face, and the occluder's share of each pixel."""

    image: Image
    occluder: Mask


def occlude(image: Image, points: Points, number: int) -> Occluded:
    """Put an occluder in front of a face.

    Args:
        image: A crop (S, S, 3).
        points: Landmarks (68, 2) in it.
        number: Chooses the kind and seeds place, size and shade.
    """
    generator = np.random.default_rng(number)
    kind = KINDS[number % len(KINDS)]
    size = len(image)
    width = float(np.linalg.norm(points[16] - points[0]))
    shape = np.zeros((4 * size, 4 * size), np.uint8)  # drawn four times as large, for soft edges
    if kind == "microphone":
        strokes = _microphone(points, width, generator)
    elif kind == "fingers":
        strokes = _fingers(points, width, generator)
    else:
        strokes = _strand(points, width, generator)
    for line, thickness in strokes:
        corners = (4 * line + 1.5).round().astype(np.int32)
        cv2.polylines(shape, [corners], False, 255, max(round(4 * thickness), 1), cv2.LINE_AA)
    small = cv2.resize(shape, (size, size), interpolation=cv2.INTER_AREA)
    share: Mask = (small / np.float32(255)).astype(np.float32)
    shade = _shading(image, points, kind, share, generator)
    mixed = image + share[..., None] * (shade - image)
    return Occluded(np.clip(mixed.round(), 0, 255).astype(np.uint8), share)


Stroke = tuple[npt.NDArray[np.float64], float]  # a polyline (n, 2) and its thickness in pixels


def _microphone(points: Points, width: float, generator: np.random.Generator) -> list[Stroke]:
    """A round head before the mouth or chin, on a stem that leaves the crop downwards."""
    chin, lips = points[8], points[48:68].mean(axis=0)
    center = lips + generator.uniform(0.2, 0.9) * (chin - lips)
    center = center + generator.uniform(-0.15, 0.15) * width * np.array([1.0, 0.0])
    thickness = generator.uniform(0.22, 0.34) * width
    foot = center + np.array([generator.uniform(-0.5, 0.5), 3.0]) * width
    stem = (np.stack([center, foot]), 0.55 * thickness)
    return [(np.stack([center, center + 1e-3]), thickness), stem]


def _fingers(points: Points, width: float, generator: np.random.Generator) -> list[Stroke]:
    """Two to four fingers that come from one side and end on a cheek or the mouth."""
    side = int(generator.integers(2))
    cheek = points[3] if side else points[13]
    target = cheek + generator.uniform(0.25, 0.6) * (points[33] - cheek)
    away = np.array([-1.0 if side else 1.0, generator.uniform(0.3, 1.0)])
    across = np.array([-away[1], away[0]]) / np.hypot(*away)
    thickness = generator.uniform(0.09, 0.13) * width
    strokes = []
    for finger in range(int(generator.integers(2, 5))):
        tip = target + (finger - 1.5) * 1.15 * thickness * across
        tip = tip + generator.uniform(-0.08, 0.08) * width * away
        strokes.append((np.stack([tip, tip + 2.5 * width * away]), thickness))
    return strokes


def _strand(points: Points, width: float, generator: np.random.Generator) -> list[Stroke]:
    """A strand of hair that hangs over the forehead and past an eye."""
    side = int(generator.integers(2))
    brow, jaw = (points[19], points[4]) if side else (points[24], points[12])
    root = brow + 0.9 * (points[27] - points[33]) + generator.uniform(-0.2, 0.2) * width
    middle = brow + generator.uniform(-0.1, 0.1) * width
    line = _curve(np.stack([root, middle, jaw]).astype(np.float64))
    return [(line, generator.uniform(0.05, 0.1) * width)]


def _curve(corners: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A quadratic Bezier curve through the first and last of three corners, (24, 2)."""
    t = np.linspace(0, 1, 24)[:, None]
    curve: npt.NDArray[np.float64] = (
        (1 - t) ** 2 * corners[0] + 2 * t * (1 - t) * corners[1] + t**2 * corners[2]
    )
    return curve


def _shading(
    image: Image, points: Points, kind: str, share: Mask, generator: np.random.Generator
) -> FloatImage:
    """Colour of the occluder at each pixel: dark foam, the face's own skin, or dark hair."""
    size = len(image)
    if kind == "fingers":  # the hardest case: the same colour as the face
        nose = points[27:31].round().astype(int).clip(2, size - 3)
        skin = np.median([image[y - 2 : y + 3, x - 2 : x + 3] for x, y in nose], axis=(0, 1, 2))
        color = skin * generator.uniform(0.85, 1.1)
    elif kind == "microphone":
        color = np.full(3, generator.uniform(15, 60))
    else:
        color = generator.uniform(20, 70) * np.array([1.0, 0.8, 0.65])
    solid = (share > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(solid, cv2.DIST_L2, 5)
    round_ = np.clip(depth / max(float(depth.max()), 1.0), 0, 1)  # brighter away from the edge
    grain = generator.normal(0, 1, (size, size)).astype(np.float32)
    texture = 2.5 if kind == "fingers" else 8.0
    shade = color * (0.65 + 0.45 * np.sqrt(round_))[..., None] + texture * grain[..., None]
    return np.asarray(np.clip(shade, 0, 255), np.float32)
