#!/usr/bin/env python3
"""Count the faces that each detector finds, by size and angle, in frames and in a large photo.

    scripts/benchmarks/detection.py FOLDER [--heads N]

Heads from the portraits in FOLDER are pasted into a frame of 1280 x 720 pixels, at two places each,
upright, lying and upside down, and into a photo of 4000 x 3000. A face counts as found if a
detection's box overlaps its place by half. Prints the share found, and the milliseconds of one core
per frame.
"""

import argparse
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from faceswap.arrays import Image
from faceswap.faces.detection import DetectorSpec, detect_yunet
from faceswap.faces.geometry import Box, overlap
from faceswap.media.frame import Frame
from faceswap.media.photos import read_photo
from faceswap.media.sources import search

SIZES = (20, 24, 30, 50, 80, 120)  # width of the face's box in pixels
PLACES = ((0.2, 0.3), (0.7, 0.6))  # of the face's centre, as shares of the frame
DETECTORS = ("yunet", "blaze", "hog")
MARGIN = 0.3  # surroundings of the face that are pasted, as a share of its width
MIN_SCORE = 0.2


def heads_in(folder: Path, count: int) -> list[Image]:
    """Square crops around the faces of portraits, all faces as wide."""
    heads = []
    for path in search(folder).photos:
        image = read_photo(path).image
        for face in detect_yunet(image, MIN_SCORE)[:1]:
            box, side = face.box, face.box.right - face.box.left
            middle = (box.left + box.right) / 2, (box.top + box.bottom) / 2
            half = round((0.5 + MARGIN) * side)
            padded = cv2.copyMakeBorder(image, half, half, half, half, cv2.BORDER_REPLICATE)
            left, top = (round(at) for at in middle)
            heads.append(np.asarray(padded[top : top + 2 * half, left : left + 2 * half], np.uint8))
    step = max(len(heads) // count, 1)
    return heads[::step][:count]


def scene(width: int, height: int) -> Image:
    """A soft, coloured background."""
    noise = np.random.default_rng(0).integers(50, 170, (height // 40, width // 40, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def paste(image: Image, head: Image, size: int, place: tuple[float, float], turns: int) -> Box:
    """Paste a head into an image; return the face's box."""
    side = round((1 + 2 * MARGIN) * size)
    small = cv2.resize(np.rot90(head, turns), (side, side), interpolation=cv2.INTER_AREA)
    y, x = np.indices((side, side)) / (side / 2) - 1
    oval = np.clip((1 - x**2 - y**2) * 4, 0, 1)[..., None]
    center = [
        round(share * length) for share, length in zip(place, image.shape[1::-1], strict=True)
    ]
    left, top = (at - side // 2 for at in center)
    area = image[top : top + side, left : left + side]
    area[:] = area * (1 - oval) + small * oval
    half = size / 2
    return Box(center[0] - half, center[1] - half, center[0] + half, center[1] + half)


def main() -> None:
    """Print one table per angle, and a line for the large photo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--heads", type=int, default=10)
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    heads = heads_in(chosen.folder, chosen.heads)
    print(f"{len(heads)} heads, {len(PLACES)} places")
    for title, turns in (("upright", 0), ("lying", 1), ("upside down", 2)):
        print(title.ljust(14), *(f"{size:6} px" for size in SIZES), "   ms")
        for name in DETECTORS:
            spec, shares, seconds, frames = DetectorSpec(name), [], 0.0, 0
            for size in SIZES:
                found = 0
                for head in heads:
                    for place in PLACES:
                        image = scene(1280, 720)
                        box = paste(image, head, size, place, turns)
                        frame = Frame(image, 0, Fraction(0), Path("x"))
                        view = spec.view(frame, frame.gray(), middle=True, searched=True)
                        began = time.process_time()
                        faces = spec.detect_in_video(view, MIN_SCORE)
                        seconds, frames = seconds + time.process_time() - began, frames + 1
                        found += any(overlap(face.box, box) > 0.4 for face in faces)
                shares.append(found / len(heads) / len(PLACES))
            cells = (f"{100 * share:7.0f} %" for share in shares)
            print(name.ljust(14), *cells, f"{1000 * seconds / frames:5.0f}", flush=True)
    for name in DETECTORS:
        spec, found = DetectorSpec(name), 0
        began = time.process_time()
        for head in heads:
            image = scene(4000, 3000)
            box = paste(image, head, 130, PLACES[0], 0)
            found += any(overlap(f.box, box) > 0.4 for f in spec.detect(image, MIN_SCORE))
        seconds = (time.process_time() - began) / len(heads)
        print(f"130 px in 12 megapixels, {name}: {found} of {len(heads)}, {seconds:.2f} s each")


if __name__ == "__main__":
    main()
