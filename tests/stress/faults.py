#!/usr/bin/env python3
"""Break extract, train and convert while they run; count what is lost.

Each command is killed at random moments, run again until it is done, and what it made is compared
with what an undisturbed run makes. Then disks fill up, folders vanish, inputs change and clocks go
back. Nothing that was finished may be lost and nothing half may be left; else it ends with 1.

    tests/stress/faults.py [--kills 50] [--seed 0] [--only FAULT[:COMMAND] ...]
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
LOST = 3  # of the exit codes: the input is gone


def command(*args: object) -> list[str]:
    """How faceswap is called."""
    return [sys.executable, "-m", "faceswap", *map(str, args)]


def started(*args: object) -> subprocess.Popen[str]:
    """A command under way, in a group of its own so that its workers can be killed with it."""
    return subprocess.Popen(
        command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=ENVIRONMENT, start_new_session=True,
    )  # fmt: skip


def ended(*args: object) -> subprocess.CompletedProcess[str]:
    """A command run to its end."""
    return subprocess.run(command(*args), capture_output=True, text=True, env=ENVIRONMENT,
                          timeout=600, check=False)  # fmt: skip


class Stage:
    """A command with its arguments and what must be true of what it leaves.

    Attributes:
        name: The command.
        output: What it writes.
        args: Its arguments.
    """

    def __init__(self, name: str, output: Path, *args: object) -> None:
        self.name, self.output, self.args = name, output, (name, *args)

    def at(self, output: Path) -> Self:
        """The same with another output."""
        name, *others = [output if x == self.output else x for x in self.args]
        return type(self)(str(name), output, *others)

    def progress(self) -> int:
        """How much is finished on disk; it must never shrink."""
        raise NotImplementedError

    def check(self) -> list[str]:
        """What is wrong with what lies on disk after a kill."""
        return []

    def print_of(self) -> object:
        """What a finished run made, to be compared."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget the output."""
        shutil.rmtree(self.output) if self.output.is_dir() else self.output.unlink(missing_ok=True)


class Extract(Stage):
    """Faces of a folder of photos."""

    def _records(self) -> list[dict[str, object]]:
        index = self.output / "faces.jsonl"
        lines = index.read_text().split("\n")[:-1] if index.is_file() else []
        return [json.loads(line) for line in lines[1:]]

    def progress(self) -> int:
        return len(self._records())

    def check(self) -> list[str]:
        import cv2

        crops = [self.output / str(record["file"]) for record in self._records()]
        return [
            f"{path.name} is missing or half" for path in crops if cv2.imread(str(path)) is None
        ]

    def print_of(self) -> object:
        return sorted((str(r["source"]), str(r["landmarks"]), digest(self.output / str(r["file"])))
                      for r in self._records())  # fmt: skip


class Train(Stage):
    """A model of some steps, saved after each."""

    def progress(self) -> int:
        import torch

        path = self.output / "resume.pt"
        return int(torch.load(path, weights_only=True)["step"]) if path.is_file() else 0

    def check(self) -> list[str]:
        from faceswap.models import classic, modelfile

        path = self.output / modelfile.MODEL_FILE
        wrong = []
        if path.is_file():
            modelfile.load(path)
        if (self.output / "resume.pt").is_file() and not classic.is_whole_archive(
            self.output / "resume.pt"
        ):
            wrong.append("resume.pt is half")
        return wrong

    def print_of(self) -> object:
        from faceswap.models import modelfile

        steps = [
            json.loads(line)["step"]
            for line in (self.output / "metrics.jsonl").read_text().splitlines()
            if "loss_a" in line
        ]
        return modelfile.load(self.output).step, steps == sorted(set(steps))


class Convert(Stage):
    """A clip, in parts."""

    def progress(self) -> int:
        found = list(self.output.parent.glob(f".{self.output.name}.*.parts/done.jsonl"))
        lines = found[0].read_text().split("\n")[:-1] if found else []
        return 10**6 if self.output.exists() else sum(len(json.loads(x)["times"]) for x in lines)

    def check(self) -> list[str]:
        return self._whole() if self.output.exists() else []

    def _whole(self) -> list[str]:
        from faceswap.provenance import credentials

        worst = credentials.verify([self.output]).worst
        return [str(worst)] if worst else []

    def print_of(self) -> object:
        from faceswap.media import reader

        frames = [digest_of(frame.image.tobytes()) for frame in reader.read_video(self.output)]
        return frames, self._whole()

    def clear(self) -> None:
        super().clear()
        for folder in self.output.parent.glob(f".{self.output.name}.*.parts"):
            shutil.rmtree(folder)


def digest_of(data: bytes) -> str:
    """A short name for some bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def digest(path: Path) -> str:
    """A short name for a file's bytes."""
    return digest_of(path.read_bytes())


