#!/usr/bin/env python3
"""Read damaged and hostile files of every kind and count the outcomes.

Each file is mutated at random (from a seed) and read by the function that the commands use, in a
separate process with limited memory and time. It must be read, or refused with one clear line. A
traceback, crash, hang or excessive use of memory is a fault, and the script then exits with 1.

    tests/stress/fuzz.py [--tries 1000] [--seed 0] [--only NAME ...] [--keep FOLDER]
"""

import argparse
import json
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.support

SECONDS = 20  # limit for one try
MEMORY = 6 << 30  # bytes of address space above what is in use when the tries begin
WORDS = (
    b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"-Infinity", b"[]", b"{}", b'""', b"9" * 400,
    b'"../../x"', b'"/etc/passwd"', b'"\\u0000"', b'"\\ud800"', b"[" * 5000, b'{"a":' * 5000,
    b"18446744073709551616", b"0.1", b'"a"', b"\xff\xfe", b"\n", b"\n\n[[swap]]\n", b"x" * 100000,
)  # fmt: skip

Reader = Callable[[Path], object]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Apply one to four random changes to the data."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        kind = chance.randrange(8)
        # Headers are short, so half of all changes go into the first kilobyte.
        reach = min(len(changed), 1024) if chance.random() < 0.5 else len(changed)
        place = chance.randrange(reach + 1)
        end = min(place + chance.choice((1, 2, 4, 8, 64, 1024)), len(changed))
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[place:end] = chance.randbytes(end - place)
        elif kind == 2:
            changed[place:end] = b""
        elif kind == 3:
            changed[place:place] = changed[place:end]
        elif kind == 4:
            changed[place:end] = chance.choice((b"\xff", b"\0", b"\x7f")) * (end - place)
        elif kind == 5:
            del changed[place:]
        else:
            replace_value(changed, place, chance)
    return bytes(changed)


def replace_value(changed: bytearray, place: int, chance: random.Random) -> None:
    """Replace the next word or number of a text with an extreme value."""
    stops = b' \t\n,:[]{}="'
    start = next((i for i in range(place, len(changed)) if changed[i] not in stops), len(changed))
    end = next((i for i in range(start, len(changed)) if changed[i] in stops), len(changed))
    word = chance.choice(WORDS)
    if start and changed[start - 1 : start] == b'"' and changed[end : end + 1] == b'"':
        start, end = start - 1, end + 1
    changed[start:end] = word


