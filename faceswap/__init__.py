"""Swap faces in photos and video: extract, train, convert.

The names below load their modules on first use, so that importing this package costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faceswap.config import ConvertConfig, ExtractConfig, TrainConfig
    from faceswap.errors import FaceswapError
    from faceswap.faces.extractor import extract
    from faceswap.models.architectures import ModelConfig
    from faceswap.models.classic import import_checkpoint
    from faceswap.provenance.credentials import verify
    from faceswap.swapping.converter import convert
    from faceswap.training.trainer import train
    from faceswap.types import Progress

__all__ = [
    "ConvertConfig",
    "ExtractConfig",
    "FaceswapError",
    "ModelConfig",
    "Progress",
    "TrainConfig",
    "convert",
    "extract",
    "import_checkpoint",
    "train",
    "verify",
]

_HOMES = {
    "ConvertConfig": "config",
    "ExtractConfig": "config",
    "FaceswapError": "errors",
    "ModelConfig": "models.architectures",
    "Progress": "types",
    "TrainConfig": "config",
    "convert": "swapping.converter",
    "extract": "faces.extractor",
    "import_checkpoint": "models.classic",
    "train": "training.trainer",
    "verify": "provenance.credentials",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("faceswap")
    if name not in _HOMES:
        raise AttributeError(f"module 'faceswap' has no attribute {name!r}")
    return getattr(import_module(f"faceswap.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