def half_in(folder: Path) -> list[str]:
    """Files that were begun and never finished."""
    return [path.name for path in folder.rglob(".*.part*") if path.suffix != ".parts"]


def litter_in(folder: Path) -> list[str]:
    """What a finished run must not leave behind."""
    kept = [path.name for name in ("lock", ".*.parts") for path in folder.rglob(name)]
    return half_in(folder) + kept


def kill_at_random(stage: Stage, kills: int, chance: random.Random) -> tuple[int, list[str]]:
    """Kill a command again and again, beginning anew where it is done; what was lost."""
    stage.clear()
    began = time.monotonic()
    whole = ended(*stage.args)
    length = time.monotonic() - began
    if whole.returncode:
        return 0, [f"it fails undisturbed: {whole.stderr}"]
    expected, wrong, killed = stage.print_of(), [], 0
    stage.clear()
    before = 0
    while killed < kills:
        process = started(*stage.args)
        try:
            _, words = process.communicate(timeout=chance.uniform(0, 1.2 * length))
            if process.returncode:
                wrong.append(f"run {killed}: {words.splitlines()[-1] if words else '?'}")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
        wrong += stage.check()
        now = stage.progress()
        if now < before:
            wrong.append(f"kill {killed}: {now} done, and {before} before")
        before = now
        if process.returncode == 0:
            if stage.print_of() != expected:
                wrong.append(f"kill {killed}: another result than undisturbed")
            stage.clear()
            before = 0
    last = ended(*stage.args)
    if last.returncode or stage.print_of() != expected:
        wrong.append(f"the last run: {last.stderr or 'another result than undisturbed'}")
    wrong += [f"left behind: {name}" for name in litter_in(stage.output.parent)]
    return killed, wrong


def refused(
    done: subprocess.CompletedProcess[str] | subprocess.Popen[str], words: str
) -> list[str]:
    """What is wrong with the way a command ended that could not go on: one line and a code."""
    lines = [line for line in words.splitlines() if line.startswith("faceswap: error: ")]
    if done.returncode in (3, 4, 5, 6) and len(lines) == 1 and "Traceback" not in words:
        return []
    return [f"ended with {done.returncode}: {' / '.join(words.splitlines()[-3:])}"]


def blocked(stage: Stage, work: Path, _: random.Random) -> list[str]:
    """Write where a folder is needed and a file lies."""
    place = work / "blocked"
    place.write_text("a file")
    done = ended(*stage.at(place / stage.output.name).args)
    place.unlink()
    return refused(done, done.stderr)


