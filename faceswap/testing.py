"""Test doubles for code that uses faceswap: a detector, a face and a model that need no files.

They make tests fast and deterministic: nothing is detected, downloaded or trained.
"""

from dataclasses import replace

import torch
from torch import Tensor

from faceswap.arrays import Image, Points
from faceswap.faces.geometry import Box, Face
from faceswap.faces.pose import head_shape
from faceswap.models.architectures import PRESETS
from faceswap.models.autoencoder import Autoencoder
from faceswap.models.modelfile import TrainedModel
from faceswap.types import Identity


def make_face(left: float, top: float, side: float, score: float = 1.0) -> Face:
    """Make an upright frontal face whose 68 landmarks fill a square.

    Args:
        left: Left edge of the square in image pixels.
        top: Top edge of the square in image pixels.
        side: Side of the square in image pixels.
        score: Detector score.
    """
    shape: Points = head_shape()[:, :2].astype("float32")
    low, high = shape.min(axis=0), shape.max(axis=0)
    landmarks: Points = (shape - low) / (high - low) * side + (left, top)
    return Face(Box(left, top, left + side, top + side), score, landmarks.astype("float32"))


class FixedDetector:
    """A detector that returns the same faces for every image.

    Args:
        faces: The faces to return, the largest first.
    """

    def __init__(self, *faces: Face) -> None:
        self.faces = faces

    def __call__(self, image: Image, min_score: float) -> list[Face]:  # noqa: ARG002 - a detector's signature
        """Return copies of the faces whose score is at least ``min_score``."""
        return [replace(face) for face in self.faces if face.score >= min_score]


class CopyingNetwork(Autoencoder):
    """A network that returns its input, so that a swap changes a face only by resampling it."""

    def swap(
        self,
        images: Tensor,
        to: Identity,  # noqa: ARG002 - the network's signature
        identity_strength: float,  # noqa: ARG002
        expression_range: float = 0.0,  # noqa: ARG002
        mixing: Tensor | None = None,
    ) -> Tensor:
        """Return the images, with a mask of ones if the architecture has a mask head."""
        if mixing is not None:
            images = images[mixing.argmax(dim=1)]
        if not self.config.mask_head:
            return images
        return torch.cat([images, torch.ones_like(images[:, :1])], dim=1)


def copying_model(size: int = 176) -> TrainedModel:
    """Make a model that swaps every face with itself. It exists only in memory.

    Do not save it: a model file stores weights and the name of an architecture, so loading it gives
    an untrained network.

    Args:
        size: Side of the network crop in pixels, a multiple of 16.

    Raises:
        SettingsError: If the size is out of range or no multiple of 16.
    """
    network = CopyingNetwork(PRESETS["small"].at_size(size))
    return TrainedModel(network, ("a", "b"), (0.0, 0.0, 0.0), step=0)