def samples(folder: Path) -> dict[str, tuple[Path, Reader]]:
    """Write an intact file of each kind; map its name to the path and its reader."""
    import numpy as np
    import torch

    from faceswap.cli import info
    from faceswap.cli.options import resolve
    from faceswap.config import ConvertConfig, Settings, TrainConfig
    from faceswap.crops.masks import outline
    from faceswap.facesets import faceset, writer
    from faceswap.facesets.sourcelist import read_sources
    from faceswap.media import photos, reader
    from faceswap.media.footage import identify
    from faceswap.media.segments import SegmentStore
    from faceswap.models import autoencoder, classic, modelfile
    from faceswap.provenance import consent, credentials
    from faceswap.provenance.credentials import ModelRecord
    from faceswap.provenance.identity import signing_identity
    from faceswap.provenance.signer import Signer
    from faceswap.swapping import records
    from faceswap.swapping.batch import read_jobs
    from faceswap.swapping.cast import read_cast
    from faceswap.swapping.report import read_report
    from faceswap.swapping.shots import read_shots
    from faceswap.tracking.tracklog import FaceLog
    from faceswap.training import checkpoint

    write_samples(folder)
    model_record = ModelRecord("x", "00" * 32)

    def classic_checkpoint(path: Path) -> object:
        return classic.import_checkpoint(path, path.parent / "imported")

    def read_faceset(path: Path) -> None:
        for act in (
            lambda: info.inspect(path.parent),
            lambda: [outline(x, 64) for x in faceset.Faceset.read(path.parent, 64).landmarks],
            lambda: writer.FacesetWriter(path.parent, 64, 0.625, {}),
        ):
            ignore_refusal(act)

    def resume(path: Path) -> None:
        state = checkpoint.read_state(path.parent)
        assert state is not None
        network = autoencoder.build(state.model)
        run = checkpoint.TrainingState(network, None, torch.Generator(), ("a", "b"), (0, 0, 0))
        run.network.load_state_dict(state.network)

    def settings(kind: type[Settings], command: str) -> Reader:
        return lambda path: resolve(kind, command, path, {})

    def video(path: Path) -> None:
        ignore_refusal(lambda: reader.describe_video(path))
        ignore_refusal(lambda: list(reader.sample_video(path, 2)))
        for frame in reader.read_video(path):
            frame.image  # noqa: B018 - the property converts the frame

    def film_image(path: Path) -> None:
        frame = photos.read_photo(path)
        height, width = frame.shape
        box = (0, 0, min(width, 8), min(height, 8))
        brighter = frame.changed(box, frame.rgb_float(box) + 9)
        target = path.with_name(f"copy{path.suffix}")
        photos.PhotoWriter(target, path).write(brighter)
        np.testing.assert_array_equal(
            photos.read_photo(target).rgb_float((0, 0, width, height))[8:],
            frame.rgb_float((0, 0, width, height))[8:],
        )

    def animation(path: Path) -> None:
        _, footage = identify(path)
        if footage is None:  # the damage made a still image of it
            photos.read_photo(path)
            return
        footage.probe()
        for frame in footage.read():
            frame.image  # noqa: B018 - the property converts the frame

    def listed_sources(path: Path) -> object:
        return read_sources(path.parent, {}, {"x.mp4": 3})

    def written(path: Path) -> None:
        copy_as(path, path.with_name("out.mkv"))

    def sidecar(path: Path) -> object:
        return credentials.read(path.with_suffix(""))

    def own_identity(path: Path) -> object:
        return Signer(model_record, signing_identity(str(path), str(path)))

    def consent_note(path: Path) -> object:
        facesets = dict.fromkeys(("a", "b"), path.parent)
        return consent.merge_notes({"a": None, "b": None}, None, facesets)

    def metrics(path: Path) -> None:
        checkpoint.last_losses(path.parent)
        checkpoint.trim_metrics(path.parent, 5)

    def notes(path: Path) -> None:
        store = SegmentStore(path.parent, path.parent / "x.mp4", Path("clip.mp4"))
        store.close(keep=True)
        records.from_json((one for note in store.notes for one in note["records"]), path.parent)

    return {
        "checkpoint": (folder / "t7" / "x.t7", classic_checkpoint),
        "old checkpoint": (folder / "old" / "x.t7", classic_checkpoint),
        "model": (folder / "model" / "model.safetensors", modelfile.load),
        "resume state": (folder / "resume" / "resume.safetensors", resume),
        "old resume state": (folder / "old-resume" / "resume.pt", resume),
        "metrics.jsonl": (folder / "metrics" / "metrics.jsonl", metrics),
        "faceset": (folder / "faces" / "faces.jsonl", read_faceset),
        "crop": (folder / "crop" / "000000-0.png", lambda p: faceset.Faceset.read(p.parent, 64)),
        "done.jsonl": (folder / "parts" / "done.jsonl", notes),
        "log of faces": (folder / "log" / "faces.jsonl", FaceLog),
        "train.json": (folder / "json" / "train.json", settings(TrainConfig, "train")),
        "convert.json": (folder / "json" / "convert.json", settings(ConvertConfig, "convert")),
        "cast": (folder / "json" / "cast.toml", read_cast),
        "shots": (folder / "json" / "shots.toml", read_shots),
        "jobs": (folder / "json" / "jobs.toml", read_jobs),
        "report": (folder / "json" / "x.report.json", read_report),
        "sources.jsonl": (folder / "sources" / "sources.jsonl", listed_sources),
        "PNG": (folder / "photos" / "x.png", photos.read_photo),
        "PNG, 16 bits": (folder / "photos" / "deep.png", photos.read_photo),
        "TIFF, 16 bits": (folder / "photos" / "deep.tif", photos.read_photo),
        "TIFF, float": (folder / "photos" / "float.tif", photos.read_photo),
        "EXR": (folder / "photos" / "x.exr", film_image),
        "DPX": (folder / "photos" / "x.dpx", film_image),
        "JPEG": (folder / "photos" / "x.jpg", photos.read_photo),
        "WebP": (folder / "photos" / "x.webp", photos.read_photo),
        "GIF": (folder / "animations" / "x.gif", animation),
        "animated WebP": (folder / "animations" / "x.webp", animation),
        "animated PNG": (folder / "animations" / "x.png", animation),
        "MP4": (folder / "video" / "x.mp4", video),
        "MKV": (folder / "mkv" / "x.mkv", video),
        "WebM": (folder / "webm" / "x.webm", video),
        "written MP4": (folder / "video" / "x.mp4", written),
        "written MKV": (folder / "mkv" / "x.mkv", written),
        "credentials": (folder / "photos" / "signed.jpg", credentials.read),
        "signed MP4": (folder / "signed" / "signed.mp4", credentials.read),
        "sidecar": (folder / "signed" / "signed.bmp.c2pa", sidecar),
        "certificate": (folder / "signed" / "own.pem", own_identity),
        "consent": (folder / "consent" / "CONSENT.md", consent_note),
    }


