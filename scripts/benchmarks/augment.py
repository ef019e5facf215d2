#!/usr/bin/env python3
"""Benchmark augmentation against the classic loop over images, alternating in one run.

Both turn 256 px crops into 64 px warped inputs and targets with the same random numbers. Ours takes
uint8 batches of 64; the loop takes one float64 image at a time, as the classic programs do. Prints
medians and, as the last line, one JSON object.

    scripts/benchmarks/augment.py [--threads N] [--rounds N]
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from faceswap.models.architectures import PRESETS
from faceswap.training import augment
from tests.support.reference import reference_transform, reference_warp

BATCH = 64
MODEL = PRESETS["original"]


def ours(
    faces: torch.Tensor, noise: augment.TransformNoise, warp: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment one batch, with transform and warp in a single resampling."""
    matrices = augment.transform_matrices(noise, faces.shape[-1])
    return augment.random_warp(faces, warp, MODEL, matrices)


def loop(images: np.ndarray, noise: augment.TransformNoise, warp: torch.Tensor) -> np.ndarray:
    """Augment the same batch image by image."""
    results = []
    for i, image in enumerate(images):
        numbers = (noise.angle, noise.zoom, noise.shift_x, noise.shift_y, noise.flip)
        moved = reference_transform(image, *(float(field[i]) for field in numbers))
        results.append(reference_warp(np.ascontiguousarray(moved), warp[i].numpy() * 160))
    return np.array(results)


def seconds(call: Callable[..., object], *args: object) -> float:
    """Wall-clock seconds of a call."""
    began = time.perf_counter()
    call(*args)
    return time.perf_counter() - began


def main() -> None:
    """Run both in turn and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="threads for both (default 1)")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    generator = torch.Generator().manual_seed(0)
    small = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator)
    faces = torch.nn.functional.interpolate(small, size=(256, 256), mode="bilinear")
    images = faces.permute(0, 2, 3, 1).numpy() / 255.0
    times: dict[str, list[float]] = {"ours": [], "loop": []}
    differences = []
    for round_ in range(options.rounds + 1):
        noise = augment.draw_transform(BATCH, generator)
        warp = augment.draw_warp(BATCH, generator)
        pair = {
            "ours": seconds(ours, faces, noise, warp),
            "loop": seconds(loop, images, noise, warp),
        }
        if round_:  # the first round warms up
            for name, value in pair.items():
                times[name].append(value)
        else:
            batch = torch.stack(ours(faces, noise, warp), 1).permute(0, 1, 3, 4, 2).numpy()
            differences.append(float(np.abs(batch - loop(images, noise, warp)).mean() * 255))
    per_image = {name: float(np.median(values)) / BATCH * 1e6 for name, values in times.items()}
    ratios = [b / a for a, b in zip(times["ours"], times["loop"], strict=True)]
    print(f"loop {per_image['loop']:.0f} us, ours {per_image['ours']:.0f} us per image")
    print(
        json.dumps(
            {
                "augment_ratio": round(float(np.median(ratios)), 2),
                "ratio_min": round(min(ratios), 2),
                "ratio_max": round(max(ratios), 2),
                "threads": options.threads,
                "mean_difference_grey_levels": round(differences[0], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
