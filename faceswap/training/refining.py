"""Train a person's refiner: from what that person's decoder makes of photos to the photos.

The decoder paints each photo once. Windows of these pairs, together with the detail of another
photo of the person, then train the refiner with an L1 loss and the sliced Wasserstein distance of
small patches. The distance compares the textures of a window as sets, so that the refiner paints
pores and lashes of the right strength where L1 alone would average them away. What the other photo
shows differently, such as a beard or a word that is printed on it, the refiner learns to leave out.
"""

from dataclasses import dataclass
from itertools import chain, count
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from faceswap.models.devices import in_precision
from faceswap.models.refiner import Refiner, refiner_for
from faceswap.models.sampling import to_bytes, upload
from faceswap.training.checkpoint import TrainingState
from faceswap.training.portraits import Portraits, colored, seen, with_eyes
from faceswap.training.recorder import StepRecorder
from faceswap.types import Identity

PAIRS_PER_PASS = 32
BATCH, WINDOW = 6, 96  # windows per step and their side in pixels of the refiner's output
MARGIN = 4  # pixels at the border of the decoder's output that no window touches
LEARNING_RATE, BETAS = 1e-3, (0.9, 0.99)
DECAY_FROM = 0.7  # share of the steps after which the learning rate falls to zero
ALONE = 30  # first steps of a fresh refiner, in which only the L1 loss is used
TEXTURE_WEIGHT = 1.5  # of each patch distance; less leaves skin soft
SHRUNK = (1, 2)  # patches are compared at full and at half size
PATCH, PROJECTIONS, POSITIONS = 5, 32, 800  # side of a patch, random filters, patches per image


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Pairs to learn from.

    Attributes:
        decoded: uint8 (N, 3, S, S), what the decoder makes of the photos.
        photos: uint8 (N, 4, scale S, scale S), the photos with their face masks, or (N, 3, ...)
            without masks.
        details: uint8 (N, 3, scale S, scale S), see :class:`Portraits`.
    """

    decoded: Tensor
    photos: Tensor
    details: Tensor | None = None


@torch.no_grad()
def fill_bank(run: TrainingState, faces: Portraits, key: Identity) -> Bank:
    """Let a decoder paint photos of its own person, and lay the eyes of other photos over them.

    Args:
        run: Provides the network and the colour that training adds to a's faces.
        faces: The photos.
        key: The person.
    """
    decoded, photos = [], []
    for first in range(0, len(faces), PAIRS_PER_PASS):
        some = faces.at(slice(first, first + PAIRS_PER_PASS))
        painted = run.ema_or_model(seen(run, some, key), key)[:, :3]
        decoded.append(to_bytes(with_eyes(painted, some)))
        photos.append(to_bytes(colored(run, some.images.float() / 255, key)))
    return Bank(torch.cat(decoded), torch.cat(photos), faces.details)


@dataclass(frozen=True, slots=True, eq=False)
class WindowDraw:
    """The random numbers of a step. The windows are cut out where these tensors are.

    Attributes:
        pairs: Numbers of the pairs, (BATCH,) int64.
        corner: Top and left of the window in the decoder's pixels, (2,) int64.
        filters: Filters and pixels of :func:`draw_filters` for each size of SHRUNK.
    """

    pairs: Tensor
    corner: Tensor
    filters: tuple[tuple[Tensor, Tensor], ...]

    def tensors(self) -> list[Tensor]:
        """Return the tensors in an order that :meth:`of` takes."""
        return [self.pairs, self.corner, *chain.from_iterable(self.filters)]

    @classmethod
    def of(cls, tensors: list[Tensor]) -> Self:
        """Take the tensors of a draw."""
        pairs, corner, *filters = tensors
        return cls(pairs, corner, tuple(zip(filters[::2], filters[1::2], strict=True)))


def draw_filters(height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw random filters and the patches that they are applied to.

    Args:
        height: Height of the image.
        width: Width of the image.
        generator: Draws filters and places.

    Returns:
        filters: Filters without a mean, (PROJECTIONS, 3, PATCH squared).
        pixels: Numbers of the pixels of all patches, one patch after the other, int64.
    """
    filters = torch.randn(PROJECTIONS, 3, PATCH**2, generator=generator)
    filters = filters - filters.mean(2, keepdim=True)
    filters = filters / filters.flatten(1).norm(dim=1)[:, None, None]
    inside = (height - PATCH + 1) * (width - PATCH + 1)
    places = torch.randperm(inside, generator=generator)[:POSITIONS]
    corners = places // (width - PATCH + 1) * width + places % (width - PATCH + 1)
    offsets = torch.arange(PATCH)
    pixels = corners[:, None] + (offsets[:, None] * width + offsets).flatten()
    return filters, pixels.flatten()


def texture_distance(
    output: Tensor, photo: Tensor, mask: Tensor, filters: Tensor, pixels: Tensor
) -> Tensor:
    """Sliced Wasserstein distance between the patches of images, image by image.

    F. Pitie et al. 2005 and A. Elnekave, Y. Weiss, "Generating natural images with direct patch
    distributions matching", ECCV 2022: random filters without a mean, sorted responses.

    Args:
        output: (B, 3, H, W).
        photo: (B, 3, H, W).
        mask: 1 on the face, (B, 1, H, W).
        filters: From :func:`draw_filters` for images of this size, on their device.
        pixels: From there too.
    """

    def responses(images: Tensor) -> Tensor:
        """Return the sorted responses of each filter, (B, PROJECTIONS, POSITIONS)."""
        patches = (images * mask).flatten(2)[..., pixels].reshape(*images.shape[:2], -1, PATCH**2)
        return torch.einsum("bcpk,fck->bfp", patches, filters).sort(-1)[0]

    return (responses(output) - responses(photo)).abs().mean()


