"""Decode faces: aligned crops of one identity become faces of the other."""

import logging
from collections.abc import Callable

import cv2
import numpy as np
import torch

from faceswap.errors import DeviceError
from faceswap.models.modelfile import TrainedModel
from faceswap.models.sampling import network_crop, shift_color
from faceswap.types import Identity, Image

log = logging.getLogger(__name__)

# Aligned crops, each (S, S, 3), become faces, each (size, size, 3), or (size, size, 4) with the
# model's mask (0-255) as a fourth channel.
DecodeFaces = Callable[[list[Image]], list[Image]]

MAX_FACES_PER_PASS = 32  # faces that go through the network together


class FaceDecoder:
    """Runs a model's network on a device; an instance is a :data:`DecodeFaces`.

    Args:
        trained: The model.
        to: The identity whose face is decoded.
        identity_strength: See :meth:`Autoencoder.swap`.
        device: Where the network runs.
    """

    def __init__(
        self, trained: TrainedModel, to: Identity, identity_strength: float, device: torch.device
    ) -> None:
        self._network = trained.network.to(device)
        self._model = trained.network.config
        self._shift = trained.color_shift
        self._to, self._identity_strength, self._device = to, identity_strength, device

    def __call__(self, crops: list[Image]) -> list[Image]:
        """Decode crops, in several passes if there are many.

        Raises:
            DeviceError: If the device's memory is too small for one face.
        """
        return [
            face
            for first in range(0, len(crops), MAX_FACES_PER_PASS)
            for face in self._fitting(crops[first : first + MAX_FACES_PER_PASS])
        ]

    def _fitting(self, crops: list[Image]) -> list[Image]:
        """Decode crops, in halves of halves where the memory is too small for all of them."""
        try:
            return self._decode(crops)
        except torch.OutOfMemoryError as error:
            if len(crops) == 1:
                raise DeviceError(
                    f"the memory of {self._device} is too small for one face: stop other programs "
                    "that use it, or use --device cpu"
                ) from error
        half = len(crops) // 2
        log.warning("the memory of %s is too small for %d faces at once: continuing with %d",
                    self._device, len(crops), half)  # fmt: skip
        return self._fitting(crops[:half]) + self._fitting(crops[half:])

    @torch.no_grad()
    def _decode(self, crops: list[Image]) -> list[Image]:
        side = self._model.crop_size
        batch = np.stack([shrink(crop, side) for crop in crops]).transpose(0, 3, 1, 2)
        faces = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
        network_input = network_crop(faces, self._model)
        if self._to == "b":  # training shifted a's colours towards b's, so do the same here
            network_input = shift_color(network_input, self._shift)
        # float16 has finer steps than one level of 255. bfloat16, which some CPUs multiply fast,
        # has coarser ones.
        with torch.autocast("cuda", torch.float16, enabled=self._device.type == "cuda"):
            decoded = self._network.swap(network_input, self._to, self._identity_strength).float()
        if self._to == "a":
            red, green, blue = self._shift
            decoded = shift_color(decoded, (-red, -green, -blue))
        return list(decoded.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())


def shrink(crop: Image, side: int) -> Image:
    """Average a crop (S, S, C) down to (side, side, C)."""
    if len(crop) == side:
        return crop
    return np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
