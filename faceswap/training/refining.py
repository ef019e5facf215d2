"""Train a person's refiner: from what that person's decoder makes of photos to the photos.

The decoder paints a bank of augmented photos once. Windows of these pairs then train the refiner
with an L1 loss and the sliced Wasserstein distance of small patches. The distance compares the
textures of a window as sets, so that the refiner paints pores and lashes of the right strength
where L1 alone would average them away.
"""

import math
from dataclasses import dataclass
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor

from faceswap.models import sampling
from faceswap.models.autoencoder import Autoencoder
from faceswap.models.refiner import Refiner, refiner_for
from faceswap.training import augment
from faceswap.training.checkpoint import Faces, TrainingState
from faceswap.types import Identity

PAIRS = 384  # in the bank
PAIRS_PER_PASS = 8
WARPED = 0.25  # share of the pairs whose input is warped, as faces that the decoder gets wrong
BATCH, WINDOW = 6, 40  # windows per step and their side in pixels of the decoder's output
MARGIN = 6  # pixels at the border of the decoder's output that no window touches
LEARNING_RATE, BETAS = 1e-3, (0.9, 0.99)
DECAY_FROM = 0.7  # share of the steps after which the learning rate falls to zero
ALONE = 30  # first steps of a fresh refiner, in which only the L1 loss is used
TEXTURE_WEIGHT = 1.5  # of the patch distance; more was not better
PATCH, PROJECTIONS, POSITIONS = 5, 32, 1500  # side, random filters and places per step


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Pairs to learn from.

    Attributes:
        decoded: uint8 (N, 3, S, S), what the decoder makes of the photos.
        photos: uint8 (N, 4, scale S, scale S), the photos with their face masks, or (N, 3, ...)
            without masks.
    """

    decoded: Tensor
    photos: Tensor


@torch.no_grad()
def fill_bank(
    network: Autoencoder,
    faces: Tensor,
    key: Identity,
    shift: tuple[float, float, float] | None,
    scale: int,
    count: int,
    generator: torch.Generator,
) -> Bank:
    """Let a decoder paint augmented photos of its own person.

    Args:
        network: The trained network.
        faces: uint8 crops at the resolution of the photos, (N, 3 or 4, C, C).
        key: The person.
        shift: Colour to add to the photos, as training does to those of a.
        scale: Sides of the photos over those of the decoder's output.
        count: Number of pairs, a multiple of 8.
        generator: Draws photos and augmentations.
    """
    config = network.config
    large = config.enlarged(scale)
    decoded, photos = [], []
    for _ in range(count // PAIRS_PER_PASS):
        chosen = torch.randint(len(faces), (PAIRS_PER_PASS,), generator=generator)
        noise = augment.draw_transform(PAIRS_PER_PASS, generator)
        warp = augment.draw_warp(PAIRS_PER_PASS, generator)
        warp[round(WARPED * PAIRS_PER_PASS) :] = 0
        matrices = augment.transform_matrices(noise, faces.shape[-1])
        picked = faces[chosen.to(faces.device)]
        seen, photo = augment.random_warp(picked, warp, large, matrices)
        if shift:
            seen, photo = (sampling.shift_color(images, shift) for images in (seen, photo))
        small = F.avg_pool2d(seen[:, :3], scale) if scale > 1 else seen[:, :3]
        decoded.append(_to_bytes(network(small, key)[:, :3]))
        photos.append(_to_bytes(photo))
    return Bank(torch.cat(decoded), torch.cat(photos))


def _to_bytes(images: Tensor) -> Tensor:
    return images.float().mul(255).round().clamp(0, 255).to(torch.uint8)


def texture_distance(
    output: Tensor, photo: Tensor, mask: Tensor, generator: torch.Generator
) -> Tensor:
    """Sliced Wasserstein distance between the patches of images, image by image.

    F. Pitie et al. 2005 and A. Elnekave, Y. Weiss, "Generating natural images with direct patch
    distributions matching", ECCV 2022: random filters without a mean, sorted responses.

    Args:
        output: (B, 3, H, W).
        photo: (B, 3, H, W).
        mask: 1 on the face, (B, 1, H, W).
        generator: Draws filters and places.
    """
    filters = torch.randn(PROJECTIONS, 3, PATCH, PATCH, generator=generator).to(output.device)
    filters = filters - filters.mean((2, 3), keepdim=True)
    filters = filters / filters.flatten(1).norm(dim=1)[:, None, None, None]
    one, two = (F.conv2d(images * mask, filters).flatten(2) for images in (output, photo))
    places = torch.randperm(one.shape[-1], generator=generator)[:POSITIONS].to(output.device)
    return (one[..., places].sort(-1)[0] - two[..., places].sort(-1)[0]).abs().mean()


def refine_decoders(run: TrainingState, faces: Faces, steps: int) -> None:
    """Train the refiners of both identities for some steps each, at a rate that falls to zero.

    Fresh refiners are built if the run has none.

    Args:
        run: The run; its ``refiners`` are replaced.
        faces: Training faces by identity at the refiner's resolution, (N, 3 or 4, S, S) uint8.
        steps: Steps for each refiner.
    """
    network = run.ema_or_model.eval()
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(run.step)
    pairs = min(PAIRS, PAIRS_PER_PASS * math.ceil(BATCH * steps / PAIRS_PER_PASS))
    for key, crops in faces.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.step)
            known = run.refiners.get(key)
            refiner = known or refiner_for(network.config).to(device)
        shift = run.color_shift if key == "a" else None
        bank = fill_bank(network, crops, key, shift, refiner.config.scale, pairs, generator)
        training = RefinerTraining(refiner.train(), bank, generator, ALONE if known else 0)
        for step in range(steps):
            training.step(step / steps)
        run.refiners[key] = refiner.eval()
    network.train()


class RefinerTraining:
    """Trains one refiner step by step.

    Args:
        refiner: The refiner.
        bank: Pairs to learn from.
        generator: Draws windows, filters and places.
        done: Steps that an earlier call has trained the refiner for; at most ALONE matter.
    """

    def __init__(
        self, refiner: Refiner, bank: Bank, generator: torch.Generator, done: int = 0
    ) -> None:
        self.refiner, self._bank, self._generator = refiner, bank, generator
        self._optimizer = torch.optim.AdamW(self.refiner.parameters(), LEARNING_RATE, BETAS)
        self._window = min(WINDOW, bank.decoded.shape[-1] - 2 * MARGIN)
        self._steps = count(done)

    def step(self, share: float) -> None:
        """Take a step; ``share`` of the training is done."""
        number = next(self._steps)
        rate = min(1.0, max(1 - share, 0) / (1 - DECAY_FROM) + 0.01)
        for group in self._optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        decoded, photo = self._windows()
        mask = photo[:, 3:] if photo.shape[1] > 3 else torch.ones_like(photo[:, :1])
        photo = photo[:, :3]
        output = self.refiner(decoded)
        loss = ((output - photo).abs() * mask).sum() / (3 * mask.sum()).clamp(min=1)
        if number >= ALONE:
            loss = loss + TEXTURE_WEIGHT * texture_distance(output, photo, mask, self._generator)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def _windows(self) -> tuple[Tensor, Tensor]:
        """Cut the same window out of some pairs, float32 in [0, 1]."""
        decoded, photos = self._bank.decoded, self._bank.photos
        scale = photos.shape[-1] // decoded.shape[-1]
        chosen = torch.randint(len(decoded), (BATCH,), generator=self._generator)
        last = decoded.shape[-1] - MARGIN - self._window
        top, left = torch.randint(MARGIN, last + 1, (2,), generator=self._generator).tolist()
        small = slice(top, top + self._window), slice(left, left + self._window)
        large = tuple(slice(scale * side.start, scale * side.stop) for side in small)
        some = chosen.to(decoded.device)
        return (
            decoded[some][..., small[0], small[1]].float() / 255,
            photos[some][..., large[0], large[1]].float() / 255,
        )
