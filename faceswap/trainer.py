"""Train: two facesets -> one shared encoder and two decoders that undo the random warp.

A run folder holds ``model.safetensors`` (all that conversion needs), ``resume.pt`` (all that
resuming needs, by itself), ``config.json``, ``metrics.jsonl`` and ``previews/``. Both files are
replaced in one step each, so a kill at any moment leaves a whole state to resume from.
"""

import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import torch
from torch import Tensor
from torchvision.utils import make_grid

from faceswap import augment, checkpoint
from faceswap import model as models
from faceswap.checkpoint import Run
from faceswap.config import PRESETS, RECIPES, ModelConfig, Recipe, TrainConfig
from faceswap.errors import (
    InputError,
    NoFacesError,
    SettingsError,
    TrainingError,
)
from faceswap.faceset import Faceset
from faceswap.files import append_lines, sweep, write_bytes
from faceswap.losses import LOSSES
from faceswap.model import Identity
from faceswap.optimizers import Optimizer
from faceswap.types import OnProgress, Progress, ignore_progress

MIN_FACES = 25
DECAY_FROM = 0.5  # share of the run after which the rate falls along a cosine
PREVIEW_ROWS = 8
REPORT_SECONDS = 1.0  # between two lines of metrics


@dataclass(slots=True)
class TrainReport:
    """What a training run did: the model's folder, its steps and minutes in all, and its end.

    ``interrupted``: Ctrl-C or SIGTERM ended it. ``done``: there was nothing left to do.
    """

    folder: Path
    step: int
    minutes: float
    loss_a: float
    loss_b: float
    interrupted: bool = False
    done: bool = False


def train(
    a: str | Path,
    b: str | Path,
    output: str | Path,
    config: TrainConfig | None = None,
    on_progress: OnProgress = ignore_progress,
) -> TrainReport:
    """Train a model on two facesets, or go on training it.

    Ctrl-C and SIGTERM end it after the running step, saved; a second Ctrl-C ends it at once.

    Args:
        a: Faceset folder of identity a.
        b: Faceset folder of identity b.
        output: The model's folder; training resumes what is there.
        config: Settings.
        on_progress: Called about once a second with the losses.

    Raises:
        InputError: If a folder is no faceset, or the device is missing.
        NoFacesError: If there are fewer than 25 faces of a person.
        ModelError: If the existing model cannot be resumed.
        SettingsError: If the settings contradict the existing model.
        OutputError: If the disk refuses; the last saved state stays.
        TrainingError: If the loss is no longer finite; the last saved state stays.
    """
    config, folder = config or TrainConfig(), Path(output)
    device = models.resolve_device(config.device)
    state = None if config.restart else checkpoint.read_state(folder, device)
    preset = _choose_model(config, state, folder, device)
    facesets: dict[Identity, Faceset] = {"a": _faces(Path(a), preset), "b": _faces(Path(b), preset)}
    names = (facesets["a"].name, facesets["b"].name)
    if state and state["names"] not in (list(names), ["a", "b"]):
        raise SettingsError(
            f"{folder} was trained on {' and '.join(state['names'])}, not {' and '.join(names)}: "
            "give another --output, or --restart to begin again"
        )
    held_out = (state or {}).get("held_out") or {
        key: faceset.held_out(config.holdout) for key, faceset in facesets.items()
    }
    trained = {key: f.subset(held_out[key], inside=False) for key, f in facesets.items()}
    unseen = {key: f.subset(held_out[key]) for key, f in facesets.items()}
    faces = {key: faceset.crops.to(device) for key, faceset in trained.items()}
    shown = {  # in previews: faces that training has not seen, if there are some
        key: f.crops.to(device) if len(f.crops) >= PREVIEW_ROWS else faces[key]
        for key, f in unseen.items()
    }
    run = _start(preset, config, names, _color_shift(trained), device)
    run.held_out = held_out
    _open_folder(folder, config, preset, names)
    if state:
        checkpoint.restore(run, state, folder)
    checkpoint.trim_metrics(folder, run.step)
    if _share_done(run.step, run.seconds, config) >= 1:
        return TrainReport(
            folder, run.step, run.seconds / 60, *checkpoint.last_losses(folder), done=True
        )
    with _stop_signal() as stop:
        return _loop(run, faces, shown, folder, config, stop, on_progress)


def _open_folder(
    folder: Path, config: TrainConfig, preset: ModelConfig, names: tuple[str, str]
) -> None:
    """Clear what a killed or discarded run left and write down the settings of this one."""
    sweep(folder)
    if config.restart:
        for old in (folder / "previews").glob("step-*.png"):
            old.unlink()
    recipe = RECIPES[preset.name]
    settings = config.to_dict() | {
        "model": preset.name,
        "learning_rate": config.learning_rate or recipe.learning_rate,
        "loss": recipe.loss if config.loss == "auto" else config.loss,
        "restart": False,
    }
    checkpoint.write_config(folder, settings, dataclasses.asdict(recipe), names)


