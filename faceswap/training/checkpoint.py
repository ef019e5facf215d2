"""A training run on disk: what resuming needs, what conversion needs, and the list of losses.

``resume.pt`` holds all that resuming needs, by itself; ``model.safetensors`` all that conversion
needs. Each is replaced in one step, so a kill at any moment leaves a whole state to go on from.
Earlier resume states lie in ``snapshots/``; the model that scored best in ``best.safetensors``.
"""

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faceswap.errors import ModelError, OutputError
from faceswap.files import (
    atomic_write,
    make_folder,
    parse_json,
    read_lines,
    reason,
    write_bytes,
    writing,
)
from faceswap.models import autoencoder, classic, modelfile
from faceswap.models.architectures import ModelConfig
from faceswap.models.autoencoder import Autoencoder
from faceswap.models.modelfile import TrainedModel
from faceswap.provenance.consent import Notes
from faceswap.training.optimizer import Optimizer
from faceswap.types import Embedding, Identity

log = logging.getLogger(__name__)


RESUME_FILE, VERSION = "resume.pt", 1
SNAPSHOTS, BEST_FILE = "snapshots", "best.safetensors"
METRICS_FILE = "metrics.jsonl"

Faces = dict[Identity, Tensor]  # crops (N, 3, S, S) uint8, perhaps with masks as a fourth channel


@dataclass(slots=True)
class TrainingState:
    """The state that training changes, and that ``resume.pt`` holds.

    ``average`` is the running mean of the network's weights, if the recipe wants one.
    """

    network: Autoencoder
    optimizer: Optimizer
    generator: torch.Generator
    names: tuple[str, str]
    color_shift: tuple[float, float, float]
    held_out: dict[Identity, list[str]] = field(default_factory=lambda: {"a": [], "b": []})
    step: int = 0
    seconds: float = 0.0
    orders: dict[str, Tensor] = field(default_factory=dict)  # faces still to come in this round
    lr_scale: float = 1.0  # share of the learning rate; lower after a roll-back
    scores: list[float] = field(default_factory=list)  # held-out scores, oldest first
    average: Autoencoder | None = None
    centroids: dict[Identity, Embedding] = field(default_factory=dict)
    consent: Notes = field(default_factory=lambda: {"a": "", "b": ""})

    @property
    def ema_or_model(self) -> Autoencoder:
        """The network that is measured, previewed and converted with."""
        return self.average or self.network

    @property
    def score(self) -> float | None:
        """The newest held-out score."""
        return self.scores[-1] if self.scores else None


def save(run: TrainingState, folder: Path, keep: int = 1) -> None:
    """Write the resume state, then the model; and the best model, if this one scores best.

    Args:
        run: What to save.
        folder: The model's folder.
        keep: Resume states to keep in all; the earlier ones lie in ``snapshots/``.

    Raises:
        OutputError: If the disk refuses; the old files stay.
    """
    state = {
        "version": VERSION,
        "model": {
            k: list(v) if isinstance(v, tuple) else v
            for k, v in run.network.config.to_dict().items()
        },
        "names": list(run.names),
        "color_shift": list(run.color_shift),
        "held_out": run.held_out,
        "step": run.step,
        "seconds": run.seconds,
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "generator": run.generator.get_state(),
        "orders": run.orders,
        "rate": run.lr_scale,
        "scores": run.scores,
        "average": run.average.state_dict() if run.average else None,
        "centroids": {key: centroid.tolist() for key, centroid in run.centroids.items()},
        "consent": run.consent,
    }
    path = folder / RESUME_FILE
    _keep_snapshots(folder, keep)
    with atomic_write(path) as temporary, writing(path):
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
        except RuntimeError as error:  # torch's word for a write that failed
            raise OutputError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
    trained = TrainedModel(
        run.ema_or_model, run.names, run.color_shift, run.step, run.held_out, run.centroids,
        run.consent,
    )  # fmt: skip
    modelfile.save(folder / modelfile.MODEL_FILE, trained)
    if run.scores and run.scores[-1] >= max(run.scores):
        modelfile.save(folder / BEST_FILE, trained)


