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
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import cv2
import torch
import torchvision
from torch import Tensor
from torchvision.utils import make_grid

from faceswap import augment
from faceswap import model as models
from faceswap.config import PRESETS, LossName, ModelConfig, ModelName, TrainConfig
from faceswap.errors import (
    InputError,
    ModelError,
    NoFacesError,
    OutputError,
    SettingsError,
    TrainingError,
)
from faceswap.faceset import Faceset
from faceswap.files import append_lines, read_lines, reason, refusing, replacing, write_bytes
from faceswap.losses import LOSSES
from faceswap.model import Autoencoder, TrainedModel
from faceswap.types import OnProgress, Progress, ignore_progress

MIN_FACES = 25
RESUME_FILE, RESUME_VERSION = "resume.pt", 1
WARM_UP = 100  # steps from a tenth of the learning rate to all of it
DECAY_FROM = 0.5  # share of the run after which the rate falls, along a cosine, to DECAY_TO of it
DECAY_TO = 0.05
PREVIEW_ROWS = 8
REPORT_SECONDS = 1.0  # between two lines of metrics


@dataclass(frozen=True, slots=True)
class Recipe:
    """Optimizer settings and loss of an architecture."""

    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    loss: LossName


RECIPES: dict[ModelName, Recipe] = {
    "original": Recipe(5e-5, (0.5, 0.999), 0.0, "l1"),  # as published
    "small": Recipe(1e-3, (0.9, 0.999), 0.01, "l1-dssim"),
}


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


@dataclass(slots=True)
class Run:
    """The state that training changes, and that ``resume.pt`` holds."""

    network: Autoencoder
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    names: tuple[str, str]
    color_shift: tuple[float, float, float]
    step: int = 0
    seconds: float = 0.0
    orders: dict[str, Tensor] = field(default_factory=dict)  # faces still to come in this round


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
    state = None if config.restart else _read_state(folder, device)
    preset = _choose_model(config, state, folder, device)
    facesets = {"a": _faces(Path(a), preset), "b": _faces(Path(b), preset)}
    names = (facesets["a"].name, facesets["b"].name)
    if state and state["names"] not in (list(names), ["a", "b"]):
        raise SettingsError(
            f"{folder} was trained on {' and '.join(state['names'])}, not {' and '.join(names)}: "
            "give another --output, or --restart to begin again"
        )
    faces = {"a": facesets["a"].crops.to(device), "b": facesets["b"].crops.to(device)}
    run = _start(preset, config, names, _color_shift(facesets), device)
    _write_config(folder, config, preset, names)
    if state:
        _restore(run, state, folder)
    _trim_metrics(folder, run.step)
    if _share_done(run.step, run.seconds, config) >= 1:
        return TrainReport(folder, run.step, run.seconds / 60, *_last_losses(folder), done=True)
    with _stop_signal() as stop:
        return _loop(run, faces, folder, config, stop, on_progress)


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


def _color_shift(facesets: dict[str, Faceset]) -> tuple[float, float, float]:
    """Mean colour of b's faces minus a's, RGB in [0, 1], over the whole crops."""
    mean = {key: f.crops.double().mean(dim=(0, 2, 3)) / 255 for key, f in facesets.items()}
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
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=config.learning_rate or recipe.learning_rate,
        betas=recipe.betas,
        weight_decay=recipe.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )
    generator = torch.Generator().manual_seed(config.seed)
    return Run(network, optimizer, generator, names, color_shift)


