#!/usr/bin/env python3
"""Convert clips and photos to every kind of file, verify them, then flip single bits.

Each output is read by `faceswap verify` and independently by the C2PA library's own reader. The
times cover signing only: hashing the original, the credentials and the second copy.

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
from faceswap.errors import InputError, NoCredentialsError, NoFacesError
from faceswap.media import reader
from faceswap.provenance.credentials import ModelRecord, read
from faceswap.provenance.identity import signing_identity
from faceswap.provenance.signer import SOURCE_TYPE, Signer

CHANGES = 20  # bits flipped in each file, one at a time
KINDS = {
    ".mp4": "video/mp4", ".mov": "video/quicktime", ".png": "image/png", ".jpg": "image/jpeg",
    ".webp": "image/webp", ".tif": "image/tiff",
}  # fmt: skip


def media_data(path: Path) -> tuple[int, int]:
    """Start and end of the image or video data in a file, in bytes."""
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


def read_with_library(path: Path) -> dict[str, object]:
    """Read a file's credentials with the C2PA library, without any code of this program."""
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


def is_altered(path: Path) -> bool:
    """Whether the credentials of a file are found and say that it was changed."""
    try:
        return not read(path).intact
    except (InputError, NoCredentialsError):
        return False


def check(path: Path, source: Path, chance: random.Random) -> dict[str, object]:
    """Check that a file verifies and names its parent, and that every flipped bit is detected."""
    credentials = read(path)
    library = read_with_library(path)
    first, last = media_data(path)
    whole = path.read_bytes()
    detected = detected_by_library = 0
    try:
        for _ in range(CHANGES):
            data = bytearray(whole)
            data[chance.randrange(first, last)] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            detected += is_altered(path)
            detected_by_library += read_with_library(path)["state"] == "Invalid"
    finally:
        path.write_bytes(whole)
    good = (
        credentials.intact
        and credentials.parent is not None and credentials.parent.title == source.name
        and library == {"state": "Valid", "parents": [source.name], "marked": True}
        and detected == detected_by_library == CHANGES
    )  # fmt: skip
    return {"file": path.name, "intact": credentials.intact, "library": library["state"],
            "parent": library["parents"], "changes": CHANGES, "shown": detected,
            "shown_by_library": detected_by_library, "good": good}  # fmt: skip


def cost(clip: Path, output: Path) -> dict[str, object]:
    """Time and bytes that signing adds to a finished clip: the median of 9 fresh signers."""
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
    """Save one of the clip's frames in which a face is found."""
    for frame in reader.sample_video(clip, 12):
        Pillow.fromarray(frame.image).save(path)
        try:
            trial = path.with_name("trial.png")
            faceswap.convert(path, trial, model, faceswap.ConvertConfig(overwrite=True))
            return path
        except NoFacesError:
            continue
    raise SystemExit(f"no face found in {clip}; choose a clip that shows one")


def outputs(model: Path, folder: Path, clip: Path) -> list[tuple[Path, Path]]:
    """Convert a clip and one of its frames to every format; return outputs and their sources."""
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
    """Check all outputs, print one JSON line for each, and exit with 1 if a check fails."""
    chance, bad = random.Random(0), 0  # noqa: S311 - chooses bytes, not secrets
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