def note_consent(run: TrainingState, folder: Path, keep: int) -> None:
    """Write what is newly known of consent into all model files of the run.

    Raises:
        OutputError: If the disk refuses.
        ModelError: If the best model is damaged.
    """
    save(run, folder, keep)
    best = folder / BEST_FILE
    if best.is_file():
        modelfile.save(best, replace(modelfile.load(best), consent=run.consent))


def _keep_snapshots(folder: Path, keep: int) -> None:
    """Give the present resume state a second name in ``snapshots/``; drop the oldest there."""
    present, snapshots = folder / RESUME_FILE, folder / SNAPSHOTS
    if keep > 1 and present.is_file():
        newest = max((int(path.stem.split("-")[1]) for path in _snapshots(folder)), default=0)
        copy = snapshots / f"resume-{newest + 1:06d}.pt"
        make_folder(snapshots)
        with writing(copy):
            try:
                os.link(present, copy)
            except OSError:  # a file system without hard links
                with atomic_write(copy) as temporary:
                    shutil.copyfile(present, temporary)
    with writing(snapshots):
        for old in _snapshots(folder)[max(keep - 1, 0) :]:
            old.unlink()


def _snapshots(folder: Path) -> list[Path]:
    """Earlier resume states, the newest first."""
    return sorted((folder / SNAPSHOTS).glob("resume-[0-9]*.pt"), reverse=True)


def discard(folder: Path) -> None:
    """Delete what must not be taken for a new run's: previews, snapshots and the best model."""
    with writing(folder):
        for old in [*(folder / "previews").glob("step-*.png"), *_snapshots(folder)]:
            old.unlink()
        (folder / BEST_FILE).unlink(missing_ok=True)


def read_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """What to resume from: the newest whole resume state; else a model alone, as an imported one.

    Raises:
        ModelError: If all of them are damaged, or one is made by a newer version.
    """
    path = folder / RESUME_FILE
    if path.is_file():
        state = _newest_whole(path, [path, *_snapshots(folder)], device)
        if state is None:
            raise ModelError(
                f"{path} is damaged; --restart begins again, deleting it goes on from the model"
            )
        return state
    if not (folder / modelfile.MODEL_FILE).is_file():
        return None
    try:
        trained = modelfile.load(folder, device)
    except ModelError:
        state = _newest_whole(folder / modelfile.MODEL_FILE, _snapshots(folder), device)
        if state is None:
            raise
        return state
    return {
        "model": trained.network.config.to_dict(),
        "names": list(trained.names),
        "color_shift": list(trained.color_shift),
        "held_out": trained.held_out,
        "step": trained.step,
        "seconds": 0.0,
        "network": trained.network.state_dict(),
        "centroids": trained.centroids,
        "consent": trained.consent,
    }


def _newest_whole(
    wanted: Path, candidates: list[Path], device: torch.device
) -> dict[str, Any] | None:
    """The first of some resume states that is whole, and a warning if it is not ``wanted``."""
    for candidate in candidates:
        state = _load(candidate, device)
        if state is not None:
            if candidate != wanted:
                log.warning("%s is damaged: going on from step %d (%s)", wanted, state["step"],
                            candidate.name)  # fmt: skip
            return state
    return None


def _load(path: Path, device: torch.device) -> dict[str, Any] | None:
    """A resume state, or None if the file is damaged."""
    try:
        if not classic.is_whole_archive(path):
            return None
        state = torch.load(path, map_location=device, weights_only=True)
        version = int(state["version"])
        if version <= VERSION:
            _check(state, path.stat().st_size)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {reason(error)}") from error
    except Exception:  # torch raises many kinds for a file that is not its own
        return None
    if version > VERSION:
        raise ModelError(
            f"{path} has format version {version}; this program reads up to "
            f"{VERSION}: update faceswap"
        )
    return dict(state)