def refine_decoders(
    run: TrainingState, faces: dict[Identity, Portraits], steps: int,
    precision: torch.dtype = torch.float32,
) -> None:  # fmt: skip
    """Train the refiners of both identities for some steps each, at a rate that falls to zero.

    Fresh refiners are built if the run has none.

    Args:
        run: The run; its ``refiners`` are replaced.
        faces: Training faces by identity.
        steps: Steps for each refiner.
        precision: Number format of the refiners. Their training does not scale the loss, so it
            takes float32 instead of float16.
    """
    network = run.ema_or_model.eval()
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(run.step)
    for key, people in faces.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.step)
            known = run.refiners.get(key)
            refiner = known or refiner_for(network.config).to(device)
        refiner.train().to(memory_format=torch.channels_last)
        # A short slice does not look at all faces, so do not paint more than it looks at.
        stride = max(len(people) // (BATCH * steps), 1)
        bank = fill_bank(run, people.at(slice(run.step % stride, None, stride)), key)
        training = RefinerTraining(refiner, bank, generator, ALONE if known else 0, precision)
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
        precision: Number format of the refiners. Their training does not scale the loss, so it
            takes float32 instead of float16.
    """

    def __init__(
        self, refiner: Refiner, bank: Bank, generator: torch.Generator, done: int = 0,
        precision: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.refiner, self._bank, self._generator = refiner, bank, generator
        self._precision = torch.float32 if precision == torch.float16 else precision
        self._device = bank.decoded.device
        on_gpu = self._device.type == "cuda"
        self._optimizer = torch.optim.AdamW(
            self.refiner.parameters(), torch.tensor(LEARNING_RATE, device=self._device), BETAS,
            capturable=on_gpu,
        )  # fmt: skip
        self._recorder = StepRecorder[WindowDraw]() if on_gpu else None
        self._window = min(WINDOW // refiner.config.scale, bank.decoded.shape[-1] - 2 * MARGIN)
        self._steps = count(done)

    def step(self, share: float) -> Tensor:
        """Take a step; ``share`` of the training is done. Return the loss."""
        with_texture = next(self._steps) >= ALONE
        rate = min(1.0, max(1 - share, 0) / (1 - DECAY_FROM) + 0.01)
        for group in self._optimizer.param_groups:
            group["lr"].fill_(LEARNING_RATE * rate)
        draw = WindowDraw.of(
            [upload(tensor, self._device) for tensor in self._draw(with_texture).tensors()]
        )
        if self._recorder and with_texture:
            return self._recorder(self._learn, [draw])
        return self._learn([draw])

    def _draw(self, with_texture: bool) -> WindowDraw:
        """Draw the random numbers of a step."""
        decoded, generator = self._bank.decoded, self._generator
        pairs = torch.randint(len(decoded), (BATCH,), generator=generator)
        last = decoded.shape[-1] - MARGIN - self._window
        corner = torch.randint(MARGIN, last + 1, (2,), generator=generator)
        side = self._window * self.refiner.config.scale
        filters = [draw_filters(side // divisor, side // divisor, generator)
                   for divisor in (SHRUNK if with_texture else ())]  # fmt: skip
        return WindowDraw(pairs, corner, tuple(filters))

    def _learn(self, draws: list[WindowDraw]) -> Tensor:
        """Do the device's part of a step; return the loss."""
        (draw,) = draws
        decoded, photo, detail = self._windows(draw)
        mask = photo[:, 3:] if photo.shape[1] > 3 else torch.ones_like(photo[:, :1])
        photo = photo[:, :3]
        with in_precision(decoded.device, self._precision):
            output = self.refiner(decoded, detail)
        output = output.float()
        loss: Tensor = ((output - photo).abs() * mask).sum() / (3 * mask.sum()).clamp(min=1)
        for divisor, (filters, pixels) in zip(SHRUNK, draw.filters, strict=False):
            shrunk = [F.avg_pool2d(images, divisor) if divisor > 1 else images
                      for images in (output, photo, mask)]  # fmt: skip
            distance = texture_distance(shrunk[0], shrunk[1], shrunk[2], filters, pixels)
            loss = loss + TEXTURE_WEIGHT * distance
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return loss.detach()

    def _windows(self, draw: WindowDraw) -> tuple[Tensor, Tensor, Tensor | None]:
        """Cut the same window out of some pairs, float32 in [0, 1], and of their details."""

        def cut(images: Tensor, scale: int) -> Tensor:
            places = torch.arange(scale * self._window, device=images.device)
            rows, columns = (scale * draw.corner[:, None] + places).unbind()
            return images[draw.pairs].index_select(2, rows).index_select(3, columns)

        bank, scale = self._bank, self.refiner.config.scale
        return (
            cut(bank.decoded, 1).float() / 255,
            cut(bank.photos, scale).float() / 255,
            None if bank.details is None else cut(bank.details, scale),
        )
