"""Import classic checkpoints (autoencoder.t7) as faceswap models."""

import io
import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from faceswap.errors import InputError, ModelError, OutputError
from faceswap.files import reason
from faceswap.models.architectures import PRESETS, ModelConfig
from faceswap.models.autoencoder import build, with_statistics
from faceswap.models.modelfile import MODEL_FILE, TrainedModel, save


def import_checkpoint(source: Path, folder: Path) -> TrainedModel:
    """Convert a classic checkpoint, {"state": state_dict, "epoch": n}, to a model folder.

    The classic network works in BGR with values 0..1, and the model file records that. The
    checkpoint is read without executing any pickled code.

    Raises:
        InputError: If the file is missing.
        ModelError: If it is corrupt, unsafe to load, or not a classic checkpoint.
        OutputError: If the folder is not empty or cannot be written.
    """
    if not source.is_file():
        raise InputError(f"{source} does not exist; pass a checkpoint such as autoencoder.t7")
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder} is not empty; pass a new folder to avoid overwriting a model")
    if not _is_safe_to_load(source):
        raise ModelError(
            f"{source} cannot be read as a checkpoint of plain tensors: it is corrupt or unsafe"
        )
    try:
        content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many exception types for a foreign file
        raise ModelError(
            f"{source} cannot be read as a checkpoint of plain tensors: {reason(error)}"
        ) from error
    state = content.get("state") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ModelError(f'{source} is not a classic checkpoint: it has no tensors under "state"')
    file_size = source.stat().st_size
    for key, value in state.items():  # a strided view can claim far more than the file holds
        if not isinstance(key, str) or value.numel() * value.element_size() > file_size:
            raise ModelError(
                f"{source}: tensor {key!r} is larger than the file, or its name is not text"
            )
    config = ModelConfig.from_dict(PRESETS["original"].to_dict() | {"channel_order": "bgr"})
    with torch.device("meta"):  # allocate no memory before the shapes are checked
        network = build(config)
    weights = {_from_classic(key): value.float() for key, value in state.items()}
    renamed = with_statistics(weights, config)
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


def _is_safe_to_load(source: Path) -> bool:
    """Return whether torch can load a file safely.

    The file may be a zip archive, or five pickles followed by raw data.
    """
    with source.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
        file.seek(0)
        return is_whole_archive(source) if zipped else is_tame(file, PICKLES)


PICKLES = 5  # magic number, version, system, content, keys: torch's format before 1.6

CLASSIC_KEYS = {  # module in the classic checkpoint -> module in Autoencoder
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
    """Describe in one line why a state does not fit the network."""
    ours = network.state_dict()
    missing, unknown = sorted(set(ours) - set(state)), sorted(set(state) - set(ours))
    if missing or unknown:
        first = [*missing, *unknown][0]
        return f"missing tensors: {len(missing)}, unknown: {len(unknown)}, the first is {first}"
    key = next(k for k in ours if ours[k].shape != state[k].shape)
    return f"{key} needs shape {tuple(ours[key].shape)}, got {tuple(state[key].shape)}"


MAX_PICKLED_STRING = 4096  # bytes; torch pickles only short names


def is_whole_archive(path: Path) -> bool:
    """Return whether a :func:`torch.save` archive is safe to load.

    The archive must be uncompressed, its CRCs must be valid (torch does not check them), and its
    pickles must pass :func:`is_tame`.

    Raises:
        OSError: If the file cannot be opened.
    """
    with path.open("rb") as file:
        try:
            archive = zipfile.ZipFile(file)
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.filelist)
            whole = stored and archive.testzip() is None
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return whole and all(is_tame(io.BytesIO(archive.read(name))) for name in pickles)
        except Exception:  # zipfile raises many exception types for a file that is not a zip
            return False


def is_tame(file: IO[bytes], count: int = 1) -> bool:
    """Return whether pickles are valid and hold only short strings.

    Torch can spend minutes on long ones.

    Args:
        file: Positioned at the first pickle; nothing is unpickled.
        count: Number of consecutive pickles.
    """
    try:
        return all(
            not isinstance(argument, str | bytes) or len(argument) <= MAX_PICKLED_STRING
            for _ in range(count)
            for _, argument, _ in pickletools.genops(file)
        )
    except Exception:  # pickletools raises many exception types for other data
        return False
