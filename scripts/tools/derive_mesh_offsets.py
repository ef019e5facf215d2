#!/usr/bin/env python3
"""Derive faceswap/faces/mesh_offsets.json, the offsets from FaceMesh's points to dlib's landmarks.

Both models mark the faces that HOG finds in photos. The median difference in the mean face's unit
square is made symmetric and stored. Every tenth photo of a folder is held out to measure how far
the landmarks, and the aligned squares they give, are apart without and with the offsets.

    scripts/tools/derive_mesh_offsets.py FOLDER [FOLDER ...]
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from faceswap.arrays import Points
from faceswap.faces import mesh
from faceswap.faces.detection import detect_hog
from faceswap.faces.geometry import compose, face_matrix, invert, scale_of, transform
from faceswap.files import write_bytes
from faceswap.media.photos import read_photo
from faceswap.media.sources import search

TARGET = Path(__file__).resolve().parents[2] / "faceswap" / "faces" / "mesh_offsets.json"
HELD_OUT = 10  # every tenth photo is held out
# index of each landmark's mirror image, for landmarks 0..67
MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    *range(45, 41, -1), 47, 46, *range(39, 35, -1), 41, 40, *range(54, 47, -1),
    *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
]  # fmt: skip
Pair = tuple[Points, Points]  # dlib's landmarks and the matching mesh points of one face


def pairs_of(folder: Path) -> tuple[list[Pair], list[Pair]]:
    """Landmark pairs of the largest face in each photo: those to fit and those held out."""
    fitted: list[Pair] = []
    held_out: list[Pair] = []
    for number, path in enumerate(search(folder).photos):
        image = read_photo(path).image
        for face in detect_hog(image, min_score=0.2)[:1]:
            found = mesh.fit_near(image, face.landmarks)
            if found.presence >= mesh.PRESENT:
                chosen = found.points[list(mesh.VERTICES)]
                (fitted if number % HELD_OUT else held_out).append((face.landmarks, chosen))
    return fitted, held_out


def offset(pair: Pair) -> Points:
    """Offset from mesh points to dlib's, (68, 2), in the unit square of the mesh points."""
    to_square = face_matrix(pair[1], 1, 1.0)
    return transform(pair[0], to_square) - transform(pair[1], to_square)


def difference(expected: Points, points: Points) -> list[float]:
    """Distances of points and jaw in eye distances; rotation (degrees), scale and shift."""
    eyes = np.linalg.norm(expected[36:42].mean(axis=0) - expected[42:48].mean(axis=0))
    distances = np.linalg.norm(points - expected, axis=1) / eyes
    step = compose(face_matrix(points, 1, 1.0), invert(face_matrix(expected, 1, 1.0)))
    turn = abs(math.degrees(math.atan2(step[1, 0], step[0, 0])))
    shift = float(np.linalg.norm(step[:, 2]))
    inner = float(distances[17:].mean())
    return [inner, float(distances[:17].mean()), turn, abs(scale_of(step) - 1), shift]


def report(title: str, rows: list[list[float]]) -> None:
    """Print the median and 95th percentile of each measure."""
    names = ("points", "jaw", "turn", "scale", "shift")
    cells = zip(names, np.percentile(rows, [50, 95], axis=0).T, strict=True)
    print(title, "  ".join(f"{name} {a:.4f} {b:.4f}" for name, (a, b) in cells))


def corrected(points: Points, offsets: npt.NDArray[np.float64]) -> Points:
    """Move mesh points (68, 2) by the offsets."""
    to_square = face_matrix(points, 1, 1.0)
    moved = transform(points, to_square) + offsets.astype(np.float32)
    return transform(moved, invert(to_square))


def main(folders: list[Path]) -> None:
    """Average over all folders with equal weight and write the offsets."""
    if not folders:
        raise SystemExit(__doc__)
    people = [pairs_of(folder) for folder in folders]
    middle = [np.median([offset(pair) for pair in fitted], axis=0) for fitted, _ in people]
    mean = np.mean(middle, axis=0)
    offsets = (mean + mean[MIRROR] * [-1, 1]) / 2
    record = {
        "source": f"{sum(len(fitted) for fitted, _ in people)} faces, made symmetric",
        "offsets": [[round(float(x), 5), round(float(y), 5)] for x, y in offsets],
    }
    write_bytes(TARGET, (json.dumps(record, indent=1) + "\n").encode())
    print("median and 95th percentile on held-out faces: points and jaw in eye distances,")
    print("rotation in degrees, scale and shift as shares of the square's side")
    for folder, (_, held_out) in zip(folders, people, strict=True):
        report(f"{folder.name} without", [difference(*pair) for pair in held_out])
        report(f"{folder.name} with   ", [
            difference(known, corrected(points, offsets)) for known, points in held_out
        ])  # fmt: skip


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
