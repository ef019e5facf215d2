#!/usr/bin/env python3
"""Composite a package again from its elements, and compare the result with its finished frames.

    scripts/tools/recompose.py PACKAGE

This is the composite of the package's Nuke script, written a second time in a few lines:
``plate * (1 - A) + RGB`` in linear light. It prints the largest difference, and ends with 1 if that
is more than a step of 10 bits.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import OpenEXR

from faceswap.arrays import FloatImage
from faceswap.media.photos import read_photo
from faceswap.media.sources import SIDECAR
from faceswap.media.views import LINEAR_REC709, view_of

STEP = 1 / 1023  # of a 10-bit image


def composite(package: Path, stem: str) -> FloatImage:
    """Return a frame in linear Rec.709, merged from plate and elements, (H, W, 3)."""
    plate = _planes(package / "plate" / f"{stem}.exr")
    elements = _planes(package / "elements" / f"{stem}.exr")
    pixels = np.stack([plate[name] for name in "RGB"], axis=2).astype(np.float32)
    left, top = _corner(package / "elements" / f"{stem}.exr")
    over = np.stack([elements[name] for name in "RGB"], axis=2).astype(np.float32)
    height, width = over.shape[:2]
    part = pixels[top : top + height, left : left + width]
    part *= 1 - elements["A"].astype(np.float32)[..., np.newaxis]
    part += over
    return pixels


def _planes(path: Path) -> dict[str, np.ndarray]:
    file = OpenEXR.File(str(path), separate_channels=True)
    return {name: channel.pixels for name, channel in file.channels().items()}


def _corner(path: Path) -> tuple[int, int]:
    left, top = OpenEXR.File(str(path), header_only=True).header()["dataWindow"][0]
    return int(left), int(top)


def differences(package: Path) -> dict[str, float]:
    """Return the largest difference of each frame, as a share of a display's white."""
    found = {}
    for image in sorted((package / "render").iterdir()):
        if image.suffix == SIDECAR:
            continue
        height, width = (photo := read_photo(image)).shape
        shown = view_of(LINEAR_REC709).shown(composite(package, image.stem))
        difference = np.abs(shown - photo.rgb_float((0, 0, width, height)))
        found[image.stem] = float(difference.max()) / 255
    return found


def main() -> int:
    """Composite all frames of a package."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path)
    found = differences(parser.parse_args().package)
    worst = max(found, key=lambda stem: found[stem])
    print(f"{len(found)} frames; largest difference {found[worst]:.6f} in {worst}, of {STEP:.6f}")
    return int(found[worst] > STEP)


if __name__ == "__main__":
    sys.exit(main())
