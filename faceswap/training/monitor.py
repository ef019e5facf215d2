"""Monitor a training run: losses, held-out scores, previews, curves and TensorBoard."""

import json
import logging
import math
import statistics
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from faceswap.config import TrainConfig
from faceswap.crops.guidance import Guide
from faceswap.errors import SettingsError
from faceswap.files import append_lines, write_bytes
from faceswap.models.refiner import refine
from faceswap.models.sampling import to_bytes
from faceswap.training import checkpoint, curves
from faceswap.training.checkpoint import TrainingState
from faceswap.training.data import CROPS_PER_PASS, TrainingFaces, network_crops
from faceswap.training.losses import dssim
from faceswap.training.portraits import (
    Portraits,
    guide_of,
    refined_swaps,
    seen,
    shown,
    with_eyes,
)
from faceswap.types import DIRECTIONS, Identity, OnProgress, Progress

log = logging.getLogger(__name__)


PREVIEW_ROWS = 8
BORDER = 2  # pixels of white between the faces of a preview
MIN_CONTRAST = 1e-4  # added to both contrasts, so that flat images can be compared
MEAN_FACES = 200  # up to twice as many faces per identity are averaged into the mean latent
# Plateau: none of the last third of the scores (at least 6) exceeds the earlier best by 0.002.
FLAT_SCORES, FLAT_GAIN = 6, 0.002
MIN_FACES = 3  # held-out faces of an identity; fewer give no interval
FLAT_AFTER = 1000  # steps; a slow rise at the start is not a plateau


