"""Keep the models and the detection processes that several conversions share."""

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import torch

from faceswap.config import ConvertConfig
from faceswap.faces.pool import DetectorPool
from faceswap.files import sha256_of
from faceswap.models import modelfile
from faceswap.models.modelfile import TrainedModel
from faceswap.types import counted

log = logging.getLogger(__name__)

MAX_MODELS = 4  # models kept in memory


class Resources:
    """Models and detection processes, each of which is loaded or started once.

    Use it as a context manager: the processes end with the block.
    """

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], TrainedModel] = {}  # by SHA-256 and device
        self._pools: dict[tuple[float, int, str, bool], DetectorPool] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def load(self, folder: Path, device: torch.device) -> TrainedModel:
        """Load a model, or return it if it is loaded and its file has not changed.

        Args:
            folder: The model's folder or file.
            device: Where the network runs.

        Raises:
            InputError: If the model's file cannot be read.
            ModelError: If the model is missing or cannot be read.
        """
        path = modelfile.file_of(folder)
        if not path.is_file():
            return modelfile.load(folder, device)  # raises the error that says what is missing
        key = (sha256_of(path), str(device))
        if key not in self._models:
            if len(self._models) == MAX_MODELS:
                del self._models[next(iter(self._models))]
            self._models[key] = load_model(folder, device)
        return self._models[key]

    def pool(self, config: ConvertConfig, workers: int) -> DetectorPool:
        """Return the processes that detect faces with these settings.

        Args:
            config: Settings.
            workers: Number of processes; see :class:`DetectorPool`.
        """
        key = (config.min_score, workers, config.landmarks, config.cluster)
        if key not in self._pools:
            self._pools[key] = self._stack.enter_context(DetectorPool(*key))
        return self._pools[key]


def load_model(folder: Path, device: torch.device) -> TrainedModel:
    """Load a model to swap faces with, and warn if it was hardly trained.

    Args:
        folder: The model's folder or file.
        device: Where the network runs.

    Raises:
        ModelError: See :func:`modelfile.load`.
    """
    trained = modelfile.load(folder, device)
    if 0 < trained.step < modelfile.FEW_STEPS:  # 0: an imported model
        log.warning(
            "%s was trained for only %s, so its faces will be blurs: train it for longer first",
            folder, counted(trained.step, "step"),
        )  # fmt: skip
    return trained