def ignore_refusal(act: Callable[[], object]) -> None:
    """Call a function that may refuse its input."""
    from faceswap.errors import FaceswapError

    with suppress(FaceswapError):
        act()


def write_samples(folder: Path) -> None:
    """Write an intact file of each kind."""
    import shutil
    from dataclasses import replace
    from fractions import Fraction

    import cv2
    import numpy as np
    import tifffile
    import torch
    from PIL import Image

    from faceswap.config import ConvertConfig, TrainConfig
    from faceswap.faces.geometry import AlignedFace, Box, Face
    from faceswap.facesets.sourcelist import append_source
    from faceswap.facesets.writer import FacesetWriter
    from faceswap.media import writers
    from faceswap.media.frame import Frame
    from faceswap.models import autoencoder
    from faceswap.models.architectures import PRESETS
    from faceswap.provenance.credentials import ModelRecord
    from faceswap.provenance.identity import own_identity_file, signing_identity
    from faceswap.provenance.signer import Signer
    from faceswap.swapping import records, report
    from faceswap.tracking.tracklog import FaceLog, SpanRecord, Vote
    from faceswap.training import checkpoint
    from faceswap.training.optimizer import Optimizer, recipe_of
    from tests.support.films import window, write_dpx, write_exr
    from tests.support.states import write_old

    random = np.random.default_rng(0)
    image = random.integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("t7", "old", "metrics", "photos", "video", "json", "log", "mkv", "webm", "signed",
                 "consent", "sources", "animations"):  # fmt: skip
        (folder / name).mkdir(parents=True)
    state = {"encoder.0.conv2.weight": torch.rand(4, 3, 5, 5), "decoder_A.3.bias": torch.rand(3)}
    content = {"state": state, "epoch": 3}
    torch.save(content, folder / "t7" / "x.t7")
    torch.save(content, folder / "old" / "x.t7", _use_new_zipfile_serialization=False)

    tiny = replace(
        PRESETS["small"], size=16, encoder_widths=(4, 4), decoder_widths=(4, 4), latent=8
    )
    network, recipe = autoencoder.build(tiny), recipe_of("small")
    optimizer = Optimizer(network, recipe, recipe.learning_rate)
    run = checkpoint.TrainingState(
        network, optimizer, torch.Generator(), ("a", "b"), (0.0, 0.0, 0.0)
    )
    run.centroids = {key: np.ones(128, np.float32) for key in ("a", "b")}
    for name in ("model", "resume", "old-resume"):
        (folder / name).mkdir()
        checkpoint.save(run, folder / name)
    write_old(folder / "old-resume")
    lines = [json.dumps({"step": step, "loss_a": 0.5, "loss_b": 0.4}) for step in range(10)]
    (folder / "metrics" / "metrics.jsonl").write_text("\n".join(lines) + "\n")

    points = random.uniform(10, 50, (68, 2)).astype(np.float32)
    face = Face(Box(5, 5, 60, 60), 1.0, points)
    writer = FacesetWriter(folder / "faces", 64, 0.625, {})
    for number in range(3):
        frame = Frame(image, number, Fraction(number, 25), Path("x.mp4"))
        writer.add("x.mp4", frame, [AlignedFace(face, image, np.eye(2, 3))])
    shutil.copytree(folder / "faces", folder / "crop")
    (folder / "parts").mkdir()
    seen = records.FaceRecord("swapped", 0, 0, (1.0, 2.0, 30.0, 40.0), 1.5, 3.0, -4.0, 0.2, 0.3)
    noted = records.FrameRecord(0, 0.0, None, [seen])
    note = {"times": [0, 1, 2], "last": 1, "rotation": 0, "delays": {},
            "records": [records.to_json(noted) for _ in range(3)]}  # fmt: skip
    (folder / "parts" / "done.jsonl").write_text(f"{json.dumps(note)}\n" * 3)
    log = FaceLog(folder / "log" / "faces.jsonl")
    log.add(SpanRecord(0, 2, False, 1, [(0, face), (1, face)], []))
    log.decide([Vote(0, 0, 1, True), Vote(0, 1, None, False)], {0: 0.5}, [(0, (0,))])

    for name, config in (("train", TrainConfig()), ("convert", ConvertConfig())):
        (folder / "json" / f"{name}.json").write_text(json.dumps({name: config.to_dict()}))
    (folder / "json" / "cast.toml").write_text(
        '[[swap]]\nwho = "alice.jpg"\nmodel = "models/x"\n\n'
        '[[swap]]\nwho = ["c-1.jpg", "c-2.jpg"]\nto = "a"\n'
    )
    (folder / "json" / "shots.toml").write_text(
        '[[shot]]\nframes = "3-9,20-"\ncolor = "linear"\nfeather = 0.1\n\n'
        '[[shot]]\nframes = "5"\nmatch_detail = false\n'
    )
    (folder / "json" / "jobs.toml").write_text(
        'model = "x"\nsettings = { quality = 20 }\n[[job]]\ninputs = ["a.mp4", "b"]\n'
        'output = "out"\n\n[[job]]\ninputs = "c.mp4"\nsettings = { who = ["c.jpg"] }\n'
    )
    report.write_report(folder / "json" / "x.report.json", report.FrameReport(
        1, "x.mp4", "x.swapped.mp4", "00" * 32, "x", None, "00" * 32, ConvertConfig().to_dict(),
        "YuNet", {"swapped": 3}, [], [noted] * 3,
    ))  # fmt: skip
    append_source(folder / "sources", folder / "json" / "jobs.toml", "x.mp4")
    several = [Image.fromarray(np.roll(image, 9 * number, axis=1)) for number in range(3)]
    for suffix in ("gif", "webp", "png"):
        several[0].save(folder / "animations" / f"x.{suffix}", save_all=True,
                        append_images=several[1:], duration=100, loop=0)  # fmt: skip
    for suffix in ("png", "jpg", "webp"):
        Image.fromarray(image).save(folder / "photos" / f"x.{suffix}")
    deep = image.astype(np.uint16) * 257
    cv2.imwrite(str(folder / "photos" / "deep.png"), deep)
    tifffile.imwrite(folder / "photos" / "deep.tif", deep, photometric="rgb")
    light = image.astype(np.float32) / 99
    tifffile.imwrite(folder / "photos" / "float.tif", light, photometric="rgb")
    write_exr(folder / "photos" / "x.exr", light, compression="PIZ", owner="me",
              dataWindow=window(-3, 2, 60, 65))  # fmt: skip
    write_dpx(folder / "photos" / "x.dpx", deep >> 6)
    signed = folder / "photos" / "signed.jpg"
    shutil.copy(folder / "photos" / "x.jpg", signed)
    signer = Signer(ModelRecord("x", "00" * 32), signing_identity())
    signer.sign(signed, signed, folder / "photos" / "x.jpg")
    Image.fromarray(image).save(folder / "signed" / "signed.bmp")
    bitmap = folder / "signed" / "signed.bmp"
    signer.sign(bitmap, bitmap, folder / "photos" / "x.jpg")
    shutil.copy(own_identity_file(), folder / "signed" / "own.pem")
    (folder / "consent" / "CONSENT.md").write_text("She agreed, on paper, in May.\n")
    images = [np.full((64, 64, 3), shade, np.uint8) for shade in range(0, 250, 50)]
    writers.write_clip(
        folder / "video" / "x.mp4", iter(images), 25, np.zeros(9600, np.int16), 48000
    )
    copy_as(folder / "video" / "x.mp4", folder / "mkv" / "x.mkv")
    copy_as(folder / "video" / "x.mp4", folder / "webm" / "x.webm")
    film = folder / "signed" / "signed.mp4"
    shutil.copy(folder / "video" / "x.mp4", film)
    signer.sign(film, film, folder / "video" / "x.mp4")


