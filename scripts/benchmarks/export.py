#!/usr/bin/env python3
"""Compare how fast an exported network runs in ONNX Runtime, TorchScript and torch, on the CPU.

    scripts/benchmarks/export.py MODEL [--rounds 5] [--faces 40]

All take the same crops with the same number of threads, one or eight at a time, in turns. Printed
are medians of faces per second, and their ratio to torch.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from faceswap.config import ExportConfig
from faceswap.models import modelfile
from faceswap.models.export import SwapNetwork, export_model


def runners(model: Path, folder: Path) -> dict[str, Callable[[torch.Tensor], Any]]:
    """Export a model; return what runs it, by name."""
    onnx, script = folder / "x.onnx", folder / "x.pt"
    export_model(model, onnx)
    export_model(model, script, ExportConfig(format="torchscript"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(onnx), options, ["CPUExecutionProvider"])
    network = SwapNetwork(modelfile.load(model), ExportConfig()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jit: Any = torch.jit
        loaded = jit.load(str(script))
    return {
        "torch": network, "TorchScript": loaded,
        "ONNX Runtime": lambda crops: session.run(None, {"crops": crops.numpy()}),
    }  # fmt: skip


@torch.no_grad()
def main() -> None:
    """Measure, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--faces", type=int, default=40)
    given = parser.parse_args()
    side = modelfile.load(given.model).network.config.crop_size
    with tempfile.TemporaryDirectory() as folder:
        found = runners(given.model, Path(folder))
        for batch in (1, 8):
            crops, rates = torch.rand(batch, 3, side, side), {name: [0.0] for name in found}
            for _ in range(given.rounds + 1):  # the first round warms up
                for name, runner in found.items():
                    began = time.perf_counter()
                    for _ in range(max(given.faces // batch, 1)):
                        runner(crops)
                    rates[name].append(given.faces / (time.perf_counter() - began))
            base = statistics.median(rates["torch"][2:])
            for name, values in rates.items():
                rate = statistics.median(values[2:])
                print(f"{batch} at a time, {name}: {rate:.1f} faces/s, {rate / base:.2f} of torch")


if __name__ == "__main__":
    main()
