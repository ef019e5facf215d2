#!/usr/bin/env python3
"""Measure training on one GPU in less than ten minutes; needs no network and no photos.

    scripts/benchmarks/gpu.py [--quick] [--device cpu] [--faces a/faces b/faces] [--output FILE]

Prints each figure as a line of JSON as soon as it is known. With ``--output`` it also appends the
line to a file.

card      TFLOP/s of a large matrix product and of a convolution in the device's fast format
waits     places of a training step at which the CPU waits for the GPU. Without a GPU they are
          counted on tensors without data
busy      share of the time in which the GPU computes, kernels in a step, and the longest ones
speed     milliseconds of a step, of one whose kernels are launched one by one, and of the parts of
          that one; faces per second, share of the card's TFLOP/s
compiled  seconds that --compile takes, and milliseconds of a step with it
recording largest difference of the losses with recorded steps from those without
refiner   milliseconds of a step of a refiner, and of one whose kernels are launched one by one
formats   loss after a few hundred steps in float32 and in the fast format, and the difference of
          what both paint, in levels
quality   with ``--faces``: ``faceswap train`` for some minutes at two batch sizes, and its
          held-out scores

A part that fails is reported in its line, and the others still run.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from faceswap.config import DeviceName, TrainConfig
from faceswap.models import autoencoder, devices
from faceswap.models.architectures import PRESETS
from faceswap.models.refiner import refiner_for, scale_for
from faceswap.models.sampling import network_crop
from faceswap.training import data, trainer
from faceswap.training.checkpoint import TrainingState
from faceswap.training.data import TrainingFaces
from faceswap.training.distributed import World
from faceswap.training.optimizer import Optimizer, recipe_of
from faceswap.training.refining import ALONE, Bank, RefinerTraining
from faceswap.types import Identity
from tests.support.waits import Waits, in_channels_last, pretended_gpu, without_backward

Precision = Literal["auto", "float32"]
IDENTITIES: tuple[Identity, Identity] = ("a", "b")
FACES = 256  # random faces of each identity
# Models and batch sizes whose speed is measured.
SPEEDS = {"small": (16,), "original": (16, 256), "medium": (16, 64, 256), "large": (16, 64)}


class Bench:
    """Runs parts and writes their lines.

    Args:
        device: Where to compute.
        quick: Whether to take only a few steps of small networks, to see that everything works.
        output: File that lines are appended to; None only prints them.
    """

    def __init__(self, device: torch.device, quick: bool, output: Path | None) -> None:
        self.device, self.quick, self._output = device, quick, output
        self.began = time.monotonic()
        self.peak = float("nan")  # FLOP/s of a matrix product

    def note(self, part: str, **values: Any) -> None:
        """Write a line."""
        line = json.dumps({"part": part, **values, "seconds": round(self.seconds(), 1)})
        print(line, flush=True)
        if self._output:
            with self._output.open("a") as file:
                file.write(line + "\n")

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.began

    def run(self, part: Callable[..., None], *arguments: object) -> None:
        """Run a part; report an error in its line."""
        try:
            part(self, *arguments)
        except Exception as error:
            traceback.print_exc(limit=4)
            self.note(part.__name__, of=[str(a) for a in arguments], error=repr(error)[:300])
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def clock(self, call: Callable[[], object]) -> float:
        """Return the mean seconds of a call."""
        warm_up, timed = (1, 3) if self.quick else (8, 40)
        for _ in range(warm_up):
            call()
        self.synchronize()
        began = time.perf_counter()
        for _ in range(timed):
            call()
        self.synchronize()
        return (time.perf_counter() - began) / timed

    def synchronize(self) -> None:
        """Wait for the GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Loop(trainer.Loop):
    """The loop of ``faceswap train`` on random faces, without files.

    Args:
        name: Architecture.
        batch: Faces of each identity in a step.
        device: Where to compute.
        precision: See :class:`TrainConfig`.
        compiled: Whether to compile the network.
    """

    def __init__(
        self, name: str, batch: int, device: torch.device, precision: Precision = "auto",
        compiled: bool = False,
    ) -> None:  # fmt: skip
        preset, recipe = PRESETS[name], recipe_of(name)
        network = built(name, device)
        run = TrainingState(
            network, Optimizer(network, recipe, recipe.learning_rate), torch.Generator(),
            IDENTITIES, (0.02, 0.0, -0.02),
        )  # fmt: skip
        run.generator.manual_seed(0)
        if recipe.average:
            run.average = built(name, device).requires_grad_(False)
        channels = 4 if preset.mask_head else 3
        seen = {key: random_faces(channels, preset.crop_size).to(device) for key in IDENTITIES}
        config = TrainConfig(model=name, batch_size=batch, precision=precision, compile=compiled)
        super().__init__(
            run, TrainingFaces(seen, {}, {}), Path(), config, World(), None, threading.Event()
        )
        self.recipe, self.batch, self.device = recipe, batch, device

    def step(self) -> torch.Tensor:
        """Take a step; return the losses."""
        losses = self._step(warp=True)
        self._run.step += 1
        return losses

    def pairs(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Make a batch of each identity."""
        run, pairs = self._run, []
        for key in IDENTITIES:
            crops = self._faces.seen[key]
            draw = data.draw_batch(run, torch.arange(FACES), key, self.batch, World())
            pairs.append(data.sample_batch(run, crops, key, draw.to(self.device)))
        return pairs

    def backward(self, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Compute the gradients of a batch."""
        decoded = self._pair(pairs[0][0], pairs[1][0])
        losses = [self._masked_loss(one, pair[1]) for one, pair in zip(decoded, pairs, strict=True)]
        self._run.optimizer.zero_grad()
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Let the optimizer use the last gradients."""
        self._run.optimizer.step(self._scaler)

    def average(self) -> None:
        """Move the averaged weights."""
        if self._run.average:
            trainer.update_ema(self._run.average, self._run.network, self._ema_share)

    def swapped(self) -> torch.Tensor:
        """Decode some faces of a as b."""
        network = self._run.ema_or_model
        crops = network_crop(self._faces.seen["a"][:32, :3], network.config)
        with torch.no_grad(), devices.in_precision(self.device, self._precision):
            return network.swap(crops, "b", 1.0)[:, :3].float()


def built(name: str, device: torch.device) -> autoencoder.Autoencoder:
    """Build a network with the same weights each time."""
    torch.manual_seed(0)
    with device:
        network = autoencoder.build(PRESETS[name])
    in_channels_last(network)
    return network


def random_faces(channels: int, side: int) -> torch.Tensor:
    """Return smooth random crops, uint8 (FACES, channels, side, side)."""
    coarse = torch.rand(FACES, channels, 24, 24, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    if channels == 4:
        smooth[:, 3] = (smooth[:, 3] > 0.4).float()
    return (smooth * 255).to(torch.uint8)


def card(bench: Bench) -> None:
    """Measure what the device can do at best."""
    kind, side = devices.fast_type(bench.device), 1024 if bench.quick else 8192
    one, two = (torch.randn(side, side, device=bench.device, dtype=kind) for _ in range(2))
    bench.peak = 2 * side**3 / bench.clock(lambda: one @ two)
    count = 4 if bench.quick else 256
    layer = nn.Conv2d(256, 512, 3, padding=1, device=bench.device, dtype=kind)
    layer = layer.to(memory_format=torch.channels_last)
    images = torch.randn(count, 256, 32, 32, device=bench.device, dtype=kind)
    images = images.to(memory_format=torch.channels_last)
    with torch.no_grad():
        rate = 2 * 9 * 256 * 512 * 1024 * count / bench.clock(lambda: layer(images))
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else "cpu"
    bench.note(
        "card", name=name, torch=torch.__version__, format=str(kind),
        matmul_tflops=round(bench.peak / 1e12, 3), conv_tflops=round(rate / 1e12, 3),
    )  # fmt: skip


def waits(bench: Bench, name: str) -> None:
    """Count the places of a step at which the CPU waits."""
    if bench.device.type != "cuda":
        with pretended_gpu():
            loop = Loop(name, 4, torch.device("cuda"), "float32")
            with without_backward(loop._run.network):
                loop.step()  # uploads constants that later steps reuse
                with Waits() as counted:
                    loop.step()
        bench.note("waits", model=name, gpu="pretended", in_a_step=sum(counted.found.values()),
                   places=counted.found, operations=counted.operations)  # fmt: skip
        return
    loop, places = Loop(name, 16, bench.device), Counter[str]()
    loop.step()
    bench.synchronize()

    def record(message: Warning | str, *_: object, **__: object) -> None:
        if "synchroniz" in str(message):
            frames = [f for f in traceback.extract_stack() if "/faceswap/" in f.filename]
            places[f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"] += 1

    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = record
            loop.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    bench.note("waits", model=name, in_a_step=sum(places.values()), places=places)


def busy(bench: Bench, name: str, batch: int) -> None:
    """Measure the share of the time in which the GPU computes."""
    from torch.profiler import ProfilerActivity, profile

    loop = Loop(name, batch, bench.device)
    for _ in range(8):
        loop.step()
    bench.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        began = time.perf_counter()
        for _ in range(5):
            loop.step()
        bench.synchronize()
        wall = time.perf_counter() - began
    kernels = [e for e in profiler.key_averages()
               if e.device_type.name == "CUDA" and e.self_device_time_total > 0]  # fmt: skip
    kernels.sort(key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in kernels) / 1e6
    longest = {event.key[:60]: round(event.self_device_time_total / 5e3, 3)
               for event in kernels[:12]}  # fmt: skip
    bench.note("busy", model=name, batch=batch, gpu_share=round(total / wall, 3),
               kernels=sum(event.count for event in kernels) // 5, longest_ms=longest)  # fmt: skip


def operations(name: str) -> int:
    """Return the floating-point operations of a forward and a backward pass of one face."""
    with torch.device("meta"):
        network = autoencoder.build(PRESETS[name])
        side = network.config.size
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, side, side), "a")
    return 3 * int(counter.get_total_flops())


def speed(bench: Bench, name: str, batch: int) -> None:
    """Measure a training step and its parts."""
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    loop = Loop(name, batch, bench.device)
    seconds = bench.clock(loop.step)
    recorder, loop._recorder = loop._recorder, None
    launched = bench.clock(loop.step) if recorder else seconds
    pairs = loop.pairs()
    parts = {
        "augment": bench.clock(loop.pairs),
        "network": bench.clock(lambda: loop.backward(pairs)),
        "optimizer": bench.clock(loop.update),
        "average": bench.clock(loop.average),
    }
    rate = operations(name) * 2 * batch / seconds
    memory = torch.cuda.max_memory_allocated() / 2**30 if bench.device.type == "cuda" else None
    bench.note(
        "speed", model=name, batch=batch, step_ms=round(1e3 * seconds, 2),
        unrecorded_ms=round(1e3 * launched, 2),
        **{f"{key}_ms": round(1e3 * value, 2) for key, value in parts.items()},
        faces_per_second=round(2 * batch / seconds), tflops=round(rate / 1e12, 2),
        share_of_peak=round(rate / bench.peak, 3), peak_gib=memory and round(memory, 2),
    )  # fmt: skip


def compiled(bench: Bench, name: str, batch: int) -> None:
    """Measure a step of a compiled network."""
    loop, began = Loop(name, batch, bench.device, compiled=True), bench.seconds()
    loop.step()
    bench.synchronize()
    took = bench.seconds() - began
    seconds = bench.clock(loop.step)
    bench.note("compiled", model=name, batch=batch, compile_s=round(took, 1),
               step_ms=round(1e3 * seconds, 2),
               faces_per_second=round(2 * batch / seconds))  # fmt: skip


def recording(bench: Bench, name: str) -> None:
    """Compare training by recorded steps with training by single kernels."""
    losses = []
    for recorded in (True, False):
        loop = Loop(name, 4 if bench.quick else 16, bench.device, "float32")
        loop._recorder = loop._recorder if recorded else None
        course = [loop.step() for _ in range(4 if bench.quick else 40)]
        losses.append(torch.stack(course).cpu())
    apart = float((losses[0] - losses[1]).abs().max())
    bench.note("recording", model=name, loss=round(float(losses[0][-1].sum()), 4), apart=apart)


def refiner(bench: Bench, name: str) -> None:
    """Measure a step of training a refiner, and compare recorded steps with single kernels."""
    config, count = PRESETS[name], 32
    faces = random_faces(4, config.crop_size)[:count].float()
    scale = scale_for(config)
    decoded, photos = (
        nn.functional.interpolate(faces, (side, side)).to(bench.device, torch.uint8)
        for side in (config.size, scale * config.size)
    )
    seconds, losses = [], []

    def take(training: RefinerTraining, steps: int) -> list[torch.Tensor]:
        return [training.step(0) for _ in range(steps)]

    for recorded in (True, False):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            fresh = refiner_for(config).to(bench.device)
        training = RefinerTraining(
            fresh, Bank(decoded[:, :3], photos, photos[:, :3]), torch.Generator().manual_seed(0),
            precision=devices.fast_type(bench.device),
        )  # fmt: skip
        training._recorder = training._recorder if recorded else None
        take(training, ALONE)
        losses.append(torch.stack(take(training, 4 if bench.quick else 40)))
        seconds.append(bench.clock(partial(take, training, 1)))
    bench.note("refiner", model=name, step_ms=round(1e3 * seconds[0], 2),
               unrecorded_ms=round(1e3 * seconds[1], 2),
               apart=float((losses[0] - losses[1]).abs().max()))  # fmt: skip


def formats(bench: Bench, name: str) -> None:
    """Compare training in float32 with training in the fast format."""
    steps, losses, painted = (4 if bench.quick else 300), {}, {}
    for precision in ("float32", "auto"):
        loop = Loop(name, 4 if bench.quick else 16, bench.device, precision)
        course = torch.stack([loop.step().sum() for _ in range(steps)]).cpu()
        losses[precision] = round(float(course[-max(steps // 4, 1) :].mean()), 4)
        painted[precision] = loop.swapped()
        if precision == "auto":  # the same weights, computed exactly
            loop._precision = torch.float32
            difference = (painted["auto"] - loop.swapped()).abs().max()
    bench.note("formats", model=name, loss=losses, levels_apart=round(float(difference) * 255, 2))


def quality(bench: Bench, a: Path, b: Path, batch: int, minutes: float) -> None:
    """Train on real faces and report the held-out scores."""
    with tempfile.TemporaryDirectory() as folder:
        kind = cast(DeviceName, bench.device.type)
        config = TrainConfig(batch_size=batch, minutes=minutes, device=kind)
        report = trainer.train(a, b, folder, config)
        lines = Path(folder, "metrics.jsonl").read_text().splitlines()
        scores = [json.loads(line) for line in lines if "ssim_a" in line][-1]
    bench.note("quality", batch=batch, minutes=minutes, steps=report.step, scores=scores)


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda", "mps"))
    parser.add_argument("--quick", action="store_true", help="a few steps of small networks")
    parser.add_argument("--faces", type=Path, nargs=2, metavar="FOLDER", help="facesets a and b")
    parser.add_argument("--minutes", type=float, default=1.5, help="of each training on --faces")
    parser.add_argument("--output", type=Path, help="append the lines to this file")
    options = parser.parse_args()
    device = devices.resolve_device(options.device)
    bench = Bench(device, options.quick, options.output)
    is_cuda = device.type == "cuda"
    bench.run(card)
    for name in ("small",) if options.quick else ("medium", "large"):
        bench.run(waits, name)
        if is_cuda:
            bench.run(busy, name, 16)
            bench.run(busy, name, 64)
    speeds = {"small": (4,)} if options.quick else SPEEDS
    for name, batches in speeds.items():
        for batch in batches:
            bench.run(speed, name, batch)
    for name in ("small",) if options.quick else ("medium", "large"):
        bench.run(compiled, name, 4 if options.quick else 64)
        bench.run(recording, name)
        bench.run(refiner, name)
        bench.run(formats, name)
    if options.faces:
        for batch in (trainer.CPU_BATCH, trainer.GPU_BATCH):
            bench.run(quality, *options.faces, batch, options.minutes)


if __name__ == "__main__":
    main()
