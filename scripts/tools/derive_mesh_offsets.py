#!/usr/bin/env python3
"""Derive faceswap/faces/mesh_offsets.json: how FaceMesh's points differ from dlib's landmarks.

Both mark the faces that HOG finds in photos; their median difference in the mean face's unit square
is made symmetric and stored. Every tenth photo of a folder is left out, and tells how far the two
are apart without and with the offsets: landmarks, and the aligned square they lead to.

    scripts/tools/derive_mesh_offsets.py FOLDER [FOLDER ...]
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from faceswap.faces import blazeface
from faceswap.faces.dlib_backend import detect_hog
from faceswap.faces.geometry import compose, face_matrix, invert, scale_of, transform
from faceswap.files import write_bytes
from faceswap.media.photos import read_photo
from faceswap.media.reader import photos_in
from faceswap.types import Points

TARGET = Path(__file__).resolve().parents[2] / "faceswap" / "faces" / "mesh_offsets.json"
HELD_OUT = 10  # every tenth photo
# index of each landmark's mirror image, for landmarks 0..67
MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    *range(45, 41, -1), 47, 46, *range(39, 35, -1), 41, 40, *range(54, 47, -1),
    *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
]  # fmt: skip
Pair = tuple[Points, Points]  # of one face: dlib's landmarks, the mesh's chosen points


def pairs_of(folder: Path) -> tuple[list[Pair], list[Pair]]:
    """Of the largest face in each photo that both find: the pairs to fit, and those left out."""
    fitted: list[Pair] = []
    left_out: list[Pair] = []
    for number, path in enumerate(photos_in(folder)):
        image = read_photo(path).image
        for face in detect_hog(image, min_score=0.2)[:1]:
            mesh, presence = blazeface.mesh_near(image, face.landmarks)
            if presence >= blazeface.MIN_PRESENCE:
                chosen = mesh[list(blazeface.VERTICES)]
                (fitted if number % HELD_OUT else left_out).append((face.landmarks, chosen))
    return fitted, left_out


def offset(pair: Pair) -> Points:
    """From the mesh's points to dlib's, (68, 2), in the unit square that the mesh's define."""
    to_square = face_matrix(pair[1], 1, 1.0)
    return transform(pair[0], to_square) - transform(pair[1], to_square)


def difference(expected: Points, points: Points) -> list[float]:
    """Distance of points over that of the eyes; turn in degrees, scale, shift of the square."""
    eyes = np.linalg.norm(expected[36:42].mean(axis=0) - expected[42:48].mean(axis=0))
    distances = np.linalg.norm(points - expected, axis=1) / eyes
    step = compose(face_matrix(points, 1, 1.0), invert(face_matrix(expected, 1, 1.0)))
    turn = abs(math.degrees(math.atan2(step[1, 0], step[0, 0])))
    shift = float(np.linalg.norm(step[:, 2]))
    inner = float(distances[17:].mean())
    return [inner, float(distances[:17].mean()), turn, abs(scale_of(step) - 1), shift]


def report(title: str, rows: list[list[float]]) -> None:
    """Print median and 95th percentile of each measure."""
    names = ("points", "jaw", "turn", "scale", "shift")
    cells = zip(names, np.percentile(rows, [50, 95], axis=0).T, strict=True)
    print(title, "  ".join(f"{name} {a:.4f} {b:.4f}" for name, (a, b) in cells))


def corrected(points: Points, offsets: npt.NDArray[np.float64]) -> Points:
    """Chosen points (68, 2) moved by the offsets."""
    to_square = face_matrix(points, 1, 1.0)
    moved = transform(points, to_square) + offsets.astype(np.float32)
    return transform(moved, invert(to_square))


def main(folders: list[Path]) -> None:
    """Average over all folders with equal weight and write the offsets."""
    if not folders:
        raise SystemExit(__doc__)
    blazeface.require()
    people = [pairs_of(folder) for folder in folders]
    middle = [np.median([offset(pair) for pair in fitted], axis=0) for fitted, _ in people]
    mean = np.mean(middle, axis=0)
    offsets = (mean + mean[MIRROR] * [-1, 1]) / 2
    record = {
        "source": f"{sum(len(fitted) for fitted, _ in people)} faces, made symmetric",
        "offsets": [[round(float(x), 5), round(float(y), 5)] for x, y in offsets],
    }
    write_bytes(TARGET, (json.dumps(record, indent=1) + "\n").encode())
    print("median and 95th percentile on the faces left out; points, jaw over the eyes' distance,")
    print("turn in degrees, scale and shift of the square's side")
    for folder, (_, left_out) in zip(folders, people, strict=True):
        report(f"{folder.name} without", [difference(*pair) for pair in left_out])
        report(f"{folder.name} with   ", [
            difference(known, corrected(points, offsets)) for known, points in left_out
        ])  # fmt: skip


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
