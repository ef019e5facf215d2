"""Decode aligned faces of one identity into faces of the other identity."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import cv2
import numpy as np
import torch
from torch import Tensor

from faceswap.arrays import Detail, Image
from faceswap.errors import DeviceError
from faceswap.faces import eyes
from faceswap.faces.geometry import AlignedFace, transform
from faceswap.faces.guidance import Guide, Look, to_view
from faceswap.models.devices import fast_type, in_precision
from faceswap.models.modelfile import TrainedModel
from faceswap.models.refiner import CPU_FACES, Refiner, refine
from faceswap.models.sampling import network_crop, shift_color, to_images, to_tensor
from faceswap.types import Identity

log = logging.getLogger(__name__)

# Maps aligned faces to square ones (N, N, 3), or (N, N, 4) with the model's mask (0-255) as the
# fourth channel. They show the network crop; N may be any number of pixels.
DecodeFaces = Callable[[list[AlignedFace]], list[Image]]

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
        self._refiner: Refiner | None = None
        if refiner:
            self._refiner = refiner.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # The refiner adds small changes to a face, so bfloat16 resolves enough for it.
        self._refiner_type = fast_type(device) if device.type == "cpu" else torch.float32
        self._model = trained.network.config
        self._shift = trained.color_shift
        self._to, self._identity_strength, self._device = to, identity_strength, device
        # A plug-in's network may lack the argument, so it is only passed if it has an effect.
        self._limits = {"expression_range": expression_range} if expression_range else {}
        self._of = of or ("a" if to == "b" else "b")
        exemplars = trained.exemplars.get(to)
        self._guide: Guide | None = None
        if exemplars and refiner:
            side = refiner.config.scale * self._model.size
            self._guide = Guide(exemplars, self._model.view, side)

    def __call__(self, faces: list[AlignedFace]) -> list[Image]:
        """Decode faces, at most ``MAX_FACES_PER_PASS`` in one pass.

        Raises:
            DeviceError: If the device's memory is too small for one face.
        """
        return [
            face
            for first in range(0, len(faces), MAX_FACES_PER_PASS)
            for face in self._decode_within_memory(faces[first : first + MAX_FACES_PER_PASS])
        ]

    def _decode_within_memory(self, faces: list[AlignedFace]) -> list[Image]:
        """Decode faces; if the device runs out of memory, split them in half and try again."""
        try:
            return self._decode(faces)
        except torch.OutOfMemoryError as error:
            if len(faces) == 1:
                raise DeviceError(
                    f"the memory of {self._device} is too small for one face: stop other programs "
                    "that use this device, or use --device cpu"
                ) from error
        half = len(faces) // 2
        log.warning("the memory of %s is too small for %d faces at once: continuing with %d",
                    self._device, len(faces), half)  # fmt: skip
        return self._decode_within_memory(faces[:half]) + self._decode_within_memory(faces[half:])

    @torch.no_grad()
    def _decode(self, faces: list[AlignedFace]) -> list[Image]:
        side = self._model.crop_size
        batch = np.stack([shrink(face.image, side) for face in faces]).transpose(0, 3, 1, 2)
        crops = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
        network_input = network_crop(crops, self._model)
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
            with in_precision(self._device, self._refiner_type):
                decoded = self._refined(faces, decoded, self._refiner)
        if self._to == "a":
            red, green, blue = self._shift
            decoded = shift_color(decoded, (-red, -green, -blue))
        return to_images(decoded)

    def _refined(self, faces: list[AlignedFace], decoded: Tensor, refiner: Refiner) -> Tensor:
        """Lay eyes and detail of photos over decoded faces, and refine them.

        A face of a video always gets the same photo, so that its skin does not jump from frame to
        frame; another face gets the photo that resembles it most.
        """
        guide = self._guide
        if guide is None:
            return refine(refiner, decoded)
        at_once = CPU_FACES if self._device.type == "cpu" else len(faces)
        refined = []
        with ThreadPoolExecutor(1) as background:  # lays the next faces while some are refined
            laid = background.map(partial(self._lay, guide), faces, to_images(decoded[:, :3]))
            for some in torch.split(decoded, at_once):
                with_eyes, details = zip(*islice(laid, len(some)), strict=True)
                laid_over = to_tensor([*with_eyes]).to(some) / 255
                some = torch.cat([laid_over, some[:, 3:]], dim=1)
                refined.append(refine(refiner, some, to_tensor([*details]).to(some.device)))
        return torch.cat(refined)

    def _lay(self, guide: Guide, face: AlignedFace, painted: Image) -> tuple[Image, Detail]:
        """Lay eyes and detail over what was painted for a face, see :meth:`Guide.lay`."""
        inside = transform(face.face.landmarks, face.matrix)
        gaze = eyes.gaze(eyes.irises(face.image, inside))
        look = Look(to_view(inside, len(face.image), self._model.view), gaze)
        look = look if self._of == self._to else guide.painted(look)
        in_video = face.face.track >= 0
        number = 0 if in_video else int(np.argmin(guide.distances(look.points, painted)))
        return guide.lay(number, look, painted)


def shrink(crop: Image, side: int) -> Image:
    """Downscale a crop (S, S, C) to (side, side, C) by averaging."""
    if len(crop) == side:
        return crop
    return np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
