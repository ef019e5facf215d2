"""Watching a training run: losses, held-out scores, previews, curves, TensorBoard, advice."""

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import torch
from torchvision.utils import make_grid

from faceswap.config import TrainConfig
from faceswap.errors import SettingsError
from faceswap.files import append_lines, write_bytes
from faceswap.training import checkpoint, curves
from faceswap.training.checkpoint import Faces, TrainingState
from faceswap.training.data import network_crops
from faceswap.training.losses import dssim
from faceswap.types import DIRECTIONS, OnProgress, Progress

log = logging.getLogger(__name__)


PREVIEW_ROWS = 8
MEAN_FACES = 200  # whose latents are averaged
# Flat: among the last third of the scores, at least six, none is better than before by so much.
FLAT_SCORES, FLAT_GAIN = 6, 0.002
FLAT_AFTER = 1000  # steps; the first move slowly too


class Monitor:
    """Measures a run, keeps its records in the model's folder and passes progress on.

    Args:
        run: What is trained.
        seen: Faces that training sees, (N, 3 or 4, S, S) uint8 of each identity.
        unseen: Faces that it does not see, likewise; may be empty.
        folder: The model's folder.
        config: Settings.
        on_progress: Takes the progress.
    """

    def __init__(
        self, run: TrainingState, seen: Faces, unseen: Faces, folder: Path, config: TrainConfig,
        on_progress: OnProgress,
    ) -> None:  # fmt: skip
        self._run, self._seen, self._unseen = run, seen, unseen
        self._typical = {  # of all faces, evenly: enough for a mean
            key: crops[:: max(len(crops) // MEAN_FACES, 1)] for key, crops in seen.items()
        }
        self._folder, self._config, self._on_progress = folder, config, on_progress
        self._board = _board(folder) if config.tensorboard else None
        self._advised = False

    def losses(self, means: list[float]) -> None:
        """Record the mean losses since the last report, (a, b), and pass them on."""
        run, config = self._run, self._config
        self._record({"loss_a": means[0], "loss_b": means[1]}, run.optimizer.learning_rate)
        note = f"loss a {means[0]:.4f} b {means[1]:.4f}"
        if run.score is not None:
            note += f" ssim {run.score:.3f}"
        if config.minutes and not config.steps:
            note = f"step {run.step} {note}"
            minutes = round(run.seconds / 60, 2)
            self._on_progress(Progress(minutes, config.minutes, "minutes", note))
        else:
            self._on_progress(Progress(run.step, config.steps, "steps", note))

    @torch.no_grad()
    def measure(self) -> None:
        """Measure what conversion and people want to know: mean latents and held-out scores.

        The score is the mean SSIM of a's and b's unseen faces painted by their own decoder. Each
        is kept in the run's ``scores``.
        """
        run = self._run
        network = run.ema_or_model.eval()
        network.measure_means(
            {key: network_crops(run, crops, key) for key, crops in self._typical.items()}
        )
        found: dict[str, float] = {}
        for key, crops in self._unseen.items():
            if not len(crops):
                continue
            pairs = [(view, network(view, key)[:, :3]) for view in network_crops(run, crops, key)]
            count = len(crops)
            found[f"ssim_{key}"] = float(
                sum((1 - 2 * dssim(v, p)).mean() * len(v) for v, p in pairs) / count
            )
            found[f"l1_{key}"] = float(sum((v - p).abs().mean() * len(v) for v, p in pairs) / count)
        network.train()
        if "ssim_a" in found and "ssim_b" in found:
            run.scores.append((found["ssim_a"] + found["ssim_b"]) / 2)
            self._record(found)
            self._advise()

    def _advise(self) -> None:
        """Say once when the held-out score has stopped rising."""
        scores = self._run.scores
        late = max(FLAT_SCORES, len(scores) // 3)
        if self._advised or self._run.step < FLAT_AFTER or len(scores) < 2 * late:
            return
        if max(scores[-late:]) < max(scores[:-late]) + FLAT_GAIN:
            self._advised = True
            log.warning(
                "step %d: held-out SSIM has stayed at %.3f in the last %d looks; more training "
                "brings little: stop, or ask for an end (--minutes) to let the rate fall",
                self._run.step, max(scores), late,
            )  # fmt: skip

    @torch.no_grad()
    def preview(self) -> None:
        """Write a picture of rows a | a as a | a as b | b | b as b | b as a."""
        run = self._run
        network = run.ema_or_model.eval()
        columns = []
        for own, other in DIRECTIONS:
            enough = len(self._unseen[own]) >= PREVIEW_ROWS
            crops = (self._unseen if enough else self._seen)[own]
            step = max(len(crops) // PREVIEW_ROWS, 1)
            (view,) = network_crops(run, crops[::step][:PREVIEW_ROWS], own)
            decoded = network(view, own), network.swap(view, other, 1.0)
            columns += [view, *(images[:, :3] for images in decoded)]
        network.train()
        rows = torch.stack(columns, dim=1).flatten(0, 1).float().cpu()  # (rows * 6, 3, side, side)
        grid = make_grid(rows, nrow=len(columns), padding=2, pad_value=1.0)
        bytes_ = grid.mul(255).round().clamp(0, 255).to(torch.uint8)
        _, png = cv2.imencode(".png", bytes_.permute(1, 2, 0).numpy()[..., ::-1])
        write_bytes(self._folder / "previews" / f"step-{run.step:09d}.png", png.tobytes())
        if self._board:
            self._board.add_image("preview", bytes_, run.step)

    def draw_curves(self) -> None:
        """Write ``curves.png``."""
        picture = curves.curves(self._folder / checkpoint.METRICS_FILE)
        write_bytes(self._folder / "curves.png", picture)

    def close(self) -> None:
        """Write what TensorBoard still holds."""
        if self._board:
            self._board.close()

    def _record(self, numbers: dict[str, float], learning_rate: float | None = None) -> None:
        run = self._run
        record: dict[str, Any] = {"step": run.step, "seconds": round(run.seconds, 2)}
        record |= {name: round(value, 6) for name, value in numbers.items()}
        if learning_rate is not None:
            record["learning_rate"] = learning_rate
        append_lines(self._folder / checkpoint.METRICS_FILE, [json.dumps(record)])
        if self._board:
            for name, value in numbers.items():
                self._board.add_scalar(name.replace("_", "/"), value, run.step)


def _board(folder: Path) -> Any:
    if find_spec("tensorboard") is None:
        raise SettingsError("--tensorboard needs a package more: pip install tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
