"""Save and resume a training run.

``resume.safetensors`` holds the complete training state; ``model.safetensors`` holds only what
conversion needs. Each is replaced atomically, so a kill at any moment leaves a complete state to
resume from. ``snapshots/`` holds earlier states and ``best.safetensors`` the model with the best
held-out score.

Earlier versions saved ``resume.pt``, a pickle of plain tensors. It can still be resumed from; the
first save replaces it.
"""

import json
import logging
import math
import os
import re
import shutil
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faceswap.arrays import Embedding
from faceswap.errors import FaceswapError, ModelError
from faceswap.files import (
    atomic_write,
    make_folder,
    parse_json,
    read_lines,
    reason,
    write_bytes,
    writing,
)
from faceswap.models import autoencoder, classic, modelfile, tensorfile
from faceswap.models.architectures import ModelConfig
from faceswap.models.autoencoder import Autoencoder
from faceswap.models.exemplars import Exemplars
from faceswap.models.modelfile import TrainedModel
from faceswap.models.refiner import Refiner, build_refiners, tensors_of
from faceswap.provenance.consent import Notes, read_notes
from faceswap.training import companions
from faceswap.training.companions import Companion
from faceswap.training.optimizer import Optimizer
from faceswap.types import Identity

log = logging.getLogger(__name__)


RESUME_FILE, FORMAT, VERSION = "resume.safetensors", "faceswap-training", 3
REFINED_SINCE = 3  # refiners of states before this version are left out
OLD_RESUME_FILE, OLD_VERSION = "resume.pt", 1
SNAPSHOTS, BEST_FILE = "snapshots", "best.safetensors"
METRICS_FILE = "metrics.jsonl"

Faces = dict[Identity, Tensor]  # crops (N, 3, S, S) uint8, or (N, 4, S, S) with masks
Weights = dict[str, Tensor]  # a state dict
HeldOut = dict[Identity, list[str]]  # keys of the faces that training never uses


@dataclass(slots=True)
class TrainingState:
    """The live objects and numbers of a training run.

    Attributes:
        network: The network in training.
        optimizer: Updates the network's weights.
        generator: Draws the face order, the augmentation and the warp.
        names: Names of identities a and b.
        color_shift: Mean colour of b's faces minus that of a's, without backgrounds, RGB in [0, 1].
        held_out: Keys of the faces that training does not see.
        left_out: Keys of the faces that are neither trained on nor measured.
        weights: Names of the pretrained weights behind the facesets and the training.
        refiners: Sharpens the decoded faces of each identity; empty before the first save.
        exemplars: Photos of each identity whose detail the refiners use; may be empty. They are
            chosen again when training is resumed.
        step: Steps done.
        seconds: Training time so far, over all runs.
        orders: By identity, the indices of the faces still to come in this pass.
        lr_scale: Factor on all learning rates, reduced by a roll-back.
        scores: Held-out scores, oldest first.
        average: Exponential moving average of the network's weights, if the recipe has one.
        centroids: By identity, the mean face embedding.
        consent: By identity, the consent note.
        companions: Further people who train the encoder.
    """

    network: Autoencoder
    optimizer: Optimizer
    generator: torch.Generator
    names: tuple[str, str]
    color_shift: tuple[float, float, float]
    held_out: HeldOut = field(default_factory=lambda: {"a": [], "b": []})
    step: int = 0
    seconds: float = 0.0
    orders: dict[str, Tensor] = field(default_factory=dict)
    lr_scale: float = 1.0
    scores: list[float] = field(default_factory=list)
    average: Autoencoder | None = None
    centroids: dict[Identity, Embedding] = field(default_factory=dict)
    consent: Notes = field(default_factory=lambda: {"a": "", "b": ""})
    left_out: HeldOut = field(default_factory=lambda: {"a": [], "b": []})
    weights: tuple[str, ...] = ()
    refiners: dict[Identity, Refiner] = field(default_factory=dict)
    exemplars: dict[Identity, Exemplars] = field(default_factory=dict)
    companions: list[Companion] = field(default_factory=list)

    @property
    def ema_or_model(self) -> Autoencoder:
        """The network to measure, preview and convert with: the average if there is one."""
        return self.average or self.network

    @property
    def score(self) -> float | None:
        """The latest held-out score; None before the first measurement."""
        return self.scores[-1] if self.scores else None


