"""What a network sees of a crop, and where its output belongs in the crop."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from faceswap.models.architectures import ModelConfig
from faceswap.types import Matrix

FACES_PER_CHUNK = 4  # faces at a time on a CPU: their float copies then stay in its cache


def network_crop(faces: Tensor, model: ModelConfig) -> Tensor:
    """What the network sees of unchanged crops: (B, 3, S, S) uint8 -> (B, 3, size, size) float32.

    The same sampling as the input of :func:`random_warp` without noise.
    """
    centers = (torch.arange(model.size, dtype=torch.float64) + model.input_center) / model.size
    axis = model.view * (2 * centers - 1)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy")).float()
    everywhere = points.expand(len(faces), -1, -1, -1)
    return _sample(faces, lambda some: everywhere[some])


def shift_color(images: Tensor, shift: tuple[float, float, float]) -> Tensor:
    """Add a colour to float images (B, 3, H, W), kept within [0, 1]; a fourth channel stays."""
    shifted = (images[:, :3] + images.new_tensor(shift)[:, None, None]).clamp(0, 1)
    return shifted if images.shape[1] == 3 else torch.cat([shifted, images[:, 3:]], dim=1)


def _sample(faces: Tensor, points: Callable[[slice], Tensor]) -> Tensor:
    """Read uint8 crops (B, 3, S, S) bilinearly; edges are repeated.

    On a CPU a few faces at a time: their float copy, in one small buffer, and their points stay in
    its cache.

    Args:
        faces: The crops.
        points: Gives the points of a slice of the faces, (b, 2, H, W) float32 in -1..1.
    """
    count, channels, *sides = faces.shape
    on_mps = faces.device.type == "mps"  # which lacks repeated edges before torch 2.13
    padding, limit = ("zeros", 1 - 1 / sides[0]) if on_mps else ("border", math.inf)
    chunk = FACES_PER_CHUNK if faces.device.type == "cpu" else max(count, 1)
    buffer = faces.new_empty((chunk, channels, *sides), dtype=torch.float32)
    result = buffer.new_empty(0)
    for first in range(0, count, chunk):
        some = slice(first, min(first + chunk, count))
        at = points(some).to(faces.device).permute(0, 2, 3, 1)
        at = at.clamp(-limit, limit) if on_mps else at
        source = buffer[: some.stop - first].copy_(faces[some])
        read = F.grid_sample(source, at, padding_mode=padding, align_corners=False)
        if not first:
            result = buffer.new_empty((count, *read.shape[1:]))
        torch.mul(read, 1 / 255, out=result[some])
    return result


def output_to_crop(model: ModelConfig, crop_size: int) -> Matrix:
    """Pixels of the network's output -> pixels of a crop of side ``crop_size``."""
    side = model.view * crop_size / model.size  # crop pixels per network pixel
    offset = (1 - model.view) / 2 * crop_size - 0.5 + model.output_center * side
    return np.array([[side, 0.0, offset], [0.0, side, offset]])
