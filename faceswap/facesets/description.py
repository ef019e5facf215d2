"""Describe a face: pose, expression, sharpness, what hides it, and whom it shows.

The descriptions are stored with the crops, so that people can sort them and training need not
measure again.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from faceswap.arrays import LUMA, Embedding, Image, Points
from faceswap.crops import parsing
from faceswap.crops.masks import outline
from faceswap.faces import blendshapes
from faceswap.faces.dlib_backend import compute_embedding
from faceswap.faces.geometry import AlignedFace, transform
from faceswap.faces.pose import facing
from faceswap.tracking.appearance import is_knowable

SHARPNESS_SIDE = 256  # pixels of the crop in which sharpness is measured
FINE, COARSE = (0.7, 1.4), (2.8, 5.6)  # standard deviations of the blurs that bound the two bands
SEEN = 0.3  # expression scores below it are not stored
Depth = Literal["place", "expression", "whole"]
EMBEDDED = 128  # numbers of an embedding


@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """What a face looks like.

    Attributes:
        pose: Yaw, pitch and roll in degrees; see :func:`.pose.facing`.
        sharpness: Strength of the finest detail over that of coarse detail. It does not depend on
            light or contrast.
        expression: Blendshape scores by name, those of at least ``SEEN``; None if not measured, or
            if the mesh does not see the face.
        occluded: Share of the face's outline in which no skin is visible; None if not looked at.
        glasses: Whether the face wears glasses; None if not looked at.
        embedding: The face embedding (128,); None if not computed, or if the face is turned so far
            that it would say little.
    """

    pose: tuple[float, float, float]
    sharpness: float
    expression: dict[str, float] | None = None
    occluded: float | None = None
    glasses: bool | None = None
    embedding: Embedding | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the values as they are stored."""
        embedding = None
        if self.embedding is not None:
            embedding = base64.b64encode(self.embedding.astype("<f2").tobytes()).decode()
        return {
            "pose": [round(angle, 1) for angle in self.pose],
            "sharpness": round(self.sharpness, 3),
            "expression": self.expression,
            "occluded": None if self.occluded is None else round(self.occluded, 3),
            "glasses": self.glasses,
            "embedding": embedding,
        }


def embedding_in(record: Mapping[str, Any]) -> Embedding | None:
    """Return the embedding (128,) of a stored description; None if it has none.

    Raises:
        ValueError: If it is damaged.
    """
    text = record.get("embedding")
    if text is None:
        return None
    try:
        values = np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float32)
    except (TypeError, binascii.Error) as error:
        raise ValueError(f"the embedding is not base64: {error}") from error
    if values.shape != (EMBEDDED,) or not np.isfinite(values).all():
        raise ValueError(f"an embedding is {EMBEDDED} finite numbers")
    return values


def describe(aligned: AlignedFace, depth: Depth = "whole") -> Description:
    """Describe a face from its crop.

    Args:
        aligned: The face.
        depth: "place" measures pose and sharpness; "expression" that, too, which takes 10 ms of one
            core; "whole" also looks for what hides the face and whom it shows, which takes 0.2 s.

    Raises:
        InputError: If dlib's weights are needed and missing.
    """
    points = transform(aligned.face.landmarks, aligned.matrix)
    pose = facing(points)
    sharpness = sharpness_of(aligned.image, points)
    if depth == "place":
        return Description(pose, sharpness)
    expression = _expression(aligned.image, points)
    if depth == "expression":
        return Description(pose, sharpness, expression)
    skin, glasses = parsing.skin_and_glasses(aligned)
    inside = outline(points, len(aligned.image)) > 0
    occluded = float((skin[inside] < parsing.SURE).mean()) if inside.any() else 1.0
    embedding = compute_embedding(aligned.image, points) if is_knowable(aligned.face) else None
    return Description(pose, sharpness, expression, occluded, glasses, embedding)


def sharpness_of(crop: Image, points: Points) -> float:
    """Return the strength of fine detail in a face over that of coarse detail.

    Args:
        crop: The aligned crop (S, S, 3). It is compared at a side of ``SHARPNESS_SIDE`` pixels.
        points: The landmarks in it, (68, 2).
    """
    scale = SHARPNESS_SIDE / len(crop)
    luma = np.asarray(crop @ LUMA, np.float32)
    if scale != 1:
        side = (SHARPNESS_SIDE, SHARPNESS_SIDE)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        luma = np.asarray(cv2.resize(luma, side, interpolation=method), np.float32)
    inside = outline(((points + 0.5) * scale - 0.5).astype(np.float32), SHARPNESS_SIDE) > 0
    if not inside.any():
        return 0.0
    fine, coarse = (
        float(
            (cv2.GaussianBlur(luma, (0, 0), low) - cv2.GaussianBlur(luma, (0, 0), high))[
                inside
            ].std()
        )
        for low, high in (FINE, COARSE)
    )
    return fine / max(coarse, 1e-3)


def _expression(crop: Image, points: Points) -> dict[str, float] | None:
    found = blendshapes.of_face(crop, points)
    if found is None:
        return None
    scores = zip(blendshapes.NAMES, found.tolist(), strict=True)
    return {name: round(score, 2) for name, score in scores if score >= SEEN}
