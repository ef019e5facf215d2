"""Classic checkpoints (autoencoder.t7) become models of this program."""

import io
import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from faceswap.errors import InputError, ModelError, OutputError
from faceswap.models.architectures import PRESETS, ModelConfig
from faceswap.models.autoencoder import build
from faceswap.models.modelfile import MODEL_FILE, TrainedModel, save


def import_checkpoint(source: Path, folder: Path) -> TrainedModel:
    """Turn a classic checkpoint, {"state": state_dict, "epoch": n}, into a model folder.

    That net worked in BGR with values 0..1; the model file says so. Read without unpickling code.

    Raises:
        InputError: If the file is missing.
        ModelError: If it is not such a checkpoint.
        OutputError: If the folder is not empty, or the disk refuses.
    """
    if not source.is_file():
        raise InputError(f"{source} does not exist; give a checkpoint such as autoencoder.t7")
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty: give a new folder, so that no model is lost")
    if not _is_tame(source):
        raise ModelError(f"{source} cannot be read as a checkpoint of plain tensors: it is damaged")
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{source} cannot be read as a checkpoint of plain tensors: {words}"
        ) from error
    state = content.get("state") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f'{source} is not a classic checkpoint: it needs {{"state": tensors}}')
    held = source.stat().st_size
    for key, value in state.items():  # views can make a little storage look vast
        if not isinstance(key, str) or value.numel() * value.element_size() > held:
            raise ModelError(f"{source}: the tensor {key!r} is not one of this checkpoint")
    config = ModelConfig.from_dict(PRESETS["original"].to_dict() | {"channel_order": "bgr"})
    with torch.device("meta"):  # no memory before it is known that all fits
        network = build(config)
    renamed = {_from_classic(key): value.float() for key, value in state.items()}
    renamed["means"] = torch.zeros(2, config.latent)
    try:
        network.load_state_dict(renamed, assign=True)
    except RuntimeError as error:
        raise ModelError(f"{source}: {_first_difference(network, renamed)}") from error
    epoch = content.get("epoch", 0)
    trained = TrainedModel(
        network, ("a", "b"), (0.0, 0.0, 0.0), epoch if isinstance(epoch, int) else 0
    )
    save(folder / MODEL_FILE, trained)
    return trained


def _is_tame(source: Path) -> bool:
    """Whether torch can be trusted with a file: an archive, or five pickles and then numbers."""
    with source.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        return is_whole_archive(source) if zipped else is_tame(file, PICKLES)


PICKLES = 5  # magic number, version, machine, content, keys: how torch saved before 1.6

CLASSIC_KEYS = {  # module of the classic checkpoint -> ours
    **{f"encoder.{i}.conv2": f"down.{i}.conv" for i in range(4)},
    "encoder.5": "to_latent",
    "encoder.6": "from_latent",
    "encoder.8.conv2_": "up.conv",
    **{f"decoder_{s}.{i}.conv2_": f"decoders.{s.lower()}.{i}.conv" for s in "AB" for i in range(3)},
    **{f"decoder_{side}.3": f"decoders.{side.lower()}.3" for side in "AB"},
}


def _from_classic(key: str) -> str:
    module, _, kind = key.rpartition(".")
    return f"{CLASSIC_KEYS.get(module, module)}.{kind}"


def _first_difference(network: nn.Module, state: dict[str, Any]) -> str:
    """Why a state does not fit, in one line."""
    ours = network.state_dict()
    missing, surplus = sorted(set(ours) - set(state)), sorted(set(state) - set(ours))
    if missing or surplus:
        first = [*missing, *surplus][0]
        return f"{len(missing)} tensors are missing, {len(surplus)} are unknown: {first}"
    key = next(k for k in ours if ours[k].shape != state[k].shape)
    return f"{key} needs shape {tuple(ours[key].shape)}, got {tuple(state[key].shape)}"


MAX_PICKLED_STRING = 4096  # bytes of a name in a file of torch


def is_whole_archive(path: Path) -> bool:
    """Whether a file of :func:`torch.save` is as it was written: torch does not check its sums.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.filelist)
            whole = stored and archive.testzip() is None
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return whole and all(is_tame(io.BytesIO(archive.read(name))) for name in pickles)
        except Exception:  # zipfile raises many kinds for a file that is none
            return False


def is_tame(file: IO[bytes], count: int = 1) -> bool:
    """Whether pickles hold short words only: torch searches long ones for minutes.

    Args:
        file: Where they begin; nothing is unpickled.
        count: How many, one after the other.
    """
    try:
        return all(
            not isinstance(argument, str | bytes) or len(argument) <= MAX_PICKLED_STRING
            for _ in range(count)
            for _, argument, _ in pickletools.genops(file)
        )
    except Exception:  # of many kinds, where it is no pickle
        return False
