#!/usr/bin/env python3
"""Measure the watermark and the look for explicit footage.

    scripts/benchmarks/marking.py robustness CLIPS PHOTOS     the tables of docs/marking.md
    scripts/benchmarks/marking.py false-alarms CLIPS PHOTOS [--pictures 10000]
    scripts/benchmarks/marking.py explicit CLIPS PHOTOS       scores of these, and ways round

CLIPS is a folder of videos, of which the first five seconds are used, PHOTOS a folder of photos.
The watermark is added to whole frames, as ``convert`` does to those in which it swaps a face. Three
more clips are made of the first ones: a darkened one and two crops. Every video is encoded with
x264 at crf 18 first, as ``convert`` does by default; that is no change in the tables.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from skimage.metrics import structural_similarity

from faceswap.arrays import Image
from faceswap.media.footage import video_at
from faceswap.media.frame import gray_of_rgb, rounded
from faceswap.media.photos import read_photo
from faceswap.provenance.watermark import MIN_SCORE, Detector, Watermark, digits_of
from faceswap.swapping import explicit
from faceswap.swapping.verification import EVERY, WINDOW
from faceswap.types import ignore_progress

PAYLOAD = 0xDEADBEEF
FLAGGED = Path(__file__).resolve().parents[2] / "tests" / "support" / "flagged.png"
PHOTOS = 20
Frames = list[Image]
RATE = 30


def encoded(frames: Frames, crf: int, codec: str = "libx264", preset: str = "medium") -> Frames:
    """Encode frames as video, and decode them."""
    file = BytesIO()
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    with av.open(file, "w", format="matroska") as out:
        options = {"crf": str(crf), "preset": preset}
        if codec == "libx265":
            options["x265-params"] = "log-level=none"
        stream: Any = out.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, image in enumerate(frames):
            part = np.ascontiguousarray(image[:height, :width])
            frame = av.VideoFrame.from_ndarray(part, format="rgb24").reformat(format="yuv420p")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        decoded = container.decode(video=0)
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in decoded]


def scaled(image: Image, factor: float) -> Image:
    height, width = image.shape[:2]
    size = round(width * factor / 2) * 2, round(height * factor / 2) * 2
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def cropped(image: Image, share: float) -> Image:
    """Cut out a part, off the centre."""
    height, width = image.shape[:2]
    top, left = (round(side * (1 - share) * at) for side, at in ((height, 0.3), (width, 0.7)))
    return image[top : top + round(height * share), left : left + round(width * share)]


def rotated(image: Image, degrees: float) -> Image:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.05)
    return np.asarray(cv2.warpAffine(image, matrix, (width, height)), np.uint8)


def boxed(image: Image) -> Image:
    height = image.shape[0]
    return np.pad(image, ((height // 8, height // 8), (0, 0), (0, 0)))


def as_jpeg(image: Image, quality: int) -> Image:
    file = BytesIO()
    Pillow.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Pillow.open(file), np.uint8)


def each(change: Callable[[Image], Image], crf: int = 23) -> Callable[[Frames], Frames]:
    return lambda frames: encoded([np.ascontiguousarray(change(image)) for image in frames], crf)


VIDEO_CHANGES: dict[str, Callable[[Frames], Frames]] = {
    "none": lambda frames: frames,
    "crf 23": lambda frames: encoded(frames, 23),
    "crf 28": lambda frames: encoded(frames, 28),
    "HEVC, crf 28": lambda frames: encoded(frames, 28, "libx265"),
    "two thirds of the size, crf 23": each(lambda image: scaled(image, 2 / 3)),
    "half the size, crf 23": each(lambda image: scaled(image, 0.5)),
    "crop to 80 % of each side, crf 23": each(lambda image: cropped(image, 0.8)),
    "crf 23 twice": lambda frames: encoded(encoded(frames, 23), 23),
    "the middle second, crf 23": lambda frames: encoded(frames[60:90], 23),
    "mirrored, crf 23": each(lambda image: image[:, ::-1]),
    "letter box, crf 23": each(boxed),
    "crop to 60 %, crf 23": each(lambda image: cropped(image, 0.6)),
    "a third of the size, crf 23": each(lambda image: scaled(image, 1 / 3)),
    "crf 38": lambda frames: encoded(frames, 38),
    "stretched by 5 %, crf 23": each(
        lambda image: np.asarray(cv2.resize(image, None, fx=1.05, fy=1), np.uint8)
    ),
    "rotated by 1 degree, crf 23": each(lambda image: rotated(image, 1)),
    "rotated by 5 degrees, crf 23": each(lambda image: rotated(image, 5)),
}
PHOTO_CHANGES: dict[str, Callable[[Image], Image]] = {
    "none": lambda image: image,
    "JPEG 75": lambda image: as_jpeg(image, 75),
    "JPEG 50": lambda image: as_jpeg(image, 50),
    "two thirds of the size, JPEG 90": lambda image: as_jpeg(scaled(image, 2 / 3), 90),
    "half the size": lambda image: scaled(image, 0.5),
    "half the size, JPEG 75": lambda image: as_jpeg(scaled(image, 0.5), 75),
    "crop to 80 % of each side, JPEG 75": lambda image: as_jpeg(
        np.ascontiguousarray(cropped(image, 0.8)), 75
    ),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
    "rotated by 1 degree": lambda image: rotated(image, 1),
}


def marked(image: Image) -> Image:
    delta = Watermark(PAYLOAD).delta(gray_of_rgb(image))
    return rounded(image + delta[..., np.newaxis])


def looked_at(frames: Frames) -> Detector:
    """Add up frames as ``verify`` does."""
    detector = Detector()
    for image in frames[:WINDOW:EVERY]:
        detector.add(gray_of_rgb(image))
    return detector


def quality(before: Frames, after: Frames) -> tuple[float, float]:
    """Return the mean PSNR in dB and SSIM of frames."""
    pairs = [(one.astype(float), other) for one, other in zip(before, after, strict=True)]
    errors = [((one - other) ** 2).mean() for one, other in pairs]
    ssim: Any = structural_similarity
    likeness = [ssim(one, other.astype(float), channel_axis=2, data_range=255)
                for one, other in pairs[::10]]  # fmt: skip
    return 10 * math.log10(255**2 / float(np.mean(errors))), float(np.mean(likeness))


def clips_of(folder: Path) -> Iterator[tuple[str, Frames]]:
    """Yield clips by name, and a darkened one and two crops of the first."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".mp4", ".mov", ".mkv"))
    for number, path in enumerate(paths):
        frames = [frame.image for frame in islice(video_at(path).read(), WINDOW)]
        yield path.stem, frames
        if number == 0:
            yield f"{path.stem}, darkened", [(image * 0.4).astype(np.uint8) for image in frames]
            half = [np.ascontiguousarray(cropped(image, 0.5)) for image in frames]
            yield f"{path.stem}, a quarter of it", half