def _faces(folder: Path, preset: ModelConfig) -> Faceset:
    faceset = Faceset.read(folder, preset.crop_size)
    if len(faceset.crops) < MIN_FACES:
        raise NoFacesError(
            f"{folder} holds {len(faceset.crops)} faces; training needs at least {MIN_FACES} "
            "(some hundreds are better): extract more photos or a video"
        )
    if abs(faceset.coverage - preset.coverage) > 1e-6:
        raise InputError(
            f"{folder} has coverage {faceset.coverage}, the model needs {preset.coverage}: "
            "extract it again"
        )
    return faceset


def _choose_model(
    config: TrainConfig, state: dict[str, Any] | None, folder: Path, device: torch.device
) -> ModelConfig:
    """The architecture: what is there goes on; else what was asked; else what suits the device."""
    if state:
        existing = ModelConfig.from_dict(state["model"])
        if config.model not in ("auto", existing.name):
            raise SettingsError(
                f"{folder} holds a model '{existing.name}', not '{config.model}': give another "
                "--output, or --restart to begin again"
            )
        return existing
    if config.model == "auto":
        return PRESETS["small" if device.type == "cpu" else "original"]
    return PRESETS[config.model]


def _color_shift(facesets: dict[Identity, Faceset]) -> tuple[float, float, float]:
    """Mean colour of b's faces minus a's, RGB in [0, 1], over the whole crops."""
    mean = {  # crop by crop: the whole set in float64 would take eight times its memory
        key: torch.stack([crop.double().mean(dim=(1, 2)) for crop in f.crops]).mean(0) / 255
        for key, f in facesets.items()
    }
    red, green, blue = (mean["b"] - mean["a"]).tolist()
    return red, green, blue


def _start(
    preset: ModelConfig,
    config: TrainConfig,
    names: tuple[str, str],
    color_shift: tuple[float, float, float],
    device: torch.device,
) -> Run:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = models.build(preset)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = RECIPES[preset.name]
    optimizer = Optimizer(network, recipe, config.learning_rate or recipe.learning_rate)
    generator = torch.Generator().manual_seed(config.seed)
    return Run(network, optimizer, generator, names, color_shift)


def _loop(
    run: Run,
    faces: dict[Identity, Tensor],
    shown: dict[Identity, Tensor],
    folder: Path,
    config: TrainConfig,
    stop: threading.Event,
    on_progress: OnProgress,
) -> TrainReport:
    """Step until the end is reached or asked for; report, preview and save on the way."""
    recipe = RECIPES[run.network.config.name]
    loss_of = LOSSES[recipe.loss if config.loss == "auto" else config.loss]
    reported = saved = time.monotonic()
    pending: list[Tensor] = []  # losses since the last report, (2,) each
    means = [math.nan, math.nan]
    if not (folder / checkpoint.RESUME_FILE).is_file() or config.restart:
        checkpoint.save(run, folder)
    while True:
        began = time.monotonic()
        share = _share_done(run.step, run.seconds, config)
        last = share >= 1 or stop.is_set()
        if not last:
            run.optimizer.scale(_rate_factor(run.step, share, recipe))
            pending.append(_step(run, faces, config.batch_size, loss_of))
            run.step += 1
            run.seconds += time.monotonic() - began
        if pending and (last or began - reported >= REPORT_SECONDS):
            means = _report(run, pending, folder, config, on_progress)
            pending, reported = [], began
        due = config.preview_every and run.step % config.preview_every == 0
        if last or due:
            _preview(run, shown, folder)
        if last or began - saved >= config.save_every * 60:
            if pending:
                means, pending = _report(run, pending, folder, config, on_progress), []
            checkpoint.save(run, folder)
            saved = time.monotonic()
        if last:
            return TrainReport(
                folder, run.step, run.seconds / 60, means[0], means[1], stop.is_set()
            )


def _step(
    run: Run,
    faces: dict[Identity, Tensor],
    batch_size: int,
    loss_of: Callable[[Tensor, Tensor, Tensor | None], Tensor],
) -> Tensor:
    """One optimizer step over both identities; returns their losses, (2,), still on the device."""
    network = run.network
    pairs = [_batch(run, faces[key], key, batch_size) for key in ("a", "b")]
    code = network.encode(torch.cat([warped for warped, _ in pairs]))
    code_a, code_b = code.chunk(2)
    loss_a = loss_of(network.decode(code_a, "a"), pairs[0][1], None)
    loss_b = loss_of(network.decode(code_b, "b"), pairs[1][1], None)
    run.optimizer.zero_grad()
    (loss_a + loss_b).backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    return torch.stack([loss_a.detach(), loss_b.detach()])


