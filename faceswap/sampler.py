"""What a training step sees: faces dealt like cards, warped, and as they should come out."""

import torch
from torch import Tensor

from faceswap import augment
from faceswap.checkpoint import Run
from faceswap.distributed import World
from faceswap.model import Identity

VIEWS = 64  # faces at a time when all of them are looked at


def training_pair(
    run: Run, crops: Tensor, key: Identity, size: int, world: World, warp: bool = True,
    jitter: float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The next ``size`` faces of an identity, warped and as they should come out.

    All processes of ``world`` draw the same numbers for all faces; each gets its part.

    Args:
        run: Gives the order of the faces, the random numbers, the model and the colour shift.
        crops: The identity's faces, (N, 3, S, S) uint8; a fourth channel is their masks.
        key: The identity.
        size: Faces in all processes together.
        world: The processes.
        warp: Whether to warp; without it only the small similarity changes remain.
        jitter: Standard deviation of the logarithm of a face's random light; 0: none.

    Returns:
        Two tensors (size / processes, channels, side, side) float32 in [0, 1], the first always of
        three channels.
    """
    mine = world.part(size)
    indices = next_indices(run, key, len(crops), size)[mine]
    config = run.network.config
    noise = augment.draw_transform(size, run.generator).part(mine)
    displacement = augment.draw_warp(size, run.generator)[mine] * warp
    matrices = augment.transform_matrices(noise, config.crop_size)
    picked = crops[indices.to(crops.device)]
    warped, target = augment.random_warp(picked, displacement, config, matrices)
    warped, target = colored(run, warped[:, :3], key), colored(run, target, key)
    if jitter:
        gain = augment.draw_color(size, jitter, run.generator)[mine]
        warped, target = augment.change_light(warped, gain), augment.change_light(target, gain)
    return warped, target


def next_indices(run: Run, key: str, count: int, size: int) -> Tensor:
    """Deal faces like cards: every face once, shuffled, before any comes again."""
    order = run.orders.get(key, torch.empty(0, dtype=torch.int64))
    order = order[order < count]  # the faceset may have shrunk since
    while len(order) < size:
        order = torch.cat([order, torch.randperm(count, generator=run.generator)])
    run.orders[key] = order[size:].clone()
    return order[:size]


def colored(run: Run, images: Tensor, key: Identity) -> Tensor:
    """Give a's faces b's mean colour."""
    return augment.shift_color(images, run.color_shift) if key == "a" else images


def views(run: Run, crops: Tensor, key: Identity) -> list[Tensor]:
    """What the network sees of all faces of an identity unwarped, in batches."""
    return [
        colored(run, augment.network_view(some[:, :3], run.network.config), key)
        for some in torch.split(crops, VIEWS)
    ]
