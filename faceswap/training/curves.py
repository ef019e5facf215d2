"""Draw the loss and score curves of a training run from ``metrics.jsonl``."""

import io
import json
import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from faceswap.files import read_lines

COLORS = {"a": "tab:blue", "b": "tab:orange"}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the records of ``metrics.jsonl``; skip damaged lines. A missing file has none."""
    records = []
    for line in read_lines(path) if path.is_file() else []:
        try:
            record = json.loads(line)
            if isinstance(record, dict) and math.isfinite(record["step"]):
                records.append(record)
        except (KeyError, TypeError, ValueError):
            continue
    return records


def draw_series(axes: Axes, records: list[dict[str, Any]], name: str, style: str = "-") -> None:
    """Plot the values of ``{name}_a`` and ``{name}_b`` against the training step.

    Records that lack a value are skipped.
    """
    for key, color in COLORS.items():
        points = [(r["step"], r[f"{name}_{key}"]) for r in records if f"{name}_{key}" in r]
        if points:
            label = key if style == "-" else None
            axes.plot(*zip(*points, strict=True), style, color=color, label=label)
    if axes.lines:
        axes.legend()


def curves(path: Path) -> bytes:
    """Return a PNG with charts of the loss and of the held-out scores from ``metrics.jsonl``."""
    records = read_metrics(path)
    figure, (loss, ssim) = side_by_side(4)
    draw_series(loss, records, "loss")
    loss.set(title="training loss", xlabel="step", yscale="log")
    draw_series(ssim, records, "ssim")
    draw_series(ssim, records, "sharp", "--")
    ssim.set(title="SSIM (solid) and sharpness of held-out faces", xlabel="step")
    return as_png(figure)


def side_by_side(height: float) -> tuple[Figure, tuple[Axes, Axes]]:
    """Return an empty figure of the given height in inches, and its two charts."""
    figure = Figure(figsize=(11, height), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    return figure, (left, right)


def as_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
