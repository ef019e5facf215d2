#!/usr/bin/env python3
"""Print hashes of the results of every stage for fixed inputs and seeds.

Run it on the same machine before and after a change that must not alter results. It extracts two
folders of photos, trains two models for 20 steps, evaluates one and converts clips to lossless
video.

    scripts/tools/fingerprint.py PHOTOS_A PHOTOS_B WORK_FOLDER CLIP... > before.txt
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import av
from safetensors.numpy import load_file


def faceswap(*arguments: object) -> None:
    """Run the command line with this interpreter; exit with its error if it fails."""
    command = [sys.executable, "-m", "faceswap", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")


def digest(*chunks: bytes) -> str:
    """Hash some bytes to 16 hexadecimal digits."""
    return hashlib.sha256(b"".join(chunks)).hexdigest()[:16]


def records(path: Path) -> list[str]:
    """Read the records of a JSON lines file, sorted because several processes write them."""
    return sorted(path.read_text(encoding="utf-8").splitlines())


def weights(path: Path) -> str:
    """Hash the names and tensors of a model file."""
    tensors = load_file(path)
    return digest(*(name.encode() + tensors[name].tobytes() for name in sorted(tensors)))


def frames(path: Path) -> str:
    """Hash the decoded frames of a video and their times."""
    found = hashlib.sha256()
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            found.update(str(frame.time).encode() + frame.to_ndarray().tobytes())
    return found.hexdigest()[:16]


def main() -> None:
    """Run every stage in the work folder and print one line per result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs=2, type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("clips", nargs="+", type=Path)
    options = parser.parse_args()
    work: Path = options.work
    sides = {}
    for key, photos in zip("ab", options.photos, strict=True):
        sides[key] = work / key
        faceswap("extract", photos, "-o", sides[key], "--workers", 2)
        print(f"extract {key}", digest("\n".join(records(sides[key] / "faces.jsonl")).encode()))
    identities = ("--a", sides["a"], "--b", sides["b"], "--device", "cpu")
    for name in ("small", "original"):
        model = work / name
        faceswap("train", *identities[:4], "-o", model, "--model", name, "--steps", 20,
                 "--seed", 1, "--device", "cpu", "--restart")  # fmt: skip
        print(f"train {name}", weights(model / "model.safetensors"))
    numbers = work / "numbers.json"
    faceswap("evaluate", work / "small", *identities[:4], "--faces", 8, "--save-json", numbers)
    report = json.loads(numbers.read_text(encoding="utf-8"))
    print("evaluate", digest(json.dumps(report, sort_keys=True).encode()))
    for clip in options.clips:
        for extra in ((), ("--color", "linear", "--mask", "product", "--match-detail")):
            output = work / f"{clip.stem}{len(extra)}.mkv"
            faceswap("convert", clip, "-o", output, "--model", work / "small", "--codec", "ffv1",
                     "--device", "cpu", "--all", *extra)  # fmt: skip
            print(f"convert {clip.stem} {' '.join(extra)}".strip(), frames(output))


if __name__ == "__main__":
    main()
