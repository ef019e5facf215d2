"""Sample the network crop from a crop, shift colours, and map network output back to the crop."""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from faceswap.arrays import Image, Matrix
from faceswap.models.architectures import ModelConfig

FACES_PER_CHUNK = 4  # faces sampled at a time on a CPU; their float copies fit in its cache


def network_crop(faces: Tensor, model: ModelConfig, mode: str = "bilinear") -> Tensor:
    """Sample network crops: (B, 3, S, S) uint8 -> (B, 3, size, size) float32 in [0, 1].

    The positions are those of the input in ``augment.random_warp`` without displacement.
    "bicubic" keeps more detail than "bilinear"; its values may lie slightly outside [0, 1].
    """
    centers = (torch.arange(model.size, dtype=torch.float64) + model.input_center) / model.size
    axis = model.view * (2 * centers - 1)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy")).float()
    batch = points.expand(len(faces), -1, -1, -1)
    return _sample(faces, lambda chunk: batch[chunk], mode)


def to_bytes(images: Tensor) -> Tensor:
    """Convert [0, 1] to levels, uint8."""
    return images.float().mul(255).round().clamp(0, 255).to(torch.uint8)


def to_images(faces: Tensor) -> list[Image]:
    """Convert faces (B, C, H, W) in [0, 1] to images (H, W, C)."""
    return list(to_bytes(faces).permute(0, 2, 3, 1).cpu().contiguous().numpy())


def to_tensor(images: list[Image]) -> Tensor:
    """Convert images (H, W, C) to a tensor (B, C, H, W) of the same levels, uint8."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from the CPU to a device without waiting until the device has it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def shift_color(images: Tensor, shift: tuple[float, float, float]) -> Tensor:
    """Add a colour to float images (B, 3 or 4, H, W), clamp to [0, 1], and leave the mask as is."""
    shifted = (images[:, :3] + _planes(shift, images.dtype, images.device)).clamp(0, 1)
    return shifted if images.shape[1] == 3 else torch.cat([shifted, images[:, 3:]], dim=1)


@functools.lru_cache(16)
def _planes(color: tuple[float, float, float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return a colour as a tensor (3, 1, 1); training needs the same one in every step."""
    return torch.tensor(color, dtype=dtype, device=device)[:, None, None]


def _sample(faces: Tensor, points: Callable[[slice], Tensor], mode: str = "bilinear") -> Tensor:
    """Sample uint8 crops, with their edges repeated outwards.

    On a CPU a few faces are sampled at a time, so that the buffer with their float copies and the
    sampling points stay in its cache.

    Args:
        faces: Crops (B, C, S, S) uint8.
        points: Returns the sampling points of a slice of the faces, (b, 2, H, W) float32 in -1..1.
        mode: "bilinear" or "bicubic".

    Returns:
        (B, C, H, W) float32 in [0, 1].
    """
    count, channels, *sides = faces.shape
    on_mps = faces.device.type == "mps"  # no padding_mode="border" before torch 2.13
    padding, limit = ("zeros", 1 - 1 / sides[0]) if on_mps else ("border", math.inf)
    chunk_size = FACES_PER_CHUNK if faces.device.type == "cpu" else max(count, 1)
    buffer = faces.new_empty((chunk_size, channels, *sides), dtype=torch.float32)
    result = buffer.new_empty(0)
    for first in range(0, count, chunk_size):
        chunk = slice(first, min(first + chunk_size, count))
        grid = points(chunk).to(faces.device).permute(0, 2, 3, 1)
        grid = grid.clamp(-limit, limit) if on_mps else grid
        source = buffer[: chunk.stop - first].copy_(faces[chunk])
        sampled = F.grid_sample(source, grid, mode, padding, align_corners=False)
        if not first:
            result = buffer.new_empty((count, *sampled.shape[1:]))
        torch.mul(sampled, 1 / 255, out=result[chunk])
    return result


def output_to_crop(model: ModelConfig, crop_size: int) -> Matrix:
    """Return the matrix from network output pixels to pixels of a crop of side ``crop_size``."""
    side = model.view * crop_size / model.size  # crop pixels per network pixel
    offset = (1 - model.view) / 2 * crop_size - 0.5 + model.output_center * side
    return np.array([[side, 0.0, offset], [0.0, side, offset]])
