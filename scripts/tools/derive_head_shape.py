#!/usr/bin/env python3
"""Derive faceswap/faces/head_shape.json, the 68 landmarks of an average head in 3D.

    scripts/tools/derive_head_shape.py FACESET FACESET ...

Factorises the landmarks of extracted faces, seen from many sides, into poses and one rigid shape:
C. Tomasi and T. Kanade, "Shape and motion from image streams under orthography: a factorization
method", IJCV 9(2), 1992, with one scale per face. It reads only landmarks, no images.
"""

import json
import sys
from pathlib import Path

import numpy as np

from faceswap.facesets.faceset import INDEX, read_records

NOSE = 0.75  # distance from the outer eye corners' plane to the nose tip, in eye distances
MIRRORED = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47,
    46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60,
    67, 66, 65,
]  # fmt: skip


def measurements(folders: list[Path]) -> np.ndarray:
    """All faces and their mirror images, centred and scaled, (2 F, 68): x rows, then y rows."""
    faces = []
    for folder in folders:
        for record in read_records(folder / INDEX):
            points = np.array(record["landmarks"], np.float64)
            mirrored = points[MIRRORED] * [-1, 1]
            for seen in (points, mirrored):
                centered = seen - seen.mean(axis=0)
                faces.append(centered / np.sqrt((centered**2).sum()))
    stacked = np.stack(faces)
    return np.concatenate([stacked[..., 0], stacked[..., 1]])


def factorize(w: np.ndarray) -> np.ndarray:
    """Rigid shape (68, 3) whose scaled orthographic projections fit ``w`` best."""
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    motion, shape = u[:, :3] * np.sqrt(s[:3]), np.sqrt(s[:3])[:, None] * vt[:3]
    x, y = np.split(motion, 2)
    index = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]

    def row(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return np.stack(
            [p[:, i] * q[:, j] + (p[:, j] * q[:, i] if i != j else 0) for i, j in index], axis=1
        )

    # The x and y axes of each view have equal lengths and are orthogonal.
    rows = np.concatenate([row(x, x) - row(y, y), row(x, y)])
    solution = np.linalg.svd(rows)[2][-1]
    gram = np.zeros((3, 3))
    for value, (i, j) in zip(solution, index, strict=True):
        gram[i, j] = gram[j, i] = value
    values, vectors = np.linalg.eigh(gram * np.sign(np.trace(gram)))
    if values.min() <= 0:
        raise SystemExit("these faces do not determine a shape; add facesets with more head poses")
    upgrade = vectors * np.sqrt(values)
    rigid: np.ndarray = (np.linalg.inv(upgrade) @ shape).T
    return rigid


def canonical(shape: np.ndarray) -> np.ndarray:
    """Rotate to face the viewer (x right, y down, z away), symmetrise, scale eye distance to 1."""
    shape = shape - shape.mean(axis=0)
    across = shape[42:48].mean(axis=0) - shape[36:42].mean(axis=0)
    down = shape[8] - shape[27]
    x = across / np.linalg.norm(across)
    y = down - down @ x * x
    y /= np.linalg.norm(y)
    turned = shape @ np.stack([x, y, np.cross(x, y)]).T / np.linalg.norm(across)
    # Orthographic projection leaves the sign of the depth open. On a turned head the jaw landmarks
    # also slide to the visible edge, which looks like more depth. So NOSE sets sign and scale.
    turned[:, 2] *= NOSE / (turned[[36, 45], 2].mean() - turned[30, 2])
    symmetric: np.ndarray = (turned + turned[MIRRORED] * [-1, 1, 1]) / 2
    return symmetric


def main() -> None:
    """Derive the head shape and write it."""
    shape = canonical(factorize(measurements([Path(argument) for argument in sys.argv[1:]])))
    target = Path(__file__).resolve().parents[2] / "faceswap" / "faces" / "head_shape.json"
    text = ",\n".join(json.dumps(point) for point in shape.round(4).tolist())
    target.write_text('{"landmarks": [\n' + text + "\n]}\n")
    print(f"{target}: the nose tip is {shape[0, 2] - shape[30, 2]:.2f} eye distances in front"
          " of the ear")  # fmt: skip


if __name__ == "__main__":
    main()
