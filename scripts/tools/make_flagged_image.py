#!/usr/bin/env python3
"""Make an image that shows nothing but that the classifier of explicit footage takes for explicit.

    scripts/tools/make_flagged_image.py [OUTPUT]

Tests need pictures that are refused, and no project should hold real ones. This starts from noise
on a coarse grid and follows the classifier's gradient until it is sure, whether the picture is
moved, mirrored, darkened, noisy or blurred. Needs ``pip install onnx``. Takes a minute.
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as fn
from onnx import numpy_helper
from PIL import Image

WEIGHTS = Path(__file__).resolve().parents[2] / "faceswap" / "weights" / "open_nsfw.onnx"
OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "support" / "flagged.png"
MEAN = (104.0, 117.0, 123.0)  # BGR
GRID, SIDE, INNER = 32, 256, 224
STEPS, RATE, SEED = 160, 0.08, 1


class Classifier:
    """Runs the ONNX file in torch, so that gradients reach the image."""

    def __init__(self, path: Path) -> None:
        graph = onnx.load(str(path)).graph
        self._nodes = graph.node
        self._known = {
            each.name: torch.tensor(np.array(numpy_helper.to_array(each)))
            for each in graph.initializer
        }

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, 2) of images (N, 224, 224, 3) BGR without their mean."""
        values = {**self._known, "input:0": image}
        for node in self._nodes:
            options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Softmax":
                logits: torch.Tensor = values[node.input[0]]
                return logits
            inputs = [values[name] for name in node.input]
            values[node.output[0]] = self._run(node.op_type, inputs, options)
        raise SystemExit(f"{WEIGHTS} does not end in a softmax")

    @staticmethod
    def _run(kind: str, inputs: list[Any], options: dict[str, Any]) -> torch.Tensor:
        first = inputs[0]
        top, left, bottom, right = options.get("pads", (0, 0, 0, 0))
        if kind == "Conv":
            weights, bias = inputs[1:]
            padded = fn.pad(first, (left, right, top, bottom))
            return fn.conv2d(padded, weights, bias, stride=options["strides"])
        if kind == "MaxPool":
            padded = fn.pad(first, (left, right, top, bottom), value=-np.inf)
            return fn.max_pool2d(padded, options["kernel_shape"], options["strides"])
        if kind == "AveragePool":
            return fn.avg_pool2d(first, options["kernel_shape"], options["strides"])
        simple: dict[str, Callable[[], torch.Tensor]] = {
            "Transpose": lambda: first.permute(*options.get("perm", ())),
            "Relu": lambda: fn.relu(first),
            "Add": lambda: first + inputs[1],
            "MatMul": lambda: first @ inputs[1],
            "Reshape": lambda: first.reshape(*[int(size) for size in inputs[1]]),
            "Cast": first.float,
        }
        return simple[kind]()


def disturbed(picture: torch.Tensor, chance: random.Random) -> torch.Tensor:
    """Return a picture (1, 3, S, S) in [0, 1] moved, mirrored, turned, darkened, noisy, blurred."""
    picture = torch.rot90(picture, chance.randrange(4), (2, 3))
    if chance.random() < 0.5:
        picture = picture.flip(3)
    small = chance.choice((64, 96, 128, SIDE))
    picture = fn.interpolate(picture, (small, small), mode="area")
    picture = fn.interpolate(picture, (SIDE, SIDE), mode="bilinear")
    x, y = (chance.randrange(SIDE - INNER) for _ in range(2))
    noise = 0.03 * torch.randn(1, 3, INNER, INNER)
    return picture[:, :, y : y + INNER, x : x + INNER] * chance.uniform(0.6, 1.0) + noise


def main() -> None:
    """Write the image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", nargs="?", type=Path, default=OUTPUT)
    output = parser.parse_args().output
    classifier, chance = Classifier(WEIGHTS), random.Random(SEED)  # noqa: S311 - no secret
    torch.manual_seed(SEED)
    grid = torch.randn(1, 3, GRID, GRID).mul(0.5).requires_grad_()
    optimizer = torch.optim.Adam([grid], RATE)
    mean = torch.tensor(MEAN)
    for _ in range(STEPS):
        picture = fn.interpolate(torch.sigmoid(grid), (SIDE, SIDE), mode="bicubic").clamp(0, 1)
        views = torch.cat([disturbed(picture, chance) for _ in range(4)])
        logits = classifier(views.flip(1).permute(0, 2, 3, 1) * 255 - mean)
        loss = fn.cross_entropy(logits, torch.ones(len(logits), dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        levels = (torch.sigmoid(grid)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    Image.fromarray(levels).save(output)
    print(f"{output}: loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
