"""Decode aligned crops of one identity into faces of the other identity."""

import logging
from collections.abc import Callable

import cv2
import numpy as np
import torch

from faceswap.arrays import Image
from faceswap.errors import DeviceError
from faceswap.models.modelfile import TrainedModel
from faceswap.models.refiner import refine
from faceswap.models.sampling import network_crop, shift_color
from faceswap.types import Identity

log = logging.getLogger(__name__)

# Maps aligned crops, each (S, S, 3), to square faces (N, N, 3), or (N, N, 4) with the model's mask
# (0-255) as the fourth channel. They show the network crop; N may be any number of pixels.
DecodeFaces = Callable[[list[Image]], list[Image]]

MAX_FACES_PER_PASS = 32  # faces that go through the network together


class FaceDecoder:
    """Runs a model's network on a device; an instance is a :data:`DecodeFaces`.

    Args:
        trained: The model; its network is moved to the device.
        to: The identity whose face is decoded.
        identity_strength: 0 keeps the source latent, 1 moves it fully to the target.
        expression_range: See :meth:`Autoencoder.swap`; 0 does not limit expressions.
        device: Where the network runs.
        of: The identity whose crops are decoded [default: the other one]. If it is ``to``, faces
            are reproduced by their own decoder.
    """

    def __init__(
        self,
        trained: TrainedModel,
        to: Identity,
        identity_strength: float,
        expression_range: float,
        device: torch.device,
        of: Identity | None = None,
    ) -> None:
        self._network = trained.network.to(device)
        refiner = trained.refiners.get(to)
        self._refiner = refiner.to(device) if refiner else None
        self._model = trained.network.config
        self._shift = trained.color_shift
        self._to, self._identity_strength, self._device = to, identity_strength, device
        # A plug-in's network may lack the argument, so it is only passed if it has an effect.
        self._limits = {"expression_range": expression_range} if expression_range else {}
        self._of = of or ("a" if to == "b" else "b")

    def __call__(self, crops: list[Image]) -> list[Image]:
        """Decode crops, at most ``MAX_FACES_PER_PASS`` in one pass.

        Raises:
            DeviceError: If the device's memory is too small for one face.
        """
        return [
            face
            for first in range(0, len(crops), MAX_FACES_PER_PASS)
            for face in self._decode_within_memory(crops[first : first + MAX_FACES_PER_PASS])
        ]

    def _decode_within_memory(self, crops: list[Image]) -> list[Image]:
        """Decode crops; if the device runs out of memory, split them in half and try again."""
        try:
            return self._decode(crops)
        except torch.OutOfMemoryError as error:
            if len(crops) == 1:
                raise DeviceError(
                    f"the memory of {self._device} is too small for one face: stop other programs "
                    "that use this device, or use --device cpu"
                ) from error
        half = len(crops) // 2
        log.warning("the memory of %s is too small for %d faces at once: continuing with %d",
                    self._device, len(crops), half)  # fmt: skip
        return self._decode_within_memory(crops[:half]) + self._decode_within_memory(crops[half:])

    @torch.no_grad()
    def _decode(self, crops: list[Image]) -> list[Image]:
        side = self._model.crop_size
        batch = np.stack([shrink(crop, side) for crop in crops]).transpose(0, 3, 1, 2)
        faces = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
        network_input = network_crop(faces, self._model)
        if self._of == "a":  # training shifted a's colours towards b's, so do the same here
            network_input = shift_color(network_input, self._shift)
        # float16 resolves more than the 255 levels of the output. bfloat16, which some CPUs
        # multiply fast, resolves fewer, so other devices than CUDA compute in float32.
        with torch.autocast("cuda", torch.float16, enabled=self._device.type == "cuda"):
            decoded = (
                self._network(network_input, self._to)
                if self._of == self._to
                else self._network.swap(
                    network_input, self._to, self._identity_strength, **self._limits
                )
            ).float()
        if self._refiner:
            decoded = refine(self._refiner, decoded)
        if self._to == "a":
            red, green, blue = self._shift
            decoded = shift_color(decoded, (-red, -green, -blue))
        return list(decoded.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())


def shrink(crop: Image, side: int) -> Image:
    """Downscale a crop (S, S, C) to (side, side, C) by averaging."""
    if len(crop) == side:
        return crop
    return np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