def copy_as(source: Path, target: Path) -> None:
    """Copy a clip into another container with faceswap's own writer."""
    from faceswap.media import reader
    from tests.support.clips import open_writer

    with open_writer(target, source) as writer:
        for frame in reader.read_video(source):
            writer.write(frame)


class TooLong(BaseException):
    """A try took longer than SECONDS. As a BaseException it passes through ``except Exception``."""


def raise_too_long(*_: object) -> None:
    """Handle the alarm signal."""
    raise TooLong


def outcome(reader: Reader, path: Path) -> tuple[str, str]:
    """Read a file; return "read", "refused" or "fault", and the fault's message."""
    from faceswap.errors import FaceswapError

    signal.alarm(SECONDS)
    try:
        reader(path)
    except FaceswapError as error:
        if len(str(error)) > 2000:
            return "fault", f"an error of {len(str(error))} characters"
        return ("refused", "") if "\n" not in str(error) else ("fault", f"several lines: {error}")
    except (Exception, TooLong) as error:
        return "fault", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)
    return "read", ""


def try_one_kind(name: str, tries: int, seed: int, folder: Path) -> None:
    """Read mutations of one kind of file; print a JSON line before and after each try."""
    import shutil

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    original, reader = samples(folder / "whole")[name]
    assert outcome(reader, original) == ("read", "") or "checkpoint" in name, name
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGALRM, raise_too_long)
    data = original.read_bytes()
    for number in range(tries):
        place = folder / "try"
        shutil.copytree(original.parent, place, ignore=shutil.ignore_patterns("snapshots"))
        victim = place / original.name
        if "resume state" in name:  # otherwise the model beside it would stand in
            (place / "model.safetensors").unlink()
        victim.write_bytes(mutate(data, random.Random(f"{seed} {name} {number}")))
        print(json.dumps({"try": number}), flush=True)
        what, words = outcome(reader, victim)
        print(json.dumps({"what": what, "words": words}), flush=True)
        if what == "fault":
            shutil.copy(victim, folder / f"fault-{number}{victim.suffix}")
        shutil.rmtree(place)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"peak": peak}), flush=True)