def photos_of(folder: Path) -> Iterator[tuple[str, Image]]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    for path in paths[:: max(len(paths) // PHOTOS, 1)][:PHOTOS]:
        yield path.stem, read_photo(path).image


def table(rows: dict[str, list[tuple[float, str]]], what: str) -> None:
    """Print one line for each change: how often it was found, lowest score, wrong digits."""
    print(f"\n| change | found, of {what} | lowest score | digits read, wrong ones |")
    print("|---|---|---|---|")
    named = f"{PAYLOAD:08x}"
    for change, results in rows.items():
        found = [(score, digits) for score, digits in results if score >= MIN_SCORE]
        read = sum(digit != "?" for _, digits in found for digit in digits)
        wrong = sum(digit not in ("?", other) for _, digits in found
                    for digit, other in zip(digits, named, strict=True))  # fmt: skip
        lowest = min(score for score, _ in results)
        share = f"{read / max(8 * len(found), 1):.0%}"
        print(f"| {change} | {len(found)} of {len(results)} | {lowest:.1f} | {share}, {wrong} |",
              flush=True)  # fmt: skip


def result_of(detector: Detector) -> tuple[float, str]:
    best = detector.best()
    assert best is not None, "there are pictures"
    return best.score, digits_of(best.bits)


def robustness(clips: Path, photos: Path) -> None:
    """Print the tables."""
    rows: dict[str, list[tuple[float, str]]] = {change: [] for change in VIDEO_CHANGES}
    print("| clip | PSNR | SSIM | ms per frame, one core |\n|---|---|---|---|")
    cv2.setNumThreads(1)
    for name, frames in clips_of(clips):
        gray = [gray_of_rgb(image) for image in frames[:30]]
        Watermark(PAYLOAD).delta(gray[0])
        began = time.perf_counter()
        for each_gray in gray:
            Watermark(PAYLOAD).delta(each_gray)
        spent = (time.perf_counter() - began) / len(gray) * 1000
        new = [marked(image) for image in frames]
        psnr, ssim = quality(frames, new)
        height, width = frames[0].shape[:2]
        print(
            f"| {name}, {width}x{height} | {psnr:.1f} dB | {ssim:.4f} | {spent:.1f} |", flush=True
        )
        written = encoded(new, 18)
        for change, apply in VIDEO_CHANGES.items():
            rows[change].append(result_of(looked_at(apply(written))))
    table(rows, "clips")
    rows = {change: [] for change in PHOTO_CHANGES}
    values = []
    for _, image in photos_of(photos):
        new_image = marked(image)
        values.append(quality([image], [new_image]))
        for change, alter in PHOTO_CHANGES.items():
            rows[change].append(result_of(looked_at([alter(new_image)])))
    lowest = np.min(values, axis=0)
    print(f"\nPhotos: PSNR at least {lowest[0]:.1f} dB, SSIM at least {lowest[1]:.4f}")
    table(rows, "photos")


def synthetic(number: int) -> Image:
    """Return a picture of random shapes, textures, gradients, stripes or noise, (H, W, 3)."""
    chance = np.random.default_rng(number)
    height, width = int(chance.integers(120, 720)), int(chance.integers(160, 1280))
    levels: npt.NDArray[np.float64] = np.full((height, width), chance.uniform(0, 255))
    for _ in range(int(chance.integers(1, 7))):
        kind, size = chance.integers(5), int(chance.integers(2, 90))
        amount = chance.uniform(2, 80)
        if kind == 0:
            small = chance.normal(0, 1, (height // size + 2, width // size + 2))
            levels += amount * cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
        elif kind == 1:
            down, across = np.mgrid[:height, :width]
            turn = chance.uniform(0, math.pi)
            levels += amount * np.sin((down * math.sin(turn) + across * math.cos(turn)) / size)
        elif kind == 2:
            for _ in range(size):
                x, y = int(chance.integers(width)), int(chance.integers(height))
                cv2.circle(levels, (x, y), int(chance.integers(2, 80)), chance.uniform(0, 255), -1)
        elif kind == 3:
            levels += amount * np.linspace(-1, 1, width)
        else:
            levels += chance.normal(0, amount / 4, levels.shape)
    gray = np.clip(levels, 0, 255).astype(np.uint8)
    return np.dstack([gray] * 3)


def false_alarms(clips: Path, photos: Path, pictures: int, first: int) -> None:
    """Count watermarks that are found where there are none."""
    scores: dict[str, list[float]] = {"clips": [], "photos": [], "synthetic pictures": []}
    for path in sorted(clips.iterdir()):
        if path.suffix in (".mp4", ".mov", ".mkv"):
            frames = [frame.image for frame in video_at(path).read()]
            for start in range(0, len(frames), WINDOW):
                scores["clips"].append(result_of(looked_at(frames[start : start + WINDOW]))[0])
    for path in sorted(photos.rglob("*")):
        if path.suffix in (".jpg", ".png"):
            scores["photos"].append(result_of(looked_at([read_photo(path).image]))[0])
    for number in range(first, first + pictures):
        scores["synthetic pictures"].append(result_of(looked_at([synthetic(number)]))[0])
    for what, found in scores.items():
        alarms = sum(score >= MIN_SCORE for score in found)
        highest = max(found, default=0.0)
        print(f"{what}: {alarms} false alarms in {len(found)}, highest score {highest:.1f} "
              f"(limit {MIN_SCORE:.1f})", flush=True)  # fmt: skip


def between_blurred_bars(image: Image) -> Image:
    """Show a picture upright in the middle of a wide, blurred one, as phones and news do."""
    wide = cv2.GaussianBlur(cv2.resize(image, (640, 360)), (0, 0), 30)
    wide[:, 219:421] = cv2.resize(image, (202, 360))
    return np.asarray(wide, np.uint8)


def inset(image: Image, share: float) -> Image:
    """Show a picture in the corner of another one, on a share of its area."""
    side = round(360 * math.sqrt(share * 640 / 360))
    frame = np.asarray(cv2.GaussianBlur(synthetic(1), (0, 0), 3), np.uint8)
    frame = np.asarray(cv2.resize(frame, (640, 360)), np.uint8)
    frame[-side:, -side:] = cv2.resize(image, (side, side))
    return frame


def in_grey(image: Image) -> Image:
    return np.dstack([gray_of_rgb(image)] * 3)


WAYS_ROUND: dict[str, Callable[[Image], Image]] = {
    "as it is": lambda image: image,
    "turned by 90 degrees": lambda image: np.rot90(image),
    "turned by 180 degrees": lambda image: np.rot90(image, 2),
    "turned by 10 degrees": lambda image: rotated(image, 10),
    "turned by 45 degrees": lambda image: rotated(image, 45),
    "mirrored": lambda image: image[:, ::-1],
    "letter box": boxed,
    "coloured border of a third": lambda image: np.asarray(
        cv2.copyMakeBorder(image, 86, 86, 86, 86, cv2.BORDER_CONSTANT, value=(20, 90, 50))
    ),
    "between blurred bars of itself": between_blurred_bars,
    "inset on a quarter": lambda image: inset(image, 0.25),
    "inset on a ninth": lambda image: inset(image, 1 / 9),
    "64 pixels small": lambda image: scaled(image, 0.25),
    "32 pixels small": lambda image: scaled(image, 0.125),
    "stretched to 16:9": lambda image: np.asarray(cv2.resize(image, (640, 360)), np.uint8),
    "darkened to a fifth": lambda image: (image * 0.2).astype(np.uint8),
    "in grey": in_grey,
    "JPEG 20": lambda image: as_jpeg(image, 20),
}


def look_for_explicit(clips: Path, photos: Path) -> None:
    """Print the scores of harmless clips and photos, and of a flagged picture in disguise."""
    scores = {
        path.name: explicit.score_of(read_photo(path).image)
        for path in sorted(photos.rglob("*")) if path.suffix in (".jpg", ".png")
    }  # fmt: skip
    for path in sorted(clips.iterdir()):
        if path.suffix in (".mp4", ".mov", ".mkv"):
            frames = ((frame, True) for frame in video_at(path).read())
            seen = explicit._to_look_at(frames, None, ignore_progress)
            scores[path.name] = max(explicit.score_of(frame.image) for frame in seen)
    worst = sorted(scores, key=lambda name: -scores[name])[:5]
    alarms = sum(score >= explicit.LIMIT for score in scores.values())
    print(f"{alarms} false alarms in {len(scores)} photos and clips; highest scores "
          + ", ".join(f"{name} {scores[name]:.2f}" for name in worst))  # fmt: skip
    grid = np.asarray(Pillow.open(FLAGGED))
    picture = np.asarray(cv2.resize(grid, (256, 256), interpolation=cv2.INTER_CUBIC), np.uint8)
    print("\n| way round | score | refused |\n|---|---|---|")
    for way, change in WAYS_ROUND.items():
        score = explicit.score_of(np.ascontiguousarray(change(picture)))
        print(f"| {way} | {score:.2f} | {'yes' if score >= explicit.LIMIT else 'no'} |")


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("robustness", "false-alarms", "explicit"))
    parser.add_argument("clips", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    given = parser.parse_args()
    if given.what == "robustness":
        robustness(given.clips, given.photos)
    elif given.what == "explicit":
        look_for_explicit(given.clips, given.photos)
    else:
        false_alarms(given.clips, given.photos, given.pictures, given.first)


if __name__ == "__main__":
    main()
