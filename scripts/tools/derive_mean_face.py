#!/usr/bin/env python3
"""Derive faceswap/faces/mean_face.json, the template that faces are aligned to, from classic crops.

In a classic crop of 256 px the mean face's unit square is the middle 160 px. The template is the
mean of the landmarks in many such crops, converted from crop pixels to that square. Only HOG
detections count, because the landmark model was trained on HOG's boxes. The mean is made symmetric,
because training mirrors faces.

    scripts/tools/derive_mean_face.py FOLDER [FOLDER ...]
"""

import json
import sys
from pathlib import Path

import numpy as np

from faceswap.arrays import Points
from faceswap.faces.detection import detect_hog
from faceswap.files import write_bytes
from faceswap.media.photos import read_photo
from faceswap.media.sources import search

CROP, SQUARE = 256, 160
TARGET = Path(__file__).resolve().parents[2] / "faceswap" / "faces" / "mean_face.json"
# index of each landmark's mirror image, for landmarks 0..67
MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    *range(45, 41, -1), 47, 46, *range(39, 35, -1), 41, 40, *range(54, 47, -1),
    *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
]  # fmt: skip


def landmarks_of(folder: Path) -> list[Points]:
    """Landmarks (68, 2) of the largest HOG face in each 256 px photo of a folder."""
    found = []
    for path in search(folder).photos:
        image = read_photo(path).image
        if image.shape[:2] != (CROP, CROP):
            raise SystemExit(f"{path} is {image.shape[1]}x{image.shape[0]}, not a {CROP} px crop")
        found += [face.landmarks for face in detect_hog(image, min_score=0.2)[:1]]
    return found


def main(folders: list[Path]) -> None:
    """Average over all folders with equal weight and write the template."""
    if not folders:
        raise SystemExit(__doc__)
    people = {folder.name: landmarks_of(folder) for folder in folders}
    mean = np.mean([np.mean(faces, axis=0) for faces in people.values()], axis=0)
    mirrored = mean[MIRROR] * [-1, 1] + [CROP - 1, 0]
    mean = (mean + mirrored) / 2
    unit = (mean + 0.5 - (CROP - SQUARE) / 2) / SQUARE
    record = {
        "source": f"mean of {sum(map(len, people.values()))} faces, made symmetric",
        "landmarks": [[round(float(x), 5), round(float(y), 5)] for x, y in unit[17:]],
    }
    write_bytes(TARGET, (json.dumps(record, indent=1) + "\n").encode())
    print({name: len(faces) for name, faces in people.items()}, "->", TARGET)
    print("extent", unit[17:].min(axis=0), unit[17:].max(axis=0))


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