@contextmanager
def mounted(place: Path, options: str) -> Iterator[bool]:
    """A file system of its own at a place; False where none may be made."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
    done = subprocess.run(command, capture_output=True, check=False)
    try:
        yield not done.returncode
    finally:
        if not done.returncode:
            subprocess.run(["umount", place], check=True)


def read_only_disk(stage: Stage, work: Path, _: random.Random) -> list[str] | None:
    """Write to a file system that may only be read; None where none can be made."""
    with mounted(work / "fixed", "ro") as possible:
        if not possible:
            return None
        done = ended(*stage.at(work / "fixed" / stage.output.name).args)
        return refused(done, done.stderr)


def full_disk(stage: Stage, work: Path, chance: random.Random) -> list[str] | None:
    """Write to a disk that gets full at some moment, make room, and go on; None if impossible."""
    stage.clear()
    whole = ended(*stage.args)
    if whole.returncode:
        return [f"it fails undisturbed: {whole.stderr}"]
    expected = stage.print_of()
    size = sum(path.stat().st_size for path in [stage.output, *stage.output.rglob("*")])
    moved = stage.at(work / "small" / stage.output.name)
    with mounted(work / "small", f"size={int(chance.uniform(0.02, 1.0) * size)}") as possible:
        if not possible:
            return None
        done = ended(*moved.args)
        wrong = refused(done, done.stderr) if done.returncode else []
        wrong += moved.check()
        wrong += [f"left behind: {name}" for name in half_in(work / "small")]
        before = moved.progress()
        subprocess.run(["mount", "-o", "remount,size=1g", work / "small"], check=True)
        if moved.progress() < before:
            wrong.append("what was done is gone")
        again = ended(*moved.args)
        if again.returncode or moved.print_of() != expected:
            wrong.append(f"with room again: {again.stderr or 'another result than undisturbed'}")
        return wrong


def while_running(stage: Stage, disturb: Callable[[], None]) -> list[str]:
    """Do something behind the back of a command as soon as it has finished something."""
    stage.clear()
    process = started(*stage.args)
    while process.poll() is None and not stage.progress():
        time.sleep(0.02)
    disturb()
    _, words = process.communicate(timeout=600)
    return [] if process.returncode == 0 else refused(process, words)


def output_removed(stage: Stage, work: Path, _: random.Random) -> list[str]:
    """The output folder is gone all at once; running again must do."""

    def remove() -> None:
        for path in [stage.output, *work.glob(f".{stage.output.name}.*.parts")]:
            shutil.rmtree(path, ignore_errors=True)

    wrong = while_running(stage, remove)
    stage.clear()
    again = ended(*stage.args)
    return wrong + ([f"not again: {again.stderr}"] if again.returncode else [])


def input_changed(stage: Stage, _: Path, __: random.Random) -> list[str]:
    """The input is overwritten with half of itself; the whole one must do again."""
    source = Path(str(stage.args[1] if stage.name != "train" else stage.args[2]))
    files = [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]
    kept = {path: path.read_bytes() for path in files}

    def halve() -> None:
        for path, data in kept.items():
            path.write_bytes(data[: len(data) // 2])

    wrong = while_running(stage, halve)
    for path, data in kept.items():
        path.write_bytes(data)
    stage.clear()
    again = ended(*stage.args)
    return wrong + ([f"not again: {again.stderr}"] if again.returncode else [])


CLOCK = """
import itertools, time
steps = itertools.count()
true = time.time
time.time = lambda: true() - 3600 * next(steps)
from faceswap.cli.main import main
main()
"""


def clock_back(stage: Stage, _: Path, __: random.Random) -> list[str]:
    """The wall clock goes an hour back whenever somebody looks."""
    stage.clear()
    call = [sys.executable, "-c", CLOCK, *map(str, stage.args)]
    done = subprocess.run(call, capture_output=True, text=True, env=ENVIRONMENT, timeout=600,
                          check=False)  # fmt: skip
    return [f"ended with {done.returncode}: {done.stderr}"] if done.returncode else stage.check()


FAULTS = {
    "blocked": blocked,
    "read-only": read_only_disk,
    "disk full": full_disk,
    "output removed": output_removed,
    "input changed": input_changed,
    "clock back": clock_back,
}


def prepared(work: Path, frames: int, steps: int) -> list[Stage]:
    """Photos, a clip and the three commands that work on them."""
    from faceswap.cli import demo
    from faceswap.faces.extractor import extract
    from faceswap.files import write_bytes

    demo.VIEWS, demo.CLIP_FRAMES = 26, frames
    demo._make_data(work, lambda _: None)
    a, b = (work / "data" / name for name in demo.PEOPLE)
    for folder in (a, b):
        extract(folder, work / "known" / folder.name / "faces")
    few = work / "few"
    for path in sorted(a.glob("*.jpg"))[:20]:
        write_bytes(few / path.name, path.read_bytes())
    train = ["--a", work / "known" / a.name / "faces", "--b", work / "known" / b.name / "faces",
             "--model", "small", "--steps", steps, "--batch-size", 2, "--device", "cpu",
             "--save-every", 0, "--preview-every", 0]  # fmt: skip
    for name in ("extracted", "trained", "converted", "model"):
        (work / name).mkdir()
    assert not ended("train", *train, "-o", work / "model" / "m").returncode
    extracted, trained = work / "extracted" / "faces", work / "trained" / "m"
    converted = work / "converted" / "out.mp4"
    model = ["--model", work / "model" / "m", "--device", "cpu", "--workers", 1]
    return [
        Extract("extract", extracted, few, "-o", extracted, "--detector", "hog", "--workers", 1),
        Train("train", trained, *train, "-o", trained),
        Convert("convert", converted, work / demo.CLIP, "-o", converted, *model),
    ]


def tried(
    fault: str, stage: Stage, kills: int, chance: random.Random
) -> tuple[int, list[str] | None]:
    """How often a fault was tried on a command, and what was lost; None if it cannot be tried."""
    if fault == "kill":
        return kill_at_random(stage, kills, chance)
    times = max(kills // 5, 1) if fault == "disk full" else 1
    found = [FAULTS[fault](stage, stage.output.parent, chance) for _ in range(times)]
    return times, None if None in found else [word for words in found for word in words or ()]


def main() -> None:
    """Try all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=300, help="of the clip that is converted")
    parser.add_argument("--steps", type=int, default=12, help="of the training")
    parser.add_argument("--only", nargs="*", default=("kill", *FAULTS), metavar="FAULT[:COMMAND]")
    options = parser.parse_args()
    chance, bad = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        stages = prepared(Path(name).resolve(), options.frames, options.steps)
        print(f"{'fault':16}{'command':10}{'times':>6}  lost", flush=True)
        for fault, _, only in (words.partition(":") for words in options.only):
            for stage in stages:
                if only in ("", stage.name):
                    times, found = tried(fault, stage, options.kills, chance)
                    words = "skipped: not permitted" if found is None else "; ".join(found)
                    print(f"{fault:16}{stage.name:10}{times:6}  {words or 'nothing'}", flush=True)
                    bad += bool(found)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
