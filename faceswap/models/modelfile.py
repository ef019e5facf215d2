"""Read and write the model file: everything that conversion needs, as safetensors.

Loading it runs no code from the file. The header holds the architecture and the training metadata.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize

from faceswap.arrays import Embedding
from faceswap.config import read_json
from faceswap.errors import FaceswapError, ModelError
from faceswap.files import parse_json, write_bytes
from faceswap.models import exemplars as photos
from faceswap.models.architectures import ModelConfig
from faceswap.models.autoencoder import Autoencoder, build, with_statistics
from faceswap.models.exemplars import Exemplars
from faceswap.models.refiner import Refiner, build_refiners, tensors_of
from faceswap.provenance.consent import Notes, in_words, note_on, read_notes
from faceswap.types import Identity

FORMAT, VERSION = "faceswap-model", 3  # version 1 had no refiners, version 2 other ones
REFINED_SINCE = 3  # refiners of earlier versions are left out
FEW_STEPS = 300  # training steps below which a face is only a blur
MODEL_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A network and the training metadata that conversion needs.

    Attributes:
        network: The network with its weights.
        names: Names of identities a and b.
        color_shift: Mean colour of b's faces minus that of a's, RGB in [0, 1]. Training adds it to
            a's faces, so conversion must add it too.
        step: Number of training steps done.
        held_out: Keys of the faces that were held out from training, by identity.
        refiners: Sharpens the decoded faces of each identity; empty if the model has none.
        exemplars: Photos of each identity whose detail the refiners use; may be empty.
        left_out: Keys of the faces that resemble the held-out ones too much to train on.
        centroids: Mean face embedding (128,) by identity; empty if unknown.
        consent: Consent note by identity; an empty text if not stated.
        weights: Names of the pretrained weights behind the facesets and the training.
    """

    network: Autoencoder
    names: tuple[str, str]
    color_shift: tuple[float, float, float]
    step: int
    held_out: dict[Identity, list[str]] = field(default_factory=lambda: {"a": [], "b": []})
    centroids: dict[Identity, Embedding] = field(default_factory=dict)
    consent: Notes = field(default_factory=lambda: {"a": "", "b": ""})
    left_out: dict[Identity, list[str]] = field(default_factory=lambda: {"a": [], "b": []})
    refiners: dict[Identity, Refiner] = field(default_factory=dict)
    exemplars: dict[Identity, Exemplars] = field(default_factory=dict)
    weights: tuple[str, ...] = ()


def save(path: Path, trained: TrainedModel) -> None:
    """Write a model file atomically.

    Raises:
        OutputError: If the file cannot be written.
    """
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "model": json.dumps(trained.network.config.to_dict()),
        "names": json.dumps(trained.names),
        "color_shift": json.dumps(trained.color_shift),
        "step": str(trained.step),
        "held_out": json.dumps(trained.held_out),
        "left_out": json.dumps(trained.left_out),
        "centroids": json.dumps({key: c.tolist() for key, c in trained.centroids.items()}),
        "consent": json.dumps(trained.consent),
        "weights": json.dumps(trained.weights),
    }
    for refiner in trained.refiners.values():  # both have the same shape
        header["refiner"] = json.dumps(refiner.config.to_dict())
    state = trained.network.state_dict() | tensors_of(trained.refiners)
    for key, exemplars in trained.exemplars.items():
        tensors = photos.to_tensors(exemplars)
        state |= {f"exemplars.{key}.{name}": tensor for name, tensor in tensors.items()}
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    write_bytes(path, serialize(tensors, metadata=header))


def file_of(folder: Path) -> Path:
    """Return the file of a model, given its folder or the file itself."""
    return folder if folder.is_file() else folder / MODEL_FILE


def load(folder: Path, device: torch.device | None = None) -> TrainedModel:
    """Load a model from its folder or directly from the model file.

    Args:
        folder: The model's folder or the model file.
        device: Where to put the network, which is in evaluation mode; None means the CPU.

    Raises:
        ModelError: If the model is missing, corrupt, not a faceswap model, or of a newer format
            version, or if the plug-in with its architecture cannot be imported.
    """
    path = file_of(folder)
    if not path.is_file():
        missing = "does not exist" if not folder.exists() else f"holds no model ({MODEL_FILE})"
        raise ModelError(f"{folder} {missing}; train one with faceswap train")
    try:
        with safe_open(path, framework="pt") as file:
            trained = _from_header(path, file.metadata() or {})
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable model file: {error}") from error
    state = with_statistics(state, trained.network.config)
    identities: tuple[Identity, ...] = ("a", "b")
    try:
        for identity in identities:
            pictures = take_prefix(state, f"exemplars.{identity}.")
            if pictures:
                trained.exemplars[identity] = photos.from_tensors(pictures)
            if not trained.refiners:  # of a version whose refiners are left out
                take_prefix(state, f"refiner.{identity}.")
        for key, value in state.items():
            if value.dtype != torch.float32 or not value.isfinite().all():
                raise ValueError(f"{key} must contain only finite float32 numbers")
        for identity, refiner in trained.refiners.items():
            weights = take_prefix(state, f"refiner.{identity}.")
            refiner.load_state_dict(weights, assign=True)
            refiner.to(device or torch.device("cpu")).eval()
        trained.network.load_state_dict(state, assign=True)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"{path}: the weights are damaged or do not fit the architecture in the header"
        ) from error
    trained.network.to(device or torch.device("cpu")).eval()
    return trained


