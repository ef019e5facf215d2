"""Sharpen decoded faces: a small network per person that learned that person's skin and lashes."""

import math
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceswap.arrays import NEUTRAL, RANGE
from faceswap.models.architectures import ModelConfig
from faceswap.models.layers import conv_to_image
from faceswap.types import Identity

CROP = 256  # usual side of the stored crops in pixels; refined faces show about as much
SURROUNDINGS = 2.0  # standard deviation of the blur that detail is relative to, in input pixels
REACH = 6  # pixels of that blur
CPU_FACES = 2  # faces refined at a time on a CPU, so that they stay in its cache
GAIN = 4.0  # brings detail to the size of the other inputs


@dataclass(frozen=True, slots=True)
class RefinerConfig:
    """Shape of a refiner.

    Attributes:
        scale: Sides of the output over sides of the input.
        width: Channels at the size of the input.
        blocks: Residual blocks there.
        features: Of these channels, how many are enlarged.
        channels: Channels at the size of the output.
    """

    scale: int
    width: int = 24
    blocks: int = 3
    features: int = 12
    channels: int = 16

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Check the values of a model file's header.

        Raises:
            KeyError, TypeError, ValueError: If they do not describe a refiner.
        """
        limits = {"scale": 4, "width": 256, "blocks": 16, "features": 256, "channels": 256}
        numbers = {name: int(values[name]) for name in limits}
        for name, number in numbers.items():
            if not 1 <= number <= limits[name]:
                raise ValueError(f"the refiner's {name} must be from 1 to {limits[name]}")
        return cls(**numbers)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Refiner(nn.Module):
    """Map decoded faces (B, 3, S, S) to sharper ones, (B, 3, scale S, scale S), in [0, 1].

    It adds a learned residual to a bicubic enlargement. A fresh one adds nothing. Its layers work
    at the size of the input; the last three, which also see the detail of a photo of the person,
    at the size of the output.
    """

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        width, channels = config.width, config.channels
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.LeakyReLU(0.1, inplace=True),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(config.blocks)
        )
        self.features = nn.Conv2d(width, config.features, 3, padding=1)
        self.guided = nn.Conv2d(config.features + 6, channels, 3, padding=1)
        self.mixed = nn.Conv2d(channels, channels, 3, padding=1)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, faces: Tensor, detail: Tensor | None = None) -> Tensor:
        """Refine faces.

        Args:
            faces: Decoded faces (B, 3, S, S).
            detail: Detail of photos that lies over the faces, (B, 3, scale S, scale S) uint8: each
                pixel over its surroundings, see :data:`faceswap.arrays.Detail`. None means
                that there is none.
        """
        hidden = self.first(faces * 2 - 1)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        hidden = self._enlarged(F.leaky_relu(self.features(hidden), 0.1, inplace=True))
        large = enlarged_bicubic(faces, self.config.scale)
        if detail is None:
            photo = torch.zeros_like(large)
        else:
            relative = (detail.to(faces.dtype) - NEUTRAL) * (RANGE / 127)
            photo = relative * self._enlarged(self._around(faces).float()) * GAIN
        # Joining tensors of different types or memory formats takes ten times as long.
        joined = torch.cat([_alike(part, hidden) for part in (hidden, large * 2 - 1, photo)], dim=1)
        for layer in (self.guided, self.mixed):
            joined = F.leaky_relu(layer(joined), 0.1, inplace=True)
        assert self.last.bias is not None
        return large + conv_to_image(joined, self.last.weight, self.last.bias).float()

    def _around(self, faces: Tensor) -> Tensor:
        """Blur faces."""
        places = torch.arange(-REACH, REACH + 1, dtype=faces.dtype, device=faces.device)
        kernel = torch.exp(-((places / SURROUNDINGS) ** 2) / 2)
        kernel = kernel / kernel.sum()
        padded = F.pad(faces, (REACH,) * 4, mode="replicate")
        rows = F.conv2d(padded, kernel.expand(3, 1, 1, -1), groups=3)
        return F.conv2d(rows, kernel[:, None].expand(3, 1, -1, 1), groups=3)

    def _enlarged(self, images: Tensor) -> Tensor:
        if self.config.scale == 1:
            return images
        return F.interpolate(images, scale_factor=self.config.scale, mode="bilinear")


def _alike(images: Tensor, other: Tensor) -> Tensor:
    """Return images in the type of others, in channels_last format."""
    return images.to(other.dtype).contiguous(memory_format=torch.channels_last)


def enlarged_bicubic(images: Tensor, scale: int) -> Tensor:
    """Enlarge images (B, C, H, W) in float32, as ``F.interpolate`` does.

    Two matrix products take a fifth of its time on a CPU.
    """
    if scale == 1:
        return images
    rows, columns = (_bicubic(side, scale, images.device) for side in images.shape[-2:])
    with torch.autocast(images.device.type, enabled=False):
        return rows @ images.float().contiguous() @ columns.T


@cache
def _bicubic(side: int, scale: int, device: torch.device) -> Tensor:
    """Return the weights of the pixels of an enlarged line, (scale * side, side)."""
    lines = F.interpolate(torch.eye(side)[None, None], size=(scale * side, side), mode="bicubic")
    return lines[0, 0].to(device)


def build_refiners(shape: dict[str, Any] | None) -> dict[Identity, Refiner]:
    """Build fresh refiners of both identities; none without a shape.

    Raises:
        KeyError, TypeError, ValueError: If the shape is invalid.
    """
    if shape is None:
        return {}
    config = RefinerConfig.from_dict(shape)
    return {"a": Refiner(config), "b": Refiner(config)}


def tensors_of(refiners: dict[Identity, Refiner]) -> dict[str, Tensor]:
    """Return the weights of refiners, named such as "refiner.b.last.bias"."""
    return {
        f"refiner.{key}.{name}": tensor
        for key, refiner in refiners.items()
        for name, tensor in refiner.state_dict().items()
    }


def scale_for(model: ModelConfig) -> int:
    """Return how many times as large as a network's faces its refined faces are.

    They have at least as many pixels as a crop of the usual size.
    """
    return min(max(math.ceil(model.view * CROP / model.size), 1), 4)


def refiner_for(model: ModelConfig) -> Refiner:
    """Build a fresh refiner for a network."""
    return Refiner(RefinerConfig(scale=scale_for(model)))


@torch.no_grad()
def refine(refiner: Refiner, decoded: Tensor, detail: Tensor | None = None) -> Tensor:
    """Refine decoded faces (B, 3 or 4, S, S); a mask in the fourth channel is enlarged.

    Args:
        refiner: The refiner.
        decoded: The faces.
        detail: See :meth:`Refiner.forward`.
    """
    at_once = CPU_FACES if decoded.device.type == "cpu" else max(len(decoded), 1)
    parts = [
        refiner(
            decoded[first : first + at_once, :3].contiguous(memory_format=torch.channels_last),
            None if detail is None else detail[first : first + at_once],
        ).clamp(0, 1)
        for first in range(0, len(decoded), at_once)
    ]
    faces = torch.cat(parts)
    if decoded.shape[1] == 3:
        return faces
    size = tuple(faces.shape[-2:])
    mask = F.interpolate(decoded[:, 3:], size=size, mode="bilinear", align_corners=False)
    return torch.cat([faces, mask], dim=1)