class Monitor:
    """Evaluates a run, records its metrics in the model folder and reports progress.

    Args:
        run: The training state.
        faces: The faces.
        folder: The model folder.
        config: Settings.
        on_progress: Called with the progress at each report.

    Raises:
        SettingsError: If TensorBoard is requested but not installed.
    """

    def __init__(
        self, run: TrainingState, faces: TrainingFaces, folder: Path, config: TrainConfig,
        on_progress: OnProgress,
    ) -> None:  # fmt: skip
        self._run, self._large, self._unseen = run, faces.large, faces.unseen
        self._typical = {  # evenly spaced faces for the mean latents
            key: crops[:: max(len(crops) // MEAN_FACES, 1)] for key, crops in faces.seen.items()
        }
        self._folder, self._config, self._on_progress = folder, config, on_progress
        self._board = _board(folder) if config.tensorboard else None
        self._warned_of_plateau = False

    def losses(self, means: list[float]) -> None:
        """Record and report the mean losses (a, b) since the last report.

        Raises:
            OutputError: If the metrics cannot be written.
        """
        run, config = self._run, self._config
        self._record({"loss_a": means[0], "loss_b": means[1]}, run.optimizer.learning_rate)
        note = f"loss a {means[0]:.4f} b {means[1]:.4f}"
        if run.score is not None:
            note += f" score {run.score:.3f}"
        if config.minutes and not config.steps:
            note = f"step {run.step} {note}"
            minutes = round(run.seconds / 60, 2)
            self._on_progress(Progress(minutes, config.minutes, "minutes", note, run.step))
        else:
            self._on_progress(Progress(run.step, config.steps, "steps", note))

    @torch.no_grad()
    def measure(self) -> None:
        """Measure the mean latents, which conversion needs, and the held-out score.

        Held-out faces are reproduced by their own decoder and refiner. The score is the mean of
        their SSIM and their :func:`sharpness`, so that it falls when faces become soft, which SSIM
        hardly notices. It is appended to the run's ``scores`` if both identities have held-out
        faces.

        Raises:
            OutputError: If the metrics cannot be written.
        """
        run = self._run
        network = run.ema_or_model.eval()
        network.measure_latents(
            {key: network_crops(run, crops, key) for key, crops in self._typical.items()}
        )
        metrics: dict[str, float] = {}
        for key, faces in self._unseen.items():
            if not len(faces):
                continue
            refiner = run.refiners.get(key)
            sums: dict[str, float] = defaultdict(float)
            each: dict[str, list[float]] = defaultdict(list)  # of the faces
            for first in range(0, len(faces), CROPS_PER_PASS):
                part = faces.at(slice(first, first + CROPS_PER_PASS))
                inputs = seen(run, part, key)
                target = shown(run, part, key) if refiner else inputs
                output = self._reproduced(network(inputs, key), key, part)
                share = len(inputs) / len(faces)
                alike = (1 - 2 * dssim(output, target)).mean(dim=(1, 2, 3))
                each["ssim"] += alike.tolist()
                pairs = zip(torch.split(output, 1), torch.split(target, 1), strict=True)
                each["sharp"] += [float(sharpness(*pair)) for pair in pairs]
                sums["ssim"] += share * float(alike.mean())
                sums["l1"] += share * float((output - target).abs().mean())
                sums["sharp"] += share * float(sharpness(output, target))
            metrics |= {f"{name}_{key}": value for name, value in sums.items()}
            if len(faces) >= MIN_FACES:
                metrics |= {f"{name}_{key}_margin": margin(each[name]) for name in each}
        network.train()
        if "ssim_a" in metrics and "ssim_b" in metrics:
            parts = [metrics[f"{name}_{key}"] for name in ("ssim", "sharp") for key in ("a", "b")]
            run.scores.append(sum(parts) / len(parts))
            self._record(metrics)
            self._warn_of_plateau()

    def _warn_of_plateau(self) -> None:
        """Warn once when the held-out score has stopped rising."""
        scores = self._run.scores
        late = max(FLAT_SCORES, len(scores) // 3)
        if self._warned_of_plateau or self._run.step < FLAT_AFTER or len(scores) < 2 * late:
            return
        if max(scores[-late:]) < max(scores[:-late]) + FLAT_GAIN:
            self._warned_of_plateau = True
            log.warning(
                "step %d: the last %d held-out scores hardly exceed the earlier ones "
                "(best: %.3f), so more training gains little: stop, or set --minutes so that the "
                "learning rate decays",
                self._run.step, late, max(scores),
            )  # fmt: skip

    @torch.no_grad()
    def preview(self) -> None:
        """Write a preview image with rows of a | a as a | a as b | b | b as b | b as a.

        An identity's faces are held-out ones if there are at least ``PREVIEW_ROWS`` of them.

        Raises:
            OutputError: If the image cannot be written.
        """
        run = self._run
        network = run.ema_or_model.eval()
        columns = []
        for key, other in DIRECTIONS:
            enough_unseen = len(self._unseen[key]) >= PREVIEW_ROWS
            faces = (self._unseen if enough_unseen else self._large)[key]
            step = max(len(faces) // PREVIEW_ROWS, 1)
            picked = faces.at(slice(0, step * PREVIEW_ROWS, step))
            inputs = seen(run, picked, key)
            columns += [
                shown(run, picked, key) if run.refiners else inputs,
                self._reproduced(network(inputs, key), key, picked),
                self._swapped(network.swap(inputs, other, 1.0), other, picked),
            ]
        network.train()
        image = to_bytes(_framed(torch.stack(columns, dim=1).float().cpu()))
        _, png = cv2.imencode(".png", image.permute(1, 2, 0).numpy()[..., ::-1])
        write_bytes(self._folder / "previews" / f"step-{run.step:09d}.png", png.tobytes())
        if self._board:
            self._board.add_image("preview", image, run.step)

    def _reproduced(self, decoded: Tensor, key: Identity, faces: Portraits) -> Tensor:
        """Refine faces that their own decoder made; without refiners only drop their mask."""
        refiner = self._run.refiners.get(key)
        if refiner is None:
            return decoded[:, :3]
        return refine(refiner, with_eyes(decoded[:, :3], faces), faces.details)

    def _swapped(self, decoded: Tensor, to: Identity, footage: Portraits) -> Tensor:
        """Refine swapped faces; without refiners only drop their mask."""
        refiner = self._run.refiners.get(to)
        if refiner is None:
            return decoded[:, :3]
        return refined_swaps(decoded[:, :3], self._guide(to), footage, refiner)

    def _guide(self, to: Identity) -> Guide | None:
        exemplars = self._run.exemplars.get(to)
        return guide_of(exemplars, self._run.network.config) if exemplars else None

    def draw_curves(self) -> None:
        """Write ``curves.png``.

        Raises:
            OutputError: If it cannot be written.
        """
        png = curves.curves(self._folder / checkpoint.METRICS_FILE)
        write_bytes(self._folder / "curves.png", png)

    def close(self) -> None:
        """Flush and close TensorBoard."""
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


def margin(values: list[float]) -> float:
    """Return half the width of the 95 % interval of a mean, which is taken for normal."""
    return 1.96 * statistics.stdev(values) / math.sqrt(len(values))


def sharpness(output: Tensor, target: Tensor) -> Tensor:
    """Return how well the fine contrast of images (B, 3, H, W) equals that of others, 0 to 1.

    It is the geometric mean over two octaves of the smaller contrast divided by the larger one, in
    the middle of the image, so that softness and noise both lower it.
    """
    ratios = []
    for fine, coarse in ((1, 3), (3, 7)):
        strengths = [_band(images.mean(dim=1, keepdim=True), fine, coarse)
                     for images in (output, target)]  # fmt: skip
        ratio = (strengths[0] + MIN_CONTRAST) / (strengths[1] + MIN_CONTRAST)
        ratios.append(torch.minimum(ratio, 1 / ratio))
    return torch.stack(ratios).log().mean().exp()


def _framed(faces: Tensor) -> Tensor:
    """Return one image (3, H, W) of rows and columns of faces (R, C, 3, S, S), with white between.

    The lines around and between the faces are ``BORDER`` pixels wide.
    """
    padded = F.pad(faces, (BORDER, 0, BORDER, 0), value=1)
    joined = torch.cat([torch.cat(list(row), dim=-1) for row in padded], dim=-2)
    return F.pad(joined, (0, BORDER, 0, BORDER), value=1)


def _band(gray: Tensor, fine: int, coarse: int) -> Tensor:
    """Mean absolute difference of two box blurs in the middle of images (B, 1, H, W)."""
    side = gray.shape[-1]
    blurs = [F.avg_pool2d(gray, width, 1, width // 2) for width in (fine, coarse)]
    middle = slice(side // 4, side - side // 4)
    return (blurs[0] - blurs[1])[..., middle, middle].abs().mean()


def _board(folder: Path) -> Any:
    if find_spec("tensorboard") is None:
        raise SettingsError("--tensorboard needs an extra package: pip install tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
