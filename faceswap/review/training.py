"""Trainings as the browser shows them: curves, previews, advice, and how one is started."""

import re
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from faceswap.config import identity_name
from faceswap.errors import InputError, SettingsError
from faceswap.review.workspace import METRICS, Place

PREVIEW = re.compile(r"step-([0-9]{9})\.png")
RECENT = 20.0  # seconds; a save or a preview takes longer than a second
MOST_POINTS = 600  # of a curve
GAIN = 0.002  # a score rises if it exceeds the best one so far by this
FLAT_MINUTES, FLAT_SHARE = 5.0, 0.25  # flat for that long, and for this share of the training
SERIES = {
    "loss_a": "loss a", "loss_b": "loss b", "ssim_a": "SSIM a", "ssim_b": "SSIM b",
    "sharp_a": "sharpness a", "sharp_b": "sharpness b",
}  # fmt: skip


class TrainRequest(msgspec.Struct):
    """A training as the browser asks for it.

    Attributes:
        a: Id of a's faceset.
        b: Id of b's faceset.
        model: The architecture.
        minutes: For how long from now on; None until it is stopped.
    """

    a: str
    b: str
    model: Literal["auto", "small", "medium", "large", "original"] = "auto"
    minutes: Annotated[float, Meta(ge=0.1, le=100_000)] | None = None


class ContinueRequest(msgspec.Struct):
    """How long a model is trained on.

    Attributes:
        minutes: For how long from now on; None until it is stopped.
    """

    minutes: Annotated[float, Meta(ge=0.1, le=100_000)] | None = None


def arguments(asked: TrainRequest, a: Place, b: Place, folder: Path, root: Path) -> list[str]:
    """Return the command that trains as asked.

    The command counts the minutes of earlier runs, too, so those are added.

    Args:
        asked: What is asked for.
        a: a's faceset.
        b: b's faceset.
        folder: The model's folder, which need not exist yet.
        root: The workspace.

    Raises:
        InputError: If the numbers of earlier runs cannot be read.
        SettingsError: If a and b are the same faceset.
    """
    if a.id == b.id:
        raise SettingsError("a and b are the same faceset; choose two people")
    args = ["train", "--a", f"./{a.name}", "--b", f"./{b.name}", "--model", asked.model]
    args += ["--output", f"./{folder.relative_to(root).as_posix()}"]
    if asked.minutes:
        args += ["--minutes", f"{asked.minutes + _minutes(_records(folder)):g}"]
    return args


def folder_of(a: Place, b: Place, root: Path) -> Path:
    """Return the folder of the model that is trained on two facesets by default."""
    return root / "models" / "-".join(identity_name(place.path) for place in (a, b))


def _records(folder: Path) -> list[dict[str, Any]]:
    from faceswap.training.curves import read_metrics

    try:
        return read_metrics(folder / METRICS) if (folder / METRICS).exists() else []
    except OSError as error:
        raise InputError("this training is gone") from error


def progress(folder: Path) -> dict[str, Any]:
    """Return the curves of a training with the margins of held-out scores, previews and advice.

    Raises:
        InputError: If the folder is gone.
    """
    records = _records(folder)
    try:
        previews = sorted(
            int(found[1]) for path in (folder / "previews").glob("*.png")
            if (found := PREVIEW.fullmatch(path.name)) and not path.is_symlink()
        )  # fmt: skip
    except OSError as error:
        raise InputError("this training is gone") from error
    series = {name: _series(records, name) for name in SERIES}
    margins = {name: _series(records, f"{name}_margin") for name in SERIES}
    minutes = _minutes(records)
    return {
        "step": records[-1]["step"] if records else 0,
        "minutes": round(minutes, 1),
        "running": is_running(folder),
        "series": {name: points for name, points in series.items() if points},
        "margins": {name: points for name, points in margins.items() if points},
        "names": SERIES,
        "previews": previews,
        "advice": advice(records),
    }


def is_running(folder: Path) -> bool:
    """Return whether a training has just written numbers, as it does about once a second."""
    try:
        return time.time() - (folder / METRICS).stat().st_mtime < RECENT
    except OSError:
        return False


def _minutes(records: list[dict[str, Any]]) -> float:
    return max((float(r.get("seconds", 0)) for r in records), default=0.0) / 60


def _series(records: list[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """Return minutes and values of one curve, at most ``MOST_POINTS`` evenly spaced ones."""
    points = [
        (round(float(r["seconds"]) / 60, 3), float(r[name])) for r in records
        if isinstance(r.get(name), float | int) and isinstance(r.get("seconds"), float | int)
    ]  # fmt: skip
    step = max(len(points) // MOST_POINTS, 1)
    return points[::-step][::-1]


def advice(records: list[dict[str, Any]]) -> list[str]:
    """Return what the held-out scores say about going on."""
    minutes = _minutes(records)
    told = []
    for title, names in (
        ("sharpness", ("sharp_a", "sharp_b")), ("likeness to the photos", ("ssim_a", "ssim_b")),
    ):  # fmt: skip
        scores = [
            (float(r["seconds"]) / 60, sum(float(r[name]) for name in names) / len(names))
            for r in records if all(isinstance(r.get(name), float | int) for name in names)
        ]  # fmt: skip
        if len(scores) < 4:
            continue
        best, since = scores[0][1], scores[0][0]
        for when, score in scores:
            if score > best + GAIN:
                best, since = score, when
        flat = minutes - since
        if flat >= FLAT_MINUTES and flat >= FLAT_SHARE * minutes:
            told.append(f"The held-out {title} has been flat for {flat:.0f} minutes.")
    if len(told) == 2:
        told.append("More training gains little: stop it, and convert a preview.")
    return told