@dataclass(slots=True)
class ResumeState:
    """The stored form of a training state; see :class:`TrainingState` for the fields.

    Attributes:
        model: Architecture of the network.
        held_out: Empty if the run must choose the held-out faces again.
        average: None if the recipe has no average.
        optimizer: State dict of each torch optimizer, by name. None for a model without a resume
            state, such as an imported one: training then starts with a new optimizer, generator
            and face order.
        companions: Weights of the decoders of further people.
    """

    model: ModelConfig
    names: tuple[str, str]
    color_shift: tuple[float, float, float]
    held_out: HeldOut
    step: int
    seconds: float
    network: Weights
    centroids: dict[Identity, Embedding]
    consent: Notes
    average: Weights | None = None
    optimizer: dict[str, dict[str, Any]] | None = None
    generator: Tensor | None = None
    orders: dict[str, Tensor] = field(default_factory=dict)
    lr_scale: float = 1.0
    scores: list[float] = field(default_factory=list)
    left_out: HeldOut = field(default_factory=lambda: {"a": [], "b": []})
    refiners: dict[Identity, Refiner] = field(default_factory=dict)
    companions: Weights = field(default_factory=dict)


def save(run: TrainingState, folder: Path, keep: int = 1, model: bool = True) -> None:
    """Save the resume state, then the model, and the best model if this one has the best score.

    Args:
        run: The run to save.
        folder: The run folder.
        keep: Number of resume states to keep, counting the new one.
        model: Whether to write the models; False only saves the resume state.

    Raises:
        OutputError: If a file cannot be written. Its previous version stays in place.
    """
    _keep_snapshots(folder, keep)
    _write(folder / RESUME_FILE, _state_of(run))
    old = folder / OLD_RESUME_FILE
    with writing(old):
        old.unlink(missing_ok=True)
    if not model:
        return
    trained = TrainedModel(
        run.ema_or_model, run.names, run.color_shift, run.step, run.held_out, run.centroids,
        run.consent, run.left_out, run.refiners, run.exemplars, run.weights,
    )  # fmt: skip
    modelfile.save(folder / modelfile.MODEL_FILE, trained)
    if run.scores and run.scores[-1] >= max(run.scores):
        modelfile.save(folder / BEST_FILE, trained)


def note_consent(run: TrainingState, folder: Path, keep: int) -> None:
    """Save the run, whose consent notes have changed, and write them to the models as well.

    Snapshots keep the earlier notes.

    Raises:
        OutputError: If a file cannot be written.
        ModelError: If a model is damaged.
    """
    save(run, folder, keep, model=False)
    for model in (folder / modelfile.MODEL_FILE, folder / BEST_FILE):
        if model.is_file():
            modelfile.save(model, replace(modelfile.load(model), consent=run.consent))


def has_state(folder: Path) -> bool:
    """Return whether the folder holds a resume state in the current format."""
    return (folder / RESUME_FILE).is_file()


def read_state(folder: Path) -> ResumeState | None:
    """Read the state to resume from; return None if the folder holds neither a state nor a model.

    If the state is damaged, the newest intact snapshot is read instead. If there is only a model,
    such as an imported one, the state consists of its weights and metadata.

    Raises:
        ModelError: If all states, or the model without a state, are damaged; or if one cannot be
            read or was written by a newer version of faceswap.
    """
    saved = [path for path in _resume_files(folder) if path.is_file()]
    if saved:
        state = _newest_intact(saved[0], [*saved, *_snapshots(folder)])
        if state is None:
            raise ModelError(
                f"{saved[0]} is damaged: delete it to continue from {modelfile.MODEL_FILE}, or "
                "pass --restart to start over"
            )
        return state
    if not (folder / modelfile.MODEL_FILE).is_file():
        return None
    try:
        trained = modelfile.load(folder)
    except ModelError:
        state = _newest_intact(folder / modelfile.MODEL_FILE, _snapshots(folder))
        if state is None:
            raise
        return state
    return ResumeState(
        trained.network.config, trained.names, trained.color_shift, trained.held_out,
        trained.step, 0.0, trained.network.state_dict(), trained.centroids, trained.consent,
        left_out=trained.left_out, refiners=trained.refiners,
    )  # fmt: skip