def take_prefix(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Remove the tensors whose names begin with a prefix; return them by the rest of the name."""
    names = [name for name in state if name.startswith(prefix)]
    return {name.removeprefix(prefix): state.pop(name) for name in names}


def load_model(path: str | Path) -> TrainedModel:
    """Load a model on the CPU, for code like ``Swapper(load_model("models/x")).swap(image)``.

    Args:
        path: A model folder, or the model file itself.

    Raises:
        ModelError: See :func:`load`.
    """
    return load(Path(path))


def notes_of(path: Path) -> tuple[list[str], tuple[str, ...]]:
    """Read the consent notes from a model file as texts, one per person, and its weights' names.

    Raises:
        ModelError: If the file cannot be read, is not a faceswap model, or has a newer format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            trained = _from_header(path, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable model file: {error}") from error
    notes = in_words(trained.consent).values()
    named = zip(trained.names, notes, strict=True)
    return [note_on(name, note) for name, note in named], trained.weights


def _from_header(path: Path, header: dict[str, str]) -> TrainedModel:
    if header.get("format") != FORMAT:
        raise ModelError(f"{path} is a safetensors file but not a faceswap model")
    version = header.get("version", "")
    if not version.isdecimal() or int(version) > VERSION:
        raise ModelError(
            f"{path} has format version {version or 'unknown'}, but this version of faceswap reads "
            f"only up to {VERSION}: update faceswap"
        )
    try:
        config = ModelConfig.from_dict(read_json(header["model"]))
        names, shift = parse_json(header["names"]), parse_json(header["color_shift"])
        with torch.device("meta"):  # allocate no memory: a forged header can describe terabytes
            network = build(config)
            known = int(version) >= REFINED_SINCE and "refiner" in header
            refiners = build_refiners(read_json(header["refiner"]) if known else None)
        if len(names) != 2 or len(shift) != 3:
            raise ValueError("there must be two names and three colour values")
        held_out = parse_json(header.get("held_out", '{"a": [], "b": []}'))
        left_out = parse_json(header.get("left_out", '{"a": [], "b": []}'))
        return TrainedModel(
            network,
            (str(names[0]), str(names[1])),
            (float(shift[0]), float(shift[1]), float(shift[2])),
            int(header["step"]),
            {"a": [str(key) for key in held_out["a"]], "b": [str(key) for key in held_out["b"]]},
            read_centroids(parse_json(header.get("centroids", "{}"))),
            read_notes(parse_json(header.get("consent", "{}"))),
            {"a": [str(key) for key in left_out["a"]], "b": [str(key) for key in left_out["b"]]},
            refiners,
            weights=tuple(map(str, parse_json(header.get("weights", "[]")))),
        )
    except (KeyError, TypeError, ValueError, FaceswapError) as error:
        raise ModelError(f"{path} has an invalid header: {error}") from error


def read_centroids(values: Any) -> dict[Identity, Embedding]:
    """Validate the mean embeddings by identity; return an empty dict if there are none.

    Raises:
        KeyError: If only one identity has a centroid.
        TypeError, ValueError: If a centroid is not 128 finite numbers.
    """
    identities: tuple[Identity, ...] = ("a", "b") if values else ()
    with np.errstate(over="ignore"):  # overflow gives inf, which is refused below
        centroids = {key: np.asarray(values[key], np.float32) for key in identities}
    for key, centroid in centroids.items():
        if centroid.shape != (128,) or not np.isfinite(centroid).all():
            raise ValueError(f"the centroid of {key} must be 128 finite numbers")
    return centroids


def named(path: Path, base: Path = Path()) -> Path:
    """Return the folder or file of a model.

    Args:
        path: Its path, or a bare name, which means ``models/<name>`` unless ``<name>`` exists.
        base: The folder in which relative paths start.
    """
    own = base / path
    if path.name != str(path) or own.exists():
        return own
    return base / "models" / path if (base / "models" / path).exists() else own


def newest(models: Path) -> Path:
    """Find the folder of the most recently written model among the subfolders of ``models``.

    Raises:
        ModelError: If none of them holds a model.
    """
    found = list(models.glob(f"*/{MODEL_FILE}"))
    if not found:
        raise ModelError(f"no model in {models}; train one with faceswap train or pass --model DIR")
    return max(found, key=lambda path: path.stat().st_mtime_ns).parent
