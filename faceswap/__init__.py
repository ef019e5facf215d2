"""Swap faces in photos and videos: extract, train, convert.

Public names are imported on first use, so that ``import faceswap`` is fast.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faceswap.cli.info import inspect
    from faceswap.config import (
        ConvertConfig,
        EvaluateConfig,
        ExportConfig,
        ExtractConfig,
        TrainConfig,
    )
    from faceswap.errors import FaceswapError
    from faceswap.evaluation.evaluator import evaluate
    from faceswap.evaluation.results import EvaluationReport
    from faceswap.faces.geometry import AlignedFace, Box, Face
    from faceswap.facesets.extractor import ExtractReport, extract
    from faceswap.facesets.faceset import Faceset
    from faceswap.media.frame import Frame
    from faceswap.models.architectures import ModelConfig
    from faceswap.models.classic import import_checkpoint
    from faceswap.models.export import ExportReport, export_model
    from faceswap.models.modelfile import TrainedModel, load_model
    from faceswap.swapping.batch import Job, JobReport, convert_all
    from faceswap.swapping.compositor import ColorMatch
    from faceswap.swapping.converter import convert
    from faceswap.swapping.redo import redo
    from faceswap.swapping.report import ConvertReport
    from faceswap.swapping.swapper import Swapper
    from faceswap.swapping.turnover import PackageReport, package, redo_package
    from faceswap.swapping.verification import Verification, verify
    from faceswap.training.trainer import TrainReport, train
    from faceswap.types import Progress

_HOMES = {
    "AlignedFace": "faces.geometry",
    "Box": "faces.geometry",
    "ColorMatch": "swapping.compositor",
    "ConvertConfig": "config",
    "ConvertReport": "swapping.report",
    "EvaluateConfig": "config",
    "EvaluationReport": "evaluation.results",
    "ExportConfig": "config",
    "ExportReport": "models.export",
    "ExtractConfig": "config",
    "ExtractReport": "facesets.extractor",
    "Face": "faces.geometry",
    "Faceset": "facesets.faceset",
    "FaceswapError": "errors",
    "Frame": "media.frame",
    "Job": "swapping.batch",
    "JobReport": "swapping.batch",
    "ModelConfig": "models.architectures",
    "PackageReport": "swapping.turnover",
    "Progress": "types",
    "Swapper": "swapping.swapper",
    "TrainConfig": "config",
    "TrainReport": "training.trainer",
    "TrainedModel": "models.modelfile",
    "Verification": "swapping.verification",
    "convert": "swapping.converter",
    "convert_all": "swapping.batch",
    "evaluate": "evaluation.evaluator",
    "export_model": "models.export",
    "extract": "facesets.extractor",
    "import_checkpoint": "models.classic",
    "inspect": "cli.info",
    "load_model": "models.modelfile",
    "package": "swapping.turnover",
    "redo": "swapping.redo",
    "redo_package": "swapping.turnover",
    "train": "training.trainer",
    "verify": "swapping.verification",
}

__all__ = [
    "AlignedFace",
    "Box",
    "ColorMatch",
    "ConvertConfig",
    "ConvertReport",
    "EvaluateConfig",
    "EvaluationReport",
    "ExportConfig",
    "ExportReport",
    "ExtractConfig",
    "ExtractReport",
    "Face",
    "Faceset",
    "FaceswapError",
    "Frame",
    "Job",
    "JobReport",
    "ModelConfig",
    "PackageReport",
    "Progress",
    "Swapper",
    "TrainConfig",
    "TrainReport",
    "TrainedModel",
    "Verification",
    "convert",
    "convert_all",
    "evaluate",
    "export_model",
    "extract",
    "import_checkpoint",
    "inspect",
    "load_model",
    "package",
    "redo",
    "redo_package",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("faceswap")
    if name not in _HOMES:
        raise AttributeError(f"module 'faceswap' has no attribute {name!r}")
    return getattr(import_module(f"faceswap.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