def restore(run: TrainingState, state: ResumeState, folder: Path) -> None:
    """Load a state from :func:`read_state` into a run.

    Raises:
        ModelError: If the state does not fit the run's network or optimizer.
    """
    try:
        weights = autoencoder.with_statistics(state.network, state.model)
        run.network.load_state_dict(weights)
        if run.average:
            run.average.load_state_dict(weights | (state.average or {}))
        run.step, run.seconds, run.color_shift = state.step, state.seconds, state.color_shift
        device = next(run.network.parameters()).device
        run.refiners = {key: refiner.to(device) for key, refiner in state.refiners.items()}
        if state.centroids:  # otherwise data.prepare has just measured them
            run.centroids = state.centroids
        if state.optimizer is not None and state.generator is not None:
            run.optimizer.load_state_dict(state.optimizer)
            run.generator.set_state(state.generator)
            run.orders, run.scores = dict(state.orders), list(state.scores)
            run.lr_scale = state.lr_scale
        for person in run.companions:
            if weights := _with_prefix(state.companions, f"{person.name}/"):
                person.decoder.load_state_dict(weights)
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"the resume state in {folder} does not fit the model: {reason(error)}; "
            "pass --restart to start over"
        ) from error


def discard(folder: Path) -> None:
    """Delete previews, snapshots and the best model, which a new run must not inherit.

    Raises:
        OutputError: If a file cannot be deleted.
    """
    with writing(folder):
        for old in [*(folder / "previews").glob("step-*.png"), *_snapshots(folder)]:
            old.unlink()
        (folder / BEST_FILE).unlink(missing_ok=True)


def _resume_files(folder: Path) -> list[Path]:
    """Return the paths that a resume state can have, in order of preference."""
    return [folder / RESUME_FILE, folder / OLD_RESUME_FILE]


def _snapshots(folder: Path) -> list[Path]:
    """List the earlier resume states of either format, newest first."""
    numbered = [
        (int(match[1]), path)
        for path in (folder / SNAPSHOTS).glob("resume-*")
        if (match := re.fullmatch(r"resume-(\d+)\.(?:safetensors|pt)", path.name))
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def _keep_snapshots(folder: Path, keep: int) -> None:
    """Hard-link the current resume state into ``snapshots/`` and delete the oldest ones there.

    The newest ``keep`` - 1 snapshots remain. If that is none, no link is made.
    """
    current = next((path for path in _resume_files(folder) if path.is_file()), None)
    if keep > 1 and current:
        newest = next(iter(_snapshots(folder)), None)
        number = int(newest.stem.split("-")[1]) + 1 if newest else 1
        snapshot = folder / SNAPSHOTS / f"resume-{number:06d}{current.suffix}"
        make_folder(snapshot.parent)
        with writing(snapshot):
            try:
                os.link(current, snapshot)
            except OSError:  # a file system without hard links
                with atomic_write(snapshot) as temporary:
                    shutil.copyfile(current, temporary)
    with writing(folder / SNAPSHOTS):
        for old in _snapshots(folder)[max(keep - 1, 0) :]:
            old.unlink()


def _newest_intact(expected: Path, candidates: list[Path]) -> ResumeState | None:
    """Read the first intact candidate, or return None; warn if it is not the expected file."""
    for path in candidates:
        state = _read_old(path) if path.suffix == ".pt" else _read(path)
        if state is not None:
            if path != expected:
                log.warning("%s is damaged: resuming from step %d (%s)", expected, state.step,
                            path.name)  # fmt: skip
            return state
    return None


def _state_of(run: TrainingState) -> ResumeState:
    """Return the state of a run; its tensors share memory with the run."""
    return ResumeState(
        run.network.config, run.names, run.color_shift, run.held_out, run.step, run.seconds,
        run.network.state_dict(), run.centroids, run.consent,
        average=run.average.state_dict() if run.average else None,
        optimizer=run.optimizer.state_dict(), generator=run.generator.get_state(),
        orders=run.orders, lr_scale=run.lr_scale, scores=run.scores, left_out=run.left_out,
        refiners=run.refiners, companions=companions.weights_of(run.companions),
    )  # fmt: skip


def _write(path: Path, state: ResumeState) -> None:
    """Write a state to a file.

    Raises:
        OutputError: If the file cannot be written.
    """
    optimizer, generator = state.optimizer, state.generator
    assert optimizer is not None, "a state is only written for a run, which has an optimizer"
    assert generator is not None, "a state is only written for a run, which has a generator"
    header = {
        "model": state.model.to_dict(),
        "names": state.names,
        "color_shift": state.color_shift,
        "held_out": state.held_out,
        "left_out": state.left_out,
        "step": state.step,
        "seconds": state.seconds,
        "lr_scale": state.lr_scale,
        "scores": [score for score in state.scores if math.isfinite(score)],  # JSON has no NaN
        "centroids": {key: centroid.tolist() for key, centroid in state.centroids.items()},
        "consent": state.consent,
        "optimizer": {name: values["param_groups"] for name, values in optimizer.items()},
    }
    tensors = _flatten(state.network, state.average, optimizer, generator, state.orders)
    for refiner in state.refiners.values():  # both have the same shape
        header["refiner"] = refiner.config.to_dict()
    tensors |= tensors_of(state.refiners)
    tensors |= {f"also.{key}": tensor for key, tensor in state.companions.items()}
    tensorfile.write(path, FORMAT, VERSION, header, tensors)


def _flatten(
    network: Weights, average: Weights | None, optimizer: dict[str, dict[str, Any]],
    generator: Tensor, orders: dict[str, Tensor],
) -> dict[str, Tensor]:  # fmt: skip
    """Collect all tensors of a state under names such as "optimizer.adamw.3.exp_avg"."""
    return {
        **{f"network.{key}": tensor for key, tensor in network.items()},
        **{f"average.{key}": tensor for key, tensor in (average or {}).items()},
        **{
            f"optimizer.{name}.{index}.{key}": tensor
            for name, values in optimizer.items()
            for index, entry in values["state"].items()
            for key, tensor in entry.items()
        },
        **{f"orders.{key}": tensor for key, tensor in orders.items()},
        "generator": generator,
    }


def _read(path: Path) -> ResumeState | None:
    """Read a resume state; None if the file is damaged.

    Raises:
        ModelError: If the file cannot be read, or a newer version of faceswap wrote it.
    """
    try:
        header, tensors = tensorfile.read(path, FORMAT, VERSION)
    except tensorfile.DamagedFileError:
        return None
    try:
        return _parse(header, tensors)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
            FaceswapError):  # fmt: skip
        return None


