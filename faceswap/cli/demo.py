"""The demo: make two identities and a clip from public-domain photos, then run the real stages.

Photos: Eileen Collins, NASA (``skimage.data.astronaut``); Grace Hopper, US Navy (matplotlib's
sample data). Both are works of the US government and are part of those packages.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from faceswap.arrays import Image, Matrix
from faceswap.config import ConvertConfig, ExtractConfig, TrainConfig
from faceswap.faces.detection import detect_hog
from faceswap.faces.geometry import warp_image
from faceswap.facesets.extractor import extract
from faceswap.files import atomic_write, write_bytes
from faceswap.media import photos, reader
from faceswap.media.writers import write_clip
from faceswap.swapping.converter import convert
from faceswap.swapping.plan import signer_for
from faceswap.training import curves
from faceswap.training.trainer import train
from faceswap.types import OnProgress, Progress

PEOPLE = ("collins", "hopper")
VARIANTS = 100  # photos per identity
VARIANT_SIDE, VARIANT_FACE = 320, 130  # pixels: side of a photo, mean side of the face box in it
LEAST_PACE = 150  # steps for each minute asked for, half of what two quiet cores take
CLIP_SIZE, CLIP_FACE = (640, 480), 170  # pixels: width and height, mean side of the face box
CLIP_FRAMES, CLIP_RATE, SAMPLE_RATE = 100, 25, 48000
CLIP, SWAPPED, SHEET = "clip.mp4", "clip.swapped.mp4", "demo.png"

Stage = Callable[[OnProgress], object]


def stages(folder: Path, minutes: float) -> Iterator[tuple[str, Stage]]:
    """Yield each stage as a title and a function of ``on_progress``.

    Stages reuse the photos, facesets and model of an earlier run in the folder. ``minutes`` is the
    training time of all runs together. On a busy or slow machine training goes on until it has
    taken enough steps for faces that are not a blur.
    """
    a, b = PEOPLE
    data, model = folder / "data", folder / "models" / f"{a}-{b}"
    yield f"1/6 making photos of {a} and {b} and a clip of {a}", partial(_make_data, folder)
    for number, name in enumerate(PEOPLE, start=2):
        yield f"{number}/6 faceswap extract {data / name}", _extract(data / name)
    settings = TrainConfig(model="small", device="cpu", minutes=minutes, preview_every=0)
    yield (
        f"4/6 faceswap train --a {data / a} --b {data / b} --output {model} --minutes {minutes:g}",
        lambda watch: _train(data / a / "faces", data / b / "faces", model, settings, watch),
    )
    yield (
        f"5/6 faceswap convert {folder / CLIP} --model {model}",
        lambda watch: convert(folder / CLIP, folder / SWAPPED, model,
                              ConvertConfig(device="cpu", overwrite=True), watch),
    )  # fmt: skip
    yield "6/6 drawing the image", lambda watch: _draw(folder, model, watch)


def _extract(folder: Path) -> Stage:
    return lambda watch: extract(folder, None, ExtractConfig(), watch)


def _train(a: Path, b: Path, model: Path, settings: TrainConfig, on_progress: OnProgress) -> None:
    """Train for the requested minutes, and then on until there are enough steps."""
    report = train(a, b, model, settings, on_progress)
    steps = math.ceil(LEAST_PACE * (settings.minutes or 0))
    if not report.interrupted and report.step < steps:
        report = train(a, b, model, replace(settings, minutes=None, steps=steps), on_progress)
    if report.interrupted:
        raise KeyboardInterrupt  # train() has saved the model, so the demo can stop here


def public_photos() -> dict[str, Image]:
    """Return the two public-domain photos by name, (H, W, 3)."""
    from matplotlib.cbook import get_sample_data
    from skimage.data import astronaut

    hopper = Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    collins: Image = astronaut()  # type: ignore[no-untyped-call]
    return {"collins": collins, "hopper": photos.read_photo(hopper).image}


def _make_data(folder: Path, on_progress: OnProgress) -> None:
    photos = public_photos()
    total, done = len(photos) * VARIANTS + 1, 0
    for seed, (name, photo) in enumerate(photos.items()):
        random = np.random.default_rng(seed)
        center, side = _face_box(photo)
        for number in range(VARIANTS):
            path = folder / "data" / name / f"{number:03d}.jpg"
            variant = _variant(photo, center, side, random)
            if not path.is_file():
                bgr = cv2.cvtColor(variant, cv2.COLOR_RGB2BGR)
                _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])
                write_bytes(path, jpeg.tobytes())
            done += 1
            on_progress(Progress(done, total, "photos"))
    if not (folder / CLIP).is_file():
        write_clip(folder / CLIP, _clip(photos[PEOPLE[0]]), CLIP_RATE, _chime(), SAMPLE_RATE)
    on_progress(Progress(total, total, "photos"))


def _face_box(photo: Image) -> tuple[tuple[float, float], float]:
    """Return the centre (x, y) and the width of the face box in a photo, in pixels."""
    box = detect_hog(photo, 0.2)[0].box
    return ((box.left + box.right) / 2, (box.top + box.bottom) / 2), box.right - box.left


def _placement(
    center: tuple[float, float], scale: float, degrees: float, to: tuple[float, float]
) -> Matrix:
    """Return the matrix that rotates and scales around ``center``, then moves it to ``to``."""
    matrix: Matrix = cv2.getRotationMatrix2D(center, degrees, scale).astype(np.float64)
    matrix[:, 2] += np.subtract(to, center)
    return matrix


def _variant(
    photo: Image, center: tuple[float, float], side: float, random: np.random.Generator
) -> Image:
    """Return a random variant: rotated, moved, scaled, relit, and mirrored half of the time."""
    scale = VARIANT_FACE / side * random.uniform(0.85, 1.15)
    to = VARIANT_SIDE / 2 + random.uniform(-12, 12, 2)
    matrix = _placement(center, scale, random.uniform(-12, 12), (to[0], to[1]))
    variant = warp_image(photo, matrix, VARIANT_SIDE, VARIANT_SIDE)
    if random.random() < 0.5:
        variant = variant[:, ::-1]
    return _lit(variant, random.uniform(0.75, 1.2), random.uniform(-0.06, 0.06, 3))


def _lit(image: Image, gain: float, tint: npt.NDArray[np.float64]) -> Image:
    """Change the exposure by a gamma curve, which does not clip highlights, and tint the light."""
    scaled = (image / 255.0) ** (1 / gain) * (1 + tint)
    lit: Image = np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)
    return lit


def _clip(photo: Image) -> Iterator[Image]:
    """Yield frames in which the person sways, nods and comes closer while the light changes."""
    center, side = _face_box(photo)
    width, height = CLIP_SIZE
    for t in np.linspace(0, 2 * np.pi, CLIP_FRAMES):
        scale = CLIP_FACE / side * (1 + 0.12 * np.sin(t))
        to = (width / 2 + 60 * np.sin(2 * t), height / 2 - 10 + 20 * np.cos(3 * t))
        frame = warp_image(photo, _placement(center, scale, 8 * np.sin(2 * t), to), width, height)
        yield _lit(frame, 1 + 0.12 * np.sin(3 * t), np.zeros(3))


def _chime() -> npt.NDArray[np.int16]:
    """Synthesise a chime of four falling notes, one per second, (N,) int16."""
    seconds = np.arange(SAMPLE_RATE * CLIP_FRAMES // CLIP_RATE) / SAMPLE_RATE
    pitch = np.array([659.3, 587.3, 523.3, 440.0])[(seconds // 1).astype(int) % 4]
    wave = np.sin(2 * np.pi * pitch * seconds) * np.exp(-3 * (seconds % 1))
    samples: npt.NDArray[np.int16] = (wave * 8000).astype(np.int16)
    return samples


def _draw(folder: Path, model: Path, on_progress: OnProgress) -> None:
    """Draw original, swap, last training preview and loss curve as one signed PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picks = [CLIP_FRAMES // 8, CLIP_FRAMES // 2, CLIP_FRAMES * 7 // 8]
    columns = [_frames(folder / name, picks) for name in (CLIP, SWAPPED)]
    preview = photos.read_photo(sorted((model / "previews").glob("*.png"))[-1]).image
    figure = Figure(figsize=(19, 8.2), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(picks), 4, width_ratios=[3.6, 3.6, 6.0, 4.6])
    for column, (title, frames) in enumerate(zip(("original", "swapped"), columns, strict=True)):
        for row, frame in enumerate(frames):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(frame)
            axes.set_axis_off()
            if not row:
                axes.set_title(title)
    axes = figure.add_subplot(grid[:, 2])
    axes.imshow(preview, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title("a | a as a | a as b | b | b as b | b as a")
    axes = figure.add_subplot(grid[:, 3])
    curves.draw_series(axes, curves.read_metrics(model / "metrics.jsonl"), "loss")
    axes.set(title="training loss", xlabel="step", yscale="log")
    with atomic_write(folder / SHEET) as temporary:
        figure.savefig(temporary, dpi=100)
        signer = signer_for([model], ConvertConfig())[0]
        signer.sign(temporary, folder / SHEET, folder / CLIP)
    on_progress(Progress(1, 1, "images"))


def _frames(path: Path, indices: list[int]) -> list[Image]:
    return [frame.image for frame in reader.read_video(path) if frame.index in indices]
