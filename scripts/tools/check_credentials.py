#!/usr/bin/env python3
"""Convert clips and photos to every kind of file; verify them, then turn over single bytes.

Each output is read by `faceswap verify` and, apart from it, by the C2PA library's own reader. The
times are those of signing alone: the original's hash, the credentials and the second copy.

    scripts/tools/check_credentials.py MODEL OUTPUT_FOLDER CLIP [CLIP ...]
"""

import json
import random
import shutil
import statistics
import struct
import sys
import time
from pathlib import Path

import c2pa
import tifffile
from PIL import Image as Pillow

import faceswap
from faceswap.errors import NoFacesError, TamperedError
from faceswap.media import reader
from faceswap.provenance.credentials import ModelRecord
from faceswap.provenance.identity import signing_identity
from faceswap.provenance.signer import SOURCE_TYPE, Signer

CHANGES = 20  # single bytes turned over in each file
KINDS = {
    ".mp4": "video/mp4", ".mov": "video/quicktime", ".png": "image/png", ".jpg": "image/jpeg",
    ".webp": "image/webp", ".tif": "image/tiff",
}  # fmt: skip


def media_data(path: Path) -> tuple[int, int]:
    """Where the picture's bytes begin and end in a file."""
    data, suffix = path.read_bytes(), path.suffix
    if suffix in (".mp4", ".mov"):
        at = data.index(b"mdat") - 4
        (size,) = struct.unpack_from(">I", data, at)
        return at + 16, at + size if size > 1 else len(data)
    if suffix == ".png":
        at = data.index(b"IDAT") - 4
        return at + 8, at + 8 + struct.unpack_from(">I", data, at)[0]
    if suffix == ".jpg":
        return data.rindex(b"\xff\xda") + 16, len(data) - 2
    if suffix == ".webp":
        at = data.index(b"VP8", 12)
        return at + 8, at + 8 + struct.unpack_from("<I", data, at + 4)[0]
    if suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            return page.dataoffsets[0], page.dataoffsets[0] + page.databytecounts[0]
    return 0, len(data)


def by_the_library(path: Path) -> dict[str, object]:
    """What the C2PA library says of a file, without any code of this program."""
    sidecar = path.with_name(path.name + ".c2pa")
    kind = KINDS.get(path.suffix, "application/octet-stream")
    manifest = sidecar.read_bytes() if sidecar.exists() else None
    with path.open("rb") as file, c2pa.Reader(kind, file, manifest) as reader:
        report = json.loads(reader.json())
    active = report["manifests"][report["active_manifest"]]
    actions = [action for assertion in active["assertions"] if "actions" in assertion["label"]
               for action in assertion["data"]["actions"]]  # fmt: skip
    return {
        "state": report["validation_state"],
        "parents": [i["title"] for i in active["ingredients"] if i["relationship"] == "parentOf"],
        "marked": SOURCE_TYPE in [action.get("digitalSourceType") for action in actions],
    }


def check(path: Path, source: Path, chance: random.Random) -> dict[str, object]:
    """Whether a file is intact, says so and names its parent, and shows every change of a byte."""
    facts = faceswap.verify([path]).facts[0]
    library = by_the_library(path)
    first, last = media_data(path)
    whole = path.read_bytes()
    ema_or_model = seen = 0
    try:
        for _ in range(CHANGES):
            data = bytearray(whole)
            data[chance.randrange(first, last)] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            ema_or_model += isinstance(faceswap.verify([path]).worst, TamperedError)
            seen += by_the_library(path)["state"] == "Invalid"
    finally:
        path.write_bytes(whole)
    good = (
        facts.get("intact") is True and facts["parent"]["title"] == source.name
        and library == {"state": "Valid", "parents": [source.name], "marked": True}
        and ema_or_model == seen == CHANGES
    )  # fmt: skip
    return {"file": path.name, "intact": facts.get("intact"), "library": library["state"],
            "parent": library["parents"], "changes": CHANGES, "shown": ema_or_model,
            "shown_by_library": seen, "good": good}  # fmt: skip


def cost(clip: Path, output: Path) -> dict[str, object]:
    """Seconds and bytes that signing adds to a finished clip: medians of 9, original unhashed."""
    took, more = [], 0
    for _ in range(9):
        copy = output.with_name(f"unsigned{output.suffix}")
        shutil.copy(clip, copy)
        before = copy.stat().st_size
        signer = Signer(ModelRecord("a-b", "00" * 32, ("a agreed", "b agreed")), signing_identity())
        began = time.perf_counter()
        signer.sign(copy, output, clip)
        took.append(time.perf_counter() - began)
        more = copy.stat().st_size - before
        copy.unlink()
    return {"clip": clip.name, "seconds": float(reader.probe(clip).seconds or 0),
            "signing_ms": round(1000 * statistics.median(took), 1), "more_bytes": more}  # fmt: skip


def photo_with_face(path: Path, model: Path, clip: Path) -> Path:
    """One of a clip's frames in which a face is found."""
    for frame in reader.sample_video(clip, 12):
        Pillow.fromarray(frame.image).save(path)
        try:
            faceswap.convert(path, path.with_name("trial.png"), model)
            return path
        except NoFacesError:
            continue
    raise SystemExit(f"{clip} shows no face")


def outputs(model: Path, folder: Path, clip: Path) -> list[tuple[Path, Path]]:
    """Everything that a clip and a photo out of it are made into, each with its source."""
    made = []
    for suffix, end in ((".mp4", None), (".mov", "2"), (".mkv", "2"), (".webm", "1")):
        output = folder / f"{clip.stem}{suffix}"
        faceswap.convert(clip, output, model, faceswap.ConvertConfig(end=end))
        made.append((output, clip))
    frames = folder / f"{clip.stem}-frames"
    faceswap.convert(clip, frames, model, faceswap.ConvertConfig(end="0.2"))
    made += [(frame, clip) for frame in sorted(frames.glob("*.png"))[:3]]
    photo = photo_with_face(folder / f"{clip.stem}-photo.png", model, clip)
    for suffix in (".png", ".jpg", ".webp", ".tif", ".bmp"):
        source = photo.with_suffix(suffix)
        if source != photo:
            Pillow.open(photo).save(source, quality=100)
        output = folder / f"{clip.stem}-swapped{suffix}"
        faceswap.convert(source, output, model)
        made.append((output, source))
    return made


def main(model: str, folder: str, clips: list[str]) -> None:
    """Check all; one JSON line each; end with 1 if one is not good."""
    chance, bad = random.Random(0), 0  # noqa: S311 - which byte, no secret
    Path(folder).mkdir(parents=True, exist_ok=True)
    for clip in map(Path, clips):
        for output, source in outputs(Path(model), Path(folder), clip):
            result = check(output, source, chance)
            bad += not result["good"]
            print(json.dumps(result), flush=True)
        print(json.dumps(cost(clip, Path(folder) / f"{clip.stem}.mp4")), flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