def run(name: str, tries: int, seed: int, keep: Path | None) -> Counter[str]:
    """Try one kind of file in a separate process; print its table row and its faults."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        command = [sys.executable, __file__, "--tries", str(tries), "--seed", str(seed)]
        command += ["--kind", name, "--folder", work]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CONFIG_HOME": work}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment,
                              stderr=None if keep else subprocess.DEVNULL)  # fmt: skip
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        counts.update(line["what"] for line in lines if "what" in line)
        peak = next((line["peak"] for line in lines if "peak" in line), 0)
        if done.returncode:
            counts["fault"] += 1
            last = lines[-1].get("try") if lines else None
            print(f"  {name}: the process exited with {done.returncode} at try {last}")
        for words, times in Counter(
            line["words"] for line in lines if line.get("what") == "fault"
        ).items():
            print(f"  {name}: {times} x {words}")
        if keep and counts["fault"]:
            keep.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("fault-*"):
                path.replace(keep / f"{name.replace(' ', '-')}-{path.name}")
    columns = "".join(f"{counts[key]:9}" for key in ("read", "refused", "fault"))
    print(f"{name:16}{columns}{peak:9.0f}", flush=True)
    return counts


KINDS = (
    "checkpoint", "old checkpoint", "model", "resume state", "old resume state", "metrics.jsonl",
    "faceset", "crop", "done.jsonl", "log of faces", "train.json", "convert.json", "cast", "shots",
    "jobs", "report", "sources.jsonl", "GIF", "animated WebP", "animated PNG", "PNG",
    "PNG, 16 bits", "TIFF, 16 bits", "TIFF, float", "EXR", "DPX", "JPEG", "WebP", "MP4",
    "MKV", "WebM", "written MP4", "written MKV", "credentials", "signed MP4",
    "sidecar", "certificate", "consent",
)  # fmt: skip


def main() -> None:
    """Try all kinds of files and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=KINDS)
    parser.add_argument("--keep", type=Path, help="folder to keep the files that cause faults in")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        try_one_kind(options.kind, options.tries, options.seed, options.folder)
        return
    print(f"{'file':16}{'read':>9}{'refused':>9}{'fault':>9}{'peak MiB':>9}", flush=True)
    faults = sum(
        run(name, options.tries, options.seed, options.keep)["fault"] for name in options.only
    )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