def _read_old(path: Path) -> ResumeState | None:
    """Read a ``resume.pt`` without executing pickled code; None if the file is damaged.

    Raises:
        ModelError: If the file cannot be read, or a newer version of faceswap wrote it.
    """
    try:
        if not classic.is_whole_archive(path):
            return None
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = int(state["version"])
        if found <= OLD_VERSION:
            return _parse_old(state, path.stat().st_size)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}") from error
    except Exception:  # torch raises many exception types for a foreign file
        return None
    raise ModelError(
        f"{path} has format version {found}, but this version of faceswap reads only up to "
        f"{OLD_VERSION}: update faceswap"
    )


def _parse_old(state: dict[str, Any], file_size: int) -> ResumeState:
    """Check the content of a ``resume.pt`` and return its state.

    Raises:
        Exception: Of any type, if the content is not what training wrote.
    """
    header = {key: state[key] for key in ("model", "names", "color_shift", "step", "seconds")}
    for key in ("held_out", "scores", "centroids", "consent"):
        header[key] = state.get(key)
    header["lr_scale"] = state.get("rate", 1.0)
    header["optimizer"] = {
        name: values["param_groups"] for name, values in state["optimizer"].items()
    }
    tensors = _flatten(
        state["network"], state.get("average"), state["optimizer"], state["generator"],
        state["orders"],
    )  # fmt: skip
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > file_size:
        raise ValueError("a strided view claims more than the file holds")
    return _parse(header, tensors)


def _refiners(shape: Any, tensors: dict[str, Tensor]) -> dict[Identity, Refiner]:
    """Build the refiners of a state and load their weights; none without a shape.

    Raises:
        Exception: Of many types, if the weights do not fit.
    """
    refiners = build_refiners(shape)
    for key, refiner in refiners.items():
        weights = _with_prefix(tensors, f"refiner.{key}.")
        _check_weights(weights, refiner.state_dict())
        refiner.load_state_dict(weights)
    return refiners


