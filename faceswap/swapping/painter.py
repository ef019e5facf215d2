"""Decode aligned faces of one identity into faces of the other identity."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from faceswap.arrays import Detail, Image
from faceswap.crops import eyes
from faceswap.crops.guidance import Guide, Look, to_view
from faceswap.errors import DeviceError
from faceswap.faces.geometry import AlignedFace, transform
from faceswap.faces.networks import BRIGHT_PERCENTILE
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
# A crop whose BRIGHT_PERCENTILE is below DIM levels is brightened to DIM levels, and by LIFT times
# as many more as it lacked.
DIM, LIFT = 130.0, 0.4
BESIDE = 0.25  # share of the latents of the frame before, and of the one after, in a frame's


@dataclass(frozen=True, slots=True, eq=False)
class Latents:
    """Latents to decode: weighted means of the latents of faces.

    Attributes:
        faces: The N faces that are encoded.
        weights: Share of each face in each latent, (R, N); the rows add up to 1.
    """

    faces: list[AlignedFace]
    weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def decoded(self) -> list[AlignedFace]:
        """The face that each latent belongs to."""
        return [self.faces[number] for number in self.weights.argmax(axis=1)]

    @property
    def are_plain(self) -> bool:
        """Whether they are the latents of the faces, unmixed and in the same order."""
        return np.array_equal(self.weights, np.eye(len(self.faces)))

    def of(self, chosen: slice) -> "Latents":
        """Return some of the latents, with the faces that they need."""
        rows = self.weights[chosen]
        needed = np.flatnonzero(rows.any(axis=0))
        return Latents([self.faces[number] for number in needed], rows[:, needed])


def mixing_of(moments: list[list[int]]) -> npt.NDArray[np.float32]:
    """Return the shares of latents in those averaged over time, (N, N) for N faces.

    A face gets half of its own latent and a quarter of those of the frames before and after. At the
    ends of a track it keeps its own, because the mean of two frames would lag behind motion.

    Args:
        moments: The track of each face in consecutive frames, negative if it has none.
    """
    starts = np.cumsum([0, *map(len, moments)])
    weights = np.eye(starts[-1], dtype=np.float32)
    in_threes = zip(moments, moments[1:], moments[2:], strict=False)
    for number, (before, now, after) in enumerate(in_threes):
        for place, track in enumerate(now):
            if track >= 0 and track in before and track in after:
                row = weights[starts[number + 1] + place]
                row[starts[number + 1] + place] = 1 - 2 * BESIDE
                row[starts[number] + before.index(track)] = BESIDE
                row[starts[number + 2] + after.index(track)] = BESIDE
    return weights


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
        # A network of a plug-in or a test may lack the argument, so it is only passed if it has an
        # effect.
        self._limits: dict[str, Any] = (
            {"expression_range": expression_range}
            if expression_range and bool(self._network.covariances.any())
            else {}
        )
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
        return self._decoded(Latents(faces, np.eye(len(faces), dtype=np.float32)))

    def decode_video(self, moments: list[list[AlignedFace]], wanted: slice) -> list[Image]:
        """Decode the faces of consecutive frames, with the latents of a track averaged over time.

        Args:
            moments: The faces of each frame.
            wanted: The frames whose faces are decoded; the others only serve as neighbours.

        Raises:
            DeviceError: If the device's memory is too small for one face.
        """
        weights = mixing_of([[face.face.track for face in faces] for faces in moments])
        every = [face for faces in moments for face in faces]
        start, _, _ = wanted.indices(len(moments))
        first = sum(map(len, moments[:start]))
        rows = slice(first, first + sum(map(len, moments[wanted])))
        return self._decoded(Latents(every, weights).of(rows))

    def _decoded(self, latents: "Latents") -> list[Image]:
        return [
            face
            for first in range(0, len(latents), MAX_FACES_PER_PASS)
            for face in self._decode_within_memory(
                latents.of(slice(first, first + MAX_FACES_PER_PASS))
            )
        ]

    def _decode_within_memory(self, latents: "Latents") -> list[Image]:
        """Decode faces; if the device runs out of memory, split them in half and try again."""
        try:
            return self._decode(latents)
        except torch.OutOfMemoryError as error:
            if len(latents) == 1:
                raise DeviceError(
                    f"the memory of {self._device} is too small for one face: stop other programs "
                    "that use this device, or use --device cpu"
                ) from error
        half = len(latents) // 2
        log.warning("the memory of %s is too small for %d faces at once: continuing with %d",
                    self._device, len(latents), half)  # fmt: skip
        parts = latents.of(slice(None, half)), latents.of(slice(half, None))
        return [face for part in parts for face in self._decode_within_memory(part)]

    @torch.no_grad()
    def _decode(self, latents: "Latents") -> list[Image]:
        side = self._model.crop_size
        batch = np.stack([lit(shrink(face.image, side)) for face in latents.faces])
        crops = torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))
        network_input = network_crop(crops.to(self._device), self._model)
        if self._of == "a":  # training shifted a's colours towards b's, so do the same here
            network_input = shift_color(network_input, self._shift)
        # float16 resolves more than the 255 levels of the output. bfloat16, which some CPUs
        # multiply fast, resolves fewer, so other devices than CUDA compute in float32.
        with torch.autocast("cuda", torch.float16, enabled=self._device.type == "cuda"):
            decoded = (
                self._network(network_input, self._to)
                if self._of == self._to  # evaluation lets a decoder reproduce its own person
                else self._network.swap(
                    network_input, self._to, self._identity_strength,
                    **self._limits, **self._mixing(latents),
                )
            ).float()  # fmt: skip
        if self._refiner:
            with in_precision(self._device, self._refiner_type):
                decoded = self._refined(latents.decoded, decoded, self._refiner)
        if self._to == "a":
            red, green, blue = self._shift
            decoded = shift_color(decoded, (-red, -green, -blue))
        return to_images(decoded)

    def _mixing(self, latents: "Latents") -> dict[str, Any]:
        """Return the argument that mixes latents if they are not decoded as they are."""
        if latents.are_plain:
            return {}
        return {"mixing": torch.from_numpy(latents.weights).to(self._device)}

    def _refined(self, faces: list[AlignedFace], decoded: Tensor, refiner: Refiner) -> Tensor:
        """Lay eyes and detail of photos over decoded faces, and refine them.

        A face of a video always gets the same photo, so that its skin does not jump from frame to
        frame, with the mouths of others; another face gets the photo that resembles it most.
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
        if face.face.track >= 0:
            return guide.lay_in_video(look, painted)
        return guide.lay(int(np.argmin(guide.distances(look.points, painted))), look, painted)


def lit(crop: Image) -> Image:
    """Brighten a dark crop (S, S, 3) for the network, which learned from faces in usual light.

    The colour match gives the decoded face the footage's light again. The gain is continuous, so
    that a fade does not make it jump.
    """
    bright = float(np.percentile(crop, BRIGHT_PERCENTILE))
    if not 0 < bright < DIM:
        return crop
    gain = (DIM + LIFT * (DIM - bright)) / bright
    lifted: Image = np.clip(np.rint(crop * np.float32(gain)), 0, 255).astype(np.uint8)
    return lifted


def shrink(crop: Image, side: int) -> Image:
    """Downscale a crop (S, S, C) to (side, side, C) by averaging."""
    if len(crop) == side:
        return crop
    return np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
