#!/usr/bin/env python3
"""Benchmark training against the plain loop of the classic programs, alternating in one run.

The rival keeps float64 photos, warps them one by one in numpy, steps two Adam optimizers over two
encoder passes and runs four preview passes per step. Our side is the actual loop of ``faceswap
train``, including its reports, in float32 and in the precision that ``auto`` chooses. Prints the
measurements and, as the last line, one JSON object.

    scripts/benchmarks/train.py [--device cuda] [--batch N] [--rounds N]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from faceswap.config import COVERAGE, DeviceName, ModelName, TrainConfig
from faceswap.faces.geometry import AlignedFace, Box, Face
from faceswap.facesets.writer import FacesetWriter
from faceswap.media.frame import Frame
from faceswap.models import autoencoder, devices
from faceswap.models.architectures import PRESETS
from faceswap.training import augment, data, trainer
from faceswap.training.distributed import World
from faceswap.training.losses import l1
from faceswap.training.monitor import Monitor
from faceswap.types import Identity, ignore_progress
from tests.support.reference import reference_transform, reference_warp

HERE = Path(__file__).resolve().parent
FACES = {"a": 376, "b": 318}
IDENTITIES: tuple[Identity, Identity] = ("a", "b")
PREVIEW = 14  # faces of each identity that the rival previews every step
SMALL_TURNS = 40  # steps of small for each step of original


def make_facesets(folder: Path) -> None:
    """Write as many random 256 px crops as the classic pair of facesets has faces."""
    random = np.random.default_rng(0)
    for key, count in FACES.items():
        writer = FacesetWriter(folder / key / "faces", 256, COVERAGE, {})
        for number in range(count):
            coarse = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            fine = cv2.resize(coarse, (256, 256), interpolation=cv2.INTER_CUBIC)
            image = np.asarray(fine, np.uint8)
            points = random.uniform(60, 200, (68, 2)).astype(np.float32)
            face = Face(Box(40, 40, 210, 210), 1.0, points)
            frame = Frame(image, 0, Fraction(0), Path(f"{number}.png"))
            writer.add(f"{number:04d}.png", frame, [AlignedFace(face, image, np.eye(2, 3))])


class Rival:
    """The training loop of the classic programs."""

    def __init__(
        self, faces: dict[Identity, torch.Tensor], batch: int, device: torch.device
    ) -> None:
        self.images = {k: v.permute(0, 2, 3, 1).cpu().numpy() / 255.0 for k, v in faces.items()}
        self.net = plain(autoencoder.build(PRESETS["original"])).to(device)
        shared = [p for n, p in self.net.named_parameters() if not n.startswith("decoders")]
        self.adams = {
            key: torch.optim.Adam([*shared, *self.net.decoders[key].parameters()], lr=5e-5,
                                  betas=(0.5, 0.999), fused=False, foreach=False)
            for key in IDENTITIES
        }  # fmt: skip
        self.batch, self.device = batch, device
        self.generator = torch.Generator().manual_seed(0)

    def pairs(self, key: Identity) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment a batch one image at a time; return inputs and targets (N, 3, 64, 64)."""
        images, count = self.images[key], self.batch
        noise = augment.draw_transform(count, self.generator)
        warp = augment.draw_warp(count, self.generator).numpy() * 160
        fields = (noise.angle, noise.zoom, noise.shift_x, noise.shift_y, noise.flip)
        picked = torch.randint(len(images), (count,), generator=self.generator).tolist()
        warped, target = [], []
        for i, index in enumerate(picked):
            moved = reference_transform(images[index], *(float(field[i]) for field in fields))
            one, other = reference_warp(np.ascontiguousarray(moved), warp[i])
            warped.append(one)
            target.append(other)
        arrays = [
            np.stack(faces).transpose(0, 3, 1, 2).astype(np.float32) for faces in (warped, target)
        ]
        inputs, targets = (torch.from_numpy(array).to(self.device) for array in arrays)
        return inputs, targets

    def step(self) -> None:
        """Take one step and run its previews."""
        pairs = {key: self.pairs(key) for key in IDENTITIES}
        for adam in self.adams.values():
            adam.zero_grad()
        losses = {key: l1(self.net(pairs[key][0], key), pairs[key][1]) for key in IDENTITIES}
        for loss in losses.values():
            loss.backward()  # type: ignore[no-untyped-call]
        for adam in self.adams.values():
            adam.step()
        _ = [float(loss.detach()) for loss in losses.values()]
        with torch.no_grad():
            for source in IDENTITIES:
                for key in IDENTITIES:
                    self.net(pairs[source][1][:PREVIEW], key).cpu()