def _parse(header: dict[str, Any], tensors: dict[str, Tensor]) -> ResumeState:
    """Check the header and the tensors of a resume state and return the state.

    Raises:
        Exception: Of any type, if they are not what training writes.
    """
    model = ModelConfig.from_dict(header["model"])
    network, average = _with_prefix(tensors, "network."), _with_prefix(tensors, "average.")
    with torch.device("meta"):  # allocate no memory: a forged header can describe terabytes
        expected = autoencoder.build(model).state_dict()
    _check_weights(network, expected)
    if average:
        _check_weights(average, expected)
    orders = _with_prefix(tensors, "orders.")
    for order in orders.values():
        if order.dtype != torch.int64 or order.dim() != 1 or (order < 0).any():
            raise ValueError("a face order must be a list of indices")
    optimizer: dict[str, dict[str, Any]] = {
        name: {"state": {}, "param_groups": groups} for name, groups in header["optimizer"].items()
    }
    for key, tensor in _with_prefix(tensors, "optimizer.").items():
        name, index, entry = key.split(".")
        optimizer[name]["state"].setdefault(int(index), {})[entry] = tensor
    first, second = _strings(header["names"])
    red, green, blue = (_number(value, -1) for value in header["color_shift"])
    refined = header.get("version", 0) >= REFINED_SINCE
    held_out, left_out = header["held_out"], header.get("left_out") or {"a": [], "b": []}
    return ResumeState(
        model,
        (first, second),
        (red, green, blue),
        {"a": _strings(held_out["a"]), "b": _strings(held_out["b"])} if held_out else {},
        int(_number(header["step"])),
        _number(header["seconds"]),
        network,
        modelfile.read_centroids(header["centroids"]),
        read_notes(header["consent"] or {}),
        average or None,
        optimizer,
        tensors["generator"],
        orders,
        _number(header["lr_scale"]),
        [_number(score, -1) for score in header["scores"] or ()],
        {"a": _strings(left_out["a"]), "b": _strings(left_out["b"])},
        _refiners(header.get("refiner") if refined else None, tensors),
        _with_prefix(tensors, "also."),
    )


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _check_weights(weights: Weights, expected: Weights) -> None:
    found = {(key, value.shape, value.dtype) for key, value in weights.items()}
    missing = {(key, value.shape, value.dtype) for key, value in expected.items()} - found
    if len(found) + len(missing) != len(expected) or {key for key, *_ in missing} - {
        *autoencoder.STATISTICS
    }:
        raise ValueError("the weights do not fit the architecture in the header")


def _number(value: Any, low: float = 0) -> float:
    number = float(value)
    if not low <= number < math.inf:
        raise ValueError(f"{number} is out of range")
    return number


def _strings(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("names must be a list of strings")
    return values


def write_config(
    folder: Path, settings: dict[str, Any], recipe: dict[str, Any], names: tuple[str, str]
) -> None:
    """Write all settings, the recipe and the versions to ``config.json``, which ``--config`` reads.

    Raises:
        OutputError: If the file cannot be written.
    """
    versions = {name: version(name) for name in ("faceswap", "torch")}
    record = {"train": settings, "names": names, "recipe": recipe, "versions": versions}
    write_bytes(folder / "config.json", (json.dumps(record, indent=1) + "\n").encode())


def last_losses(folder: Path) -> tuple[float, float]:
    """Read the last losses (a, b) from ``metrics.jsonl``; both are NaN if there are none."""
    path = folder / METRICS_FILE
    for line in reversed(read_lines(path) if path.is_file() else []):
        try:
            record = parse_json(line)
            return float(record["loss_a"]), float(record["loss_b"])
        except (KeyError, TypeError, ValueError):  # held-out scores, or a damaged line
            continue
    return math.nan, math.nan


def trim_metrics(folder: Path, step: int) -> None:
    """Drop the metrics of steps after ``step``, which will be trained again; step 0 drops all.

    Raises:
        OutputError: If the file cannot be written.
    """
    path = folder / METRICS_FILE
    if path.is_file():
        lines = [line for line in read_lines(path) if _step_of(line) <= step]
        write_bytes(path, "".join(f"{line}\n" for line in lines if step).encode())


def _step_of(line: str) -> float:
    """Return the step of a line of metrics; infinity for a damaged line, so that it is dropped."""
    try:
        return float(parse_json(line)["step"])
    except (KeyError, TypeError, ValueError):
        return math.inf