def _loop(
    run: Run,
    faces: dict[str, Tensor],
    folder: Path,
    config: TrainConfig,
    stop: threading.Event,
    on_progress: OnProgress,
) -> TrainReport:
    """Step until the end is reached or asked for; report, preview and save on the way."""
    recipe = RECIPES[run.network.config.name]
    loss_of = LOSSES[recipe.loss if config.loss == "auto" else config.loss]
    rate = config.learning_rate or recipe.learning_rate
    reported = saved = time.monotonic()
    pending: list[Tensor] = []  # losses since the last report, (2,) each
    means = [math.nan, math.nan]
    if not (folder / RESUME_FILE).is_file() or config.restart:
        _save(run, folder)
    while True:
        began = time.monotonic()
        share = _share_done(run.step, run.seconds, config)
        last = share >= 1 or stop.is_set()
        if not last:
            now = rate * _rate_factor(run.step, share)
            for group in run.optimizer.param_groups:
                group["lr"] = now
            pending.append(_step(run, faces, config.batch_size, loss_of))
            run.step += 1
            run.seconds += time.monotonic() - began
        if pending and (last or began - reported >= REPORT_SECONDS):
            means = _report(run, pending, folder, config, on_progress)
            pending, reported = [], began
        due = config.preview_every and run.step % config.preview_every == 0
        if last or due:
            _preview(run, faces, folder)
        if last or began - saved >= config.save_every * 60:
            if pending:
                means, pending = _report(run, pending, folder, config, on_progress), []
            _save(run, folder)
            saved = time.monotonic()
        if last:
            return TrainReport(
                folder, run.step, run.seconds / 60, means[0], means[1], stop.is_set()
            )


def _step(
    run: Run,
    faces: dict[str, Tensor],
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
    run.optimizer.zero_grad(set_to_none=True)
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
        return shift_color(warped, run.color_shift), shift_color(target, run.color_shift)
    return warped, target


def shift_color(images: Tensor, shift: tuple[float, float, float]) -> Tensor:
    """Add a colour to float images (B, 3, H, W), kept within [0, 1]."""
    return (images + images.new_tensor(shift)[:, None, None]).clamp(0, 1)


def _next_indices(run: Run, key: str, count: int, size: int) -> Tensor:
    """Deal faces like cards: every face once, shuffled, before any comes again."""
    order = run.orders.get(key, torch.empty(0, dtype=torch.int64))
    while len(order) < size:
        order = torch.cat([order, torch.randperm(count, generator=run.generator)])
    run.orders[key] = order[size:].clone()
    return order[:size]


def _share_done(step: int, seconds: float, config: TrainConfig) -> float:
    """How much of the asked-for steps or minutes is done; 0 if neither was asked for."""
    by_steps = step / config.steps if config.steps else 0.0
    by_time = seconds / (config.minutes * 60) if config.minutes else 0.0
    return max(by_steps, by_time)


def _rate_factor(step: int, share: float) -> float:
    """Linear warm-up, then constant, then a cosine down; constant if the end is not known."""
    warm = min(1.0, 0.1 + 0.9 * step / WARM_UP)
    late = max(0.0, (min(share, 1.0) - DECAY_FROM) / (1 - DECAY_FROM))
    return warm * (DECAY_TO + (1 - DECAY_TO) * (1 + math.cos(math.pi * late)) / 2)


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
        "learning_rate": run.optimizer.param_groups[0]["lr"],
    }
    append_lines(folder / "metrics.jsonl", [json.dumps(record)])
    note = f"loss a {means[0]:.4f} b {means[1]:.4f}"
    if config.minutes and not config.steps:
        note = f"step {run.step} {note}"
        on_progress(Progress(round(run.seconds / 60, 2), config.minutes, "minutes", note))
    else:
        on_progress(Progress(run.step, config.steps, "steps", note))
    return means


def _last_losses(folder: Path) -> tuple[float, float]:
    """The last losses in the metrics; not a number if there are none."""
    path = folder / "metrics.jsonl"
    lines = read_lines(path) if path.is_file() else []
    if not lines:
        return math.nan, math.nan
    record = json.loads(lines[-1])
    return record["loss_a"], record["loss_b"]


def _trim_metrics(folder: Path, step: int) -> None:
    """Drop metrics of steps after the state that training resumes from."""
    path = folder / "metrics.jsonl"
    if path.is_file():
        lines = [line for line in read_lines(path) if json.loads(line)["step"] <= step]
        write_bytes(path, "".join(f"{line}\n" for line in lines if step).encode())