def _check(state: dict[str, Any], held: int) -> None:
    """Refuse a resume state that holds something else than training puts there.

    Args:
        state: The state.
        held: Bytes of its file. More than that its tensors cannot need: views make a number look
            like billions, and a few words describe a net of terabytes.

    Raises:
        Exception: Of many kinds.
    """
    with torch.device("meta"):
        network = autoencoder.build(ModelConfig.from_dict(state["model"]))
    needed = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    largest = max(t.numel() * t.element_size() for t in _tensors(state))
    if max(needed, largest) > held:
        raise ValueError("it describes more than it holds")
    numbers = [float(state["seconds"]), float(state.get("rate", 1.0)), int(state.get("step", 0))]
    if not all(0 <= number < math.inf for number in numbers):
        raise ValueError("a number that cannot be")
    held_out = state.get("held_out") or {"a": [], "b": []}
    for words in (state["names"], held_out["a"], held_out["b"]):
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise TypeError("names must be lists of words")
    for order in state.get("orders", {}).values():
        if order.dtype != torch.int64 or order.dim() != 1 or (order < 0).any():
            raise ValueError("an order must be places in a list")
    if not isinstance(state.get("generator", torch.empty(0)), Tensor):
        raise TypeError("the generator's state must be a tensor")


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a state, however deep."""
    if isinstance(value, Tensor):
        yield value
    for inner in value.values() if isinstance(value, dict) else ():
        yield from _tensors(inner)
    for inner in value if isinstance(value, list | tuple) else ():
        yield from _tensors(inner)


def restore(run: TrainingState, state: dict[str, Any], folder: Path) -> None:
    """Put a state from :func:`read_state` into a run.

    Raises:
        ModelError: If it does not fit.
    """
    try:
        weights = {"means": run.network.means} | state["network"]
        run.network.load_state_dict(weights)
        if run.average:
            run.average.load_state_dict(state.get("average") or weights)
        run.step, run.seconds = int(state["step"]), float(state["seconds"])
        red, green, blue = state["color_shift"]
        run.color_shift = (float(red), float(green), float(blue))
        if state.get("centroids"):  # else measured when the run was prepared
            run.centroids = modelfile.read_centroids(state["centroids"])
        if "optimizer" in state:  # not there for an imported model
            run.optimizer.load_state_dict(state["optimizer"])
            run.generator.set_state(state["generator"].cpu())
            run.orders = {key: order.cpu() for key, order in state["orders"].items()}
            run.lr_scale = float(state.get("rate", 1.0))
            run.scores = [float(score) for score in state.get("scores", [])]
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{folder / RESUME_FILE} does not fit this program: "
            f"{str(error).splitlines()[0]}; --restart begins again"
        ) from error


def write_config(
    folder: Path, settings: dict[str, Any], recipe: dict[str, Any], names: tuple[str, str]
) -> None:
    """Write ``config.json``: every resolved setting and the versions, for people and ``--config``.

    Raises:
        OutputError: If the disk refuses.
    """
    versions = {name: version(name) for name in ("faceswap", "torch", "torchvision")}
    record = {"train": settings, "names": names, "recipe": recipe, "versions": versions}
    write_bytes(folder / "config.json", (json.dumps(record, indent=1) + "\n").encode())


def last_losses(folder: Path) -> tuple[float, float]:
    """The last losses in the metrics; not a number if there are none."""
    path = folder / METRICS_FILE
    for line in reversed(read_lines(path) if path.is_file() else []):
        try:
            record = parse_json(line)
            return float(record["loss_a"]), float(record["loss_b"])
        except (KeyError, TypeError, ValueError):  # held-out scores, or a damaged line
            continue
    return math.nan, math.nan


def trim_metrics(folder: Path, step: int) -> None:
    """Drop metrics of steps after the state that training resumes from."""
    path = folder / METRICS_FILE
    if path.is_file():
        lines = [line for line in read_lines(path) if _step_of(line) <= step]
        write_bytes(path, "".join(f"{line}\n" for line in lines if step).encode())


def _step_of(line: str) -> float:
    """The step of a line of metrics; infinite for a damaged line, which is dropped."""
    try:
        return float(parse_json(line)["step"])
    except (KeyError, TypeError, ValueError):
        return math.inf