def _batch(run: Run, crops: Tensor, key: str, size: int) -> tuple[Tensor, Tensor]:
    """The next faces of an identity, warped and as they should come out."""
    picked = crops[_next_indices(run, key, len(crops), size).to(crops.device)]
    config = run.network.config
    noise = augment.draw_transform(size, run.generator)
    matrices = augment.transform_matrices(noise, config.crop_size)
    warp = augment.draw_warp(size, run.generator)
    warped, target = augment.random_warp(picked, warp, config, matrices)
    if key == "a":
        return augment.shift_color(warped, run.color_shift), augment.shift_color(
            target, run.color_shift
        )
    return warped, target


def _next_indices(run: Run, key: str, count: int, size: int) -> Tensor:
    """Deal faces like cards: every face once, shuffled, before any comes again."""
    order = run.orders.get(key, torch.empty(0, dtype=torch.int64))
    order = order[order < count]  # the faceset may have shrunk since
    while len(order) < size:
        order = torch.cat([order, torch.randperm(count, generator=run.generator)])
    run.orders[key] = order[size:].clone()
    return order[:size]


def _share_done(step: int, seconds: float, config: TrainConfig) -> float:
    """How much of the asked-for steps or minutes is done; 0 if neither was asked for."""
    by_steps = step / config.steps if config.steps else 0.0
    by_time = seconds / (config.minutes * 60) if config.minutes else 0.0
    return max(by_steps, by_time)


def _rate_factor(step: int, share: float, recipe: Recipe) -> float:
    """Linear warm-up, then constant, then a cosine down; constant if the end is not known."""
    warm = min(1.0, 0.1 + 0.9 * step / recipe.warm_up) if recipe.warm_up else 1.0
    late = max(0.0, (min(share, 1.0) - DECAY_FROM) / (1 - DECAY_FROM))
    return warm * (recipe.decay_to + (1 - recipe.decay_to) * (1 + math.cos(math.pi * late)) / 2)


def _report(
    run: Run, pending: list[Tensor], folder: Path, config: TrainConfig, on_progress: OnProgress
) -> list[float]:
    """Write the mean losses since the last report and pass them on; refuse what is not finite."""
    means: list[float] = torch.stack(pending).mean(dim=0).tolist()
    if not all(map(math.isfinite, means)):
        raise TrainingError(
            f"the loss is no longer finite at step {run.step}; {folder} keeps the last saved "
            "state: run again with a lower --learning-rate"
        )
    record = {
        "step": run.step,
        "seconds": round(run.seconds, 2),
        "loss_a": round(means[0], 6),
        "loss_b": round(means[1], 6),
        "learning_rate": run.optimizer.learning_rate,
    }
    append_lines(folder / checkpoint.METRICS_FILE, [json.dumps(record)])
    note = f"loss a {means[0]:.4f} b {means[1]:.4f}"
    if config.minutes and not config.steps:
        note = f"step {run.step} {note}"
        on_progress(Progress(round(run.seconds / 60, 2), config.minutes, "minutes", note))
    else:
        on_progress(Progress(run.step, config.steps, "steps", note))
    return means


@torch.no_grad()
def _preview(run: Run, faces: dict[Identity, Tensor], folder: Path) -> None:
    """Write a picture of rows a | a as a | a as b | b | b as b | b as a."""
    network = run.network.eval()
    columns = []
    directions: tuple[tuple[Identity, Identity], ...] = (("a", "b"), ("b", "a"))
    for own, other in directions:
        step = max(len(faces[own]) // PREVIEW_ROWS, 1)
        view = augment.network_view(faces[own][::step][:PREVIEW_ROWS], network.config)
        view = augment.shift_color(view, run.color_shift) if own == "a" else view
        code = network.encode(view)
        columns += [
            view,
            network.decode(code, own),
            network.decode(code, other),
        ]
    network.train()
    rows = torch.stack(columns, dim=1).flatten(0, 1).cpu()  # (rows * 6, 3, size, size)
    grid = make_grid(rows, nrow=len(columns), padding=2, pad_value=1.0)
    rgb = grid.mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    _, png = cv2.imencode(".png", rgb[..., ::-1])
    write_bytes(folder / "previews" / f"step-{run.step:09d}.png", png.tobytes())


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; after it Python's own handlers are back."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may set handlers
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the handler's form
        event.set()
        restore()

    for number in numbers:
        signal.signal(number, ask)
    try:
        yield event
    finally:
        restore()