@torch.no_grad()
def _preview(run: Run, faces: dict[str, Tensor], folder: Path) -> None:
    """Write a picture of rows a | a as a | a as b | b | b as b | b as a."""
    network = run.network.eval()
    columns = []
    for own, other, shift in (("a", "b", True), ("b", "a", False)):
        step = max(len(faces[own]) // PREVIEW_ROWS, 1)
        view = augment.network_view(faces[own][::step][:PREVIEW_ROWS], network.config)
        view = shift_color(view, run.color_shift) if shift else view
        code = network.encode(view)
        columns += [view, network.decode(code, _as_identity(own)),
                    network.decode(code, _as_identity(other))]
    network.train()
    rows = torch.stack(columns, dim=1).flatten(0, 1).cpu()  # (rows * 6, 3, size, size)
    grid = make_grid(rows, nrow=len(columns), padding=2, pad_value=1.0)
    rgb = grid.mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    _, png = cv2.imencode(".png", rgb[..., ::-1])
    write_bytes(folder / "previews" / f"step-{run.step:09d}.png", png.tobytes())


def _as_identity(key: str) -> Literal["a", "b"]:
    return "a" if key == "a" else "b"


def _save(run: Run, folder: Path) -> None:
    """Write the resume state, then the model."""
    state = {
        "version": RESUME_VERSION,
        "model": {k: list(v) if isinstance(v, tuple) else v
                  for k, v in run.network.config.to_dict().items()},
        "names": list(run.names),
        "color_shift": list(run.color_shift),
        "step": run.step,
        "seconds": run.seconds,
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "generator": run.generator.get_state(),
        "orders": run.orders,
    }
    path = folder / RESUME_FILE
    with replacing(path) as temporary, refusing(path):
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
        except RuntimeError as error:  # torch's word for a write that failed
            raise OutputError(f"cannot write {path}: {str(error).splitlines()[0]}") from error
    trained = TrainedModel(run.network, run.names, run.color_shift, run.step)
    models.save(folder / models.MODEL_FILE, trained)


def _read_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """What to resume from: the resume state; else a model alone, such as an imported one."""
    path = folder / RESUME_FILE
    if path.is_file():
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            version = state["version"]
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {reason(error)}") from error
        except Exception as error:  # torch raises many kinds for a file that is not its own
            raise ModelError(
                f"{path} is damaged; --restart begins again, deleting it goes on from the model"
            ) from error
        if version > RESUME_VERSION:
            raise ModelError(f"{path} has format version {version}; this program reads up to "
                             f"{RESUME_VERSION}: update faceswap")
        return dict(state)
    if not (folder / models.MODEL_FILE).is_file():
        return None
    trained = models.load(folder, device)
    return {
        "model": trained.network.config.to_dict(),
        "names": list(trained.names),
        "color_shift": list(trained.color_shift),
        "step": trained.step,
        "seconds": 0.0,
        "network": trained.network.state_dict(),
    }


def _restore(run: Run, state: dict[str, Any], folder: Path) -> None:
    try:
        run.network.load_state_dict(state["network"])
        run.step, run.seconds = int(state["step"]), float(state["seconds"])
        red, green, blue = state["color_shift"]
        run.color_shift = (float(red), float(green), float(blue))
        if "optimizer" in state:  # not there for an imported model
            run.optimizer.load_state_dict(state["optimizer"])
            run.generator.set_state(state["generator"].cpu())
            run.orders = {key: order.cpu() for key, order in state["orders"].items()}
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder / RESUME_FILE} does not fit this program: "
                         f"{str(error).splitlines()[0]}; --restart begins again") from error


def _write_config(
    folder: Path, config: TrainConfig, preset: ModelConfig, names: tuple[str, str]
) -> None:
    from faceswap import __version__

    recipe = RECIPES[preset.name]
    settings = config.to_dict() | {
        "model": preset.name,
        "learning_rate": config.learning_rate or recipe.learning_rate,
        "loss": recipe.loss if config.loss == "auto" else config.loss,
        "restart": False,
    }
    record = {
        "train": settings,
        "names": names,
        "recipe": dataclasses.asdict(recipe),
        "versions": {
            "faceswap": __version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }
    write_bytes(folder / "config.json", (json.dumps(record, indent=1) + "\n").encode())


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
