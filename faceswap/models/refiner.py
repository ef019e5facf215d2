"""Sharpen decoded faces: a small network per person that learned that person's skin and lashes."""

from dataclasses import asdict, dataclass
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceswap.models.architectures import ModelConfig
from faceswap.types import Identity

SHARPEST = 256  # pixels; larger networks are refined at their own size, smaller ones at twice it


@dataclass(frozen=True, slots=True)
class RefinerConfig:
    """Shape of a refiner.

    Attributes:
        scale: Sides of the output over sides of the input, 1 or 2.
        width: Channels.
        blocks: Residual blocks.
    """

    scale: int
    width: int = 24
    blocks: int = 3

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Check the values of a model file's header.

        Raises:
            KeyError, TypeError, ValueError: If they do not describe a refiner.
        """
        numbers = {name: int(values[name]) for name in ("scale", "width", "blocks")}
        limits = {"scale": 2, "width": 256, "blocks": 16}
        for name, number in numbers.items():
            if not 1 <= number <= limits[name]:
                raise ValueError(f"the refiner's {name} must be from 1 to {limits[name]}")
        return cls(**numbers)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Refiner(nn.Module):
    """Map decoded faces (B, 3, S, S) to sharper ones, (B, 3, scale S, scale S), in [0, 1].

    It adds a learned residual to a bicubic enlargement. A fresh one adds nothing.
    """

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1),
                nn.LeakyReLU(0.1),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(config.blocks)
        )
        self.up = nn.Conv2d(width, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, faces: Tensor) -> Tensor:
        hidden = self.first(faces * 2 - 1)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        hidden = F.leaky_relu(self.up(self._enlarged(hidden, "bilinear")), 0.1)
        return cast(Tensor, self._enlarged(faces, "bicubic") + self.last(hidden))

    def _enlarged(self, images: Tensor, mode: str) -> Tensor:
        if self.config.scale == 1:
            return images
        return F.interpolate(images, scale_factor=self.config.scale, mode=mode)


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
    """Return how many times as large as a network's faces its refined faces are."""
    return 2 if model.size < SHARPEST else 1


def refiner_for(model: ModelConfig) -> Refiner:
    """Build a fresh refiner for a network."""
    return Refiner(RefinerConfig(scale=scale_for(model)))


@torch.no_grad()
def refine(refiner: Refiner, decoded: Tensor) -> Tensor:
    """Refine decoded faces (B, 3 or 4, S, S); a mask in the fourth channel is enlarged."""
    faces = refiner(decoded[:, :3]).clamp(0, 1)
    if decoded.shape[1] == 3:
        return cast(Tensor, faces)
    size = tuple(faces.shape[-2:])
    mask = F.interpolate(decoded[:, 3:], size=size, mode="bilinear", align_corners=False)
    return torch.cat([faces, mask], dim=1)