def plain(net: autoencoder.Autoencoder) -> autoencoder.Autoencoder:
    """Replace the upscaling by that of the classic programs, which keeps contiguous planes."""

    def upscale(self: autoencoder.Upscale, x: torch.Tensor) -> torch.Tensor:
        x = F.leaky_relu(self.conv(x), 0.1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(batch, channels // 4, 2 * height, 2 * width)

    for module in net.modules():
        if isinstance(module, autoencoder.Upscale):
            module.forward = upscale.__get__(module)  # type: ignore[method-assign]
    return net


class Ours:
    """The loop of ``faceswap train``; counts the time in forward, backward and step separately."""

    def __init__(
        self,
        folder: Path,
        name: ModelName,
        batch: int,
        device: DeviceName,
        precision: Literal["auto", "float32"] = "auto",
    ) -> None:
        config = TrainConfig(model=name, batch_size=batch, device=device, preview_every=0,
                             save_every=1e6, precision=precision)  # fmt: skip
        place = devices.resolve_device(config.device)
        target = folder / f"{name}-{precision}"
        run, faces = data.prepare(
            folder / "a" / "faces", folder / "b" / "faces", target, config, None, place
        )
        target.mkdir()
        monitor = Monitor(run, faces, target, config, ignore_progress)
        self.loop = trainer.Loop(run, faces, target, config, World(), monitor, threading.Event())
        self.run, self.faces, self.batch, self.place = run, faces.seen, batch, place
        self.in_bfloat16 = precision == "auto" and devices.is_fast_in_bfloat16(place)
        self.inside = 0.0

    def steps(self, count: int) -> None:
        """Take steps as ``faceswap train`` does."""
        learn = trainer.learn

        def timed(*arguments: object) -> torch.Tensor:
            synchronize(self.place)
            began = time.perf_counter()
            losses = learn(*arguments)  # type: ignore[arg-type]
            synchronize(self.place)
            self.inside += time.perf_counter() - began
            return losses

        trainer.learn = timed  # type: ignore[assignment]
        for _ in range(count):
            self.loop.advance()
        trainer.learn = learn

    def operations(self) -> int:
        """Floating-point operations of one step's forward and backward passes."""
        side = self.run.network.config.size
        faces = torch.rand(self.batch, 3, side, side, device=self.place)
        with FlopCounterMode(display=False) as counter:
            decoded = trainer.Pair(self.run.network)(faces, faces)
            (decoded[0].mean() + decoded[1].mean()).backward()
        self.run.optimizer.zero_grad()
        return int(counter.get_total_flops())


def synchronize(device: torch.device) -> None:
    """Wait for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def peak(device: torch.device, kind: torch.dtype) -> float:
    """Best GFLOP/s of a plain matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    one, two = (torch.rand(side, side, device=device, dtype=kind) for _ in range(2))
    best = 0.0
    for _ in range(12):
        synchronize(device)
        began = time.perf_counter()
        torch.mm(one, two)
        synchronize(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best / 1e9


def clock(call: Callable[..., object], device: torch.device, *arguments: object) -> float:
    """Wall-clock seconds of a call."""
    synchronize(device)
    began = time.perf_counter()
    call(*arguments)
    synchronize(device)
    return time.perf_counter() - began


def peak_memory(folder: Path, device: str) -> float:
    """Peak resident memory of ``faceswap train --model small`` in a separate process, in MB."""
    command = [sys.executable, "-m", "faceswap", "train", "--a", str(folder / "a"), "--b",
               str(folder / "b"), "-o", str(folder / "memory"), "--model", "small", "--steps", "60",
               "--device", device]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(process.stderr.read().decode())  # type: ignore[union-attr]
    return usage.ru_maxrss / 1024


def augment_ratio() -> float:
    """Speed ratio that ``scripts/benchmarks/augment.py`` measures on one core."""
    command = [sys.executable, str(HERE / "augment.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["augment_ratio"])


def main() -> None:
    """Run the loops in turn and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=32, help="faces per identity (original)")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_facesets(folder)
        memory = peak_memory(folder, options.device)
        sides = {
            "original": Ours(folder, "original", options.batch, options.device),
            "original in float32": Ours(
                folder, "original", options.batch, options.device, "float32"
            ),
            "small": Ours(folder, "small", trainer.CPU_BATCH, options.device),
        }
        rival = Rival(sides["original"].faces, options.batch, device)
        times, peaks = measure(sides, rival, device, options.rounds)
        report(options, sides, times, peaks, memory)


Times = dict[str, list[float]]


def measure(
    sides: dict[str, Ours], rival: Rival, device: torch.device, rounds: int
) -> tuple[Times, dict[str, float]]:
    """Seconds per step of each side in each round, and median GFLOP/s of matrix products."""
    times: Times = {"rival": [], **{name: [] for name in sides}}
    peaks: Times = {"float32": [], "bfloat16": []}
    for round_ in range(rounds + 1):
        found = {"rival": clock(rival.step, device)}
        for name, side in sides.items():
            side.inside = side.inside if round_ > 1 else 0.0  # the first round warms up
            turns = SMALL_TURNS if name == "small" else 1
            found[name] = clock(side.steps, device, turns) / turns
        for kind, rates in peaks.items():
            rates.append(peak(device, getattr(torch, kind)))
        if round_:
            for name, value in found.items():
                times[name].append(value)
    return times, {kind: float(np.median(rates)) for kind, rates in peaks.items()}


def report(
    options: argparse.Namespace, sides: dict[str, Ours], times: Times, peaks: dict[str, float],
    memory: float,
) -> None:  # fmt: skip
    """Print the comparison."""
    batches = {"rival": options.batch, **{name: side.batch for name, side in sides.items()}}
    rate = {name: 2 * batches[name] / float(np.median(seconds)) for name, seconds in times.items()}
    print(", ".join(f"{kind} product {value:.0f} GFLOP/s" for kind, value in peaks.items()))
    print(f"rival: {rate['rival']:.1f} faces/s")
    gflops, outside = {}, {}
    for name, side in sides.items():
        turns = SMALL_TURNS if name == "small" else 1
        gflops[name] = side.operations() * options.rounds * turns / side.inside / 1e9
        outside[name] = 1 - side.inside / (sum(times[name]) * turns)
        print(
            f"{name}: {rate[name]:.1f} faces/s, {gflops[name]:.0f} GFLOP/s in forward, backward "
            f"and step, {outside[name]:.1%} of the time outside them"
        )
    fast = "bfloat16" if sides["original"].in_bfloat16 else "float32"
    numbers = {
        "original_ratio": round(rate["original"] / rate["rival"], 2),
        "float32_ratio": round(rate["original in float32"] / rate["rival"], 2),
        "default_ratio": round(rate["small"] / rate["rival"], 2),
        "overhead_share": round(outside["original"], 4),
        "small_overhead_share": round(outside["small"], 4),
        "gemm_share": round(gflops["original"] / peaks[fast], 3),
        "float32_gemm_share": round(gflops["original in float32"] / peaks["float32"], 3),
        "precision": fast,
        "augment_ratio": augment_ratio(),
        "peak_memory_mb": round(memory),
        "device": options.device,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
