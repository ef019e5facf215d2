#!/usr/bin/env python3
"""Disturb extract, train and convert (of a video, a sequence, several sources) and report losses.

Each command is killed at random moments and run again until it finishes, and its result is compared
with that of an undisturbed run. Then disks fill up, folders are deleted, inputs change and the
clock goes back. If finished work is lost or a half-written file is left, the script exits with 1.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def command(*args: object) -> list[str]:
    """Build the command line that runs faceswap."""
    return [sys.executable, "-m", "faceswap", *map(str, args)]


def start_command(*args: object) -> subprocess.Popen[str]:
    """Start a command in its own process group, so that its workers can be killed with it."""
    return subprocess.Popen(
        command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=ENVIRONMENT, start_new_session=True,
    )  # fmt: skip


def run_command(*args: object) -> subprocess.CompletedProcess[str]:
    """Run a command until it finishes."""
    return subprocess.run(command(*args), capture_output=True, text=True, env=ENVIRONMENT,
                          timeout=600, check=False)  # fmt: skip


class Stage:
    """A command with its arguments and the checks of its output.

    Attributes:
        name: Its name in the table.
        sources: The files and folders that it reads.
        output: The file or folder that it writes.
        args: The command and its arguments.
    """

    def __init__(self, name: str, sources: Sequence[Path], output: Path, *args: object) -> None:
        self.name, self.sources, self.output, self.args = name, sources, output, args

    def at(self, output: Path) -> Self:
        """The same command with another output."""
        args = [output if x == self.output else x for x in self.args]
        return type(self)(self.name, self.sources, output, *args)

    def progress(self) -> int:
        """Amount of finished work on disk, which must never shrink."""
        raise NotImplementedError

    def is_finished(self) -> bool:
        """Whether a killed command had done all its work, so that a repeat would be refused."""
        return False

    def check(self) -> list[str]:
        """List the faults of the files on disk after a kill."""
        return []

    def fingerprint(self) -> object:
        """Summarise the result of a finished run for comparison."""
        raise NotImplementedError

    def clear(self) -> None:
        """Delete the output."""
        shutil.rmtree(self.output) if self.output.is_dir() else self.output.unlink(missing_ok=True)


class Extract(Stage):
    """Extract the faces of a folder of photos."""

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
            f"{path.name} is missing or half-written"
            for path in crops
            if cv2.imread(str(path)) is None
        ]

    def fingerprint(self) -> object:
        return sorted((str(r["source"]), str(r["landmarks"]), digest(self.output / str(r["file"])))
                      for r in self._records())  # fmt: skip


class Train(Stage):
    """Train a model for a few steps and save it after each one."""

    def progress(self) -> int:
        from faceswap.training import checkpoint

        if not checkpoint.has_state(self.output):
            return 0
        state = checkpoint.read_state(self.output)
        return state.step if state else 0

    def check(self) -> list[str]:
        from faceswap.models import modelfile
        from faceswap.training import checkpoint

        path = self.output / modelfile.MODEL_FILE
        wrong = []
        if path.is_file():
            modelfile.load(path)
        if checkpoint.has_state(self.output):
            checkpoint.read_state(self.output)
        return wrong

    def fingerprint(self) -> object:
        from faceswap.models import modelfile

        steps = [
            json.loads(line)["step"]
            for line in (self.output / "metrics.jsonl").read_text().splitlines()
            if "loss_a" in line
        ]
        return modelfile.load(self.output).step, steps == sorted(set(steps))


class Convert(Stage):
    """Convert a clip in segments."""

    def progress(self) -> int:
        return 10**6 if self.output.exists() else frames_done(self.output.parent)

    def is_finished(self) -> bool:
        kept = list(self.output.parent.glob(f".{self.output.name}.*.parts"))
        return self.progress() == 10**6 and not kept

    def check(self) -> list[str]:
        return self._whole() if self.output.exists() else []

    def _whole(self) -> list[str]:
        from faceswap.swapping import verification

        worst = verification.verify([self.output]).worst
        return [str(worst)] if worst else []

    def fingerprint(self) -> object:
        return digest_of(pixels_of(self.output)), self._whole()

    def clear(self) -> None:
        super().clear()
        for folder in self.output.parent.glob(f".{self.output.name}.*.parts"):
            shutil.rmtree(folder)


class ConvertSequence(Convert):
    """Convert numbered images to numbered images."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._report = self.output.with_name(f"{self.output.name}.report.json")

    def progress(self) -> int:
        return 10**6 if self._report.exists() else frames_done(self.output.parent)

    def _whole(self) -> list[str]:
        return half_written(self.output)

    def fingerprint(self) -> object:
        return images_in(self.output), self._whole()

    def clear(self) -> None:
        super().clear()
        self._report.unlink(missing_ok=True)


class ConvertSeveral(Stage):
    """Convert a video, a sequence and a folder of photos into one folder."""

    def progress(self) -> int:
        finished = len(list(self.output.glob("*.report.json")))
        return 10**6 * finished + frames_done(self.output)

    def check(self) -> list[str]:
        return half_written(self.output)

    def fingerprint(self) -> object:
        return images_in(self.output), self.check()


def frames_done(folder: Path) -> int:
    """Count the frames in the finished segments of the conversions into a folder."""
    lists = [path.read_text().split("\n")[:-1] for path in folder.glob(".*.parts/done.jsonl")]
    return sum(len(json.loads(line)["times"]) for lines in lists for line in lines)


def images_in(folder: Path) -> list[tuple[str, str]]:
    """Return each image and video of a folder with the digest of its pixels."""
    return [
        (str(path.relative_to(folder)), digest_of(pixels_of(path))) for path in media_in(folder)
    ]


def half_written(folder: Path) -> list[str]:
    """List the images and videos of a folder that cannot be read or whose mark is not intact."""
    from faceswap.swapping import verification

    worst = [(path, verification.verify([path]).worst) for path in media_in(folder)]
    return [f"{path.name}: {error}" for path, error in worst if error]


def media_in(folder: Path) -> list[Path]:
    """List the finished images and videos of a folder."""
    found = (path for path in folder.rglob("*") if path.suffix in (".mp4", ".png"))
    inside = ((path, path.relative_to(folder).parts) for path in found)
    return sorted(path for path, parts in inside if not any(x.startswith(".") for x in parts))


def pixels_of(path: Path) -> bytes:
    """Return the levels of an image or of all frames of a video."""
    from faceswap.media import photos, reader

    frames = reader.read_video(path) if path.suffix == ".mp4" else [photos.read_photo(path)]
    return b"".join(frame.image.tobytes() for frame in frames)


def digest_of(data: bytes) -> str:
    """Short hash of some bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def digest(path: Path) -> str:
    """Short hash of a file's content."""
    return digest_of(path.read_bytes())


def unfinished_in(folder: Path) -> list[str]:
    """List temporary files that were never finished."""
    return [path.name for path in folder.rglob(".*.part*") if path.suffix != ".parts"]


def leftovers_in(folder: Path) -> list[str]:
    """List files that a finished run must not leave behind."""
    kept = [path.name for name in ("lock", ".*.parts") for path in folder.rglob(name)]
    return unfinished_in(folder) + kept


def kill_at_random(stage: Stage, kills: int, chance: random.Random) -> tuple[int, list[str]]:
    """Kill a command repeatedly, starting over whenever it finishes; return kills and losses."""
    stage.clear()
    began = time.monotonic()
    whole = run_command(*stage.args)
    length = time.monotonic() - began
    if whole.returncode:
        return 0, [f"the undisturbed run failed: {whole.stderr}"]
    expected, wrong, killed = stage.fingerprint(), [], 0
    stage.clear()
    before = 0
    while killed < kills:
        process = start_command(*stage.args)
        try:
            _, stderr = process.communicate(timeout=chance.uniform(0, 1.2 * length))
            if process.returncode:
                wrong.append(f"run {killed}: {stderr.splitlines()[-1] if stderr else '?'}")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            killed += 1
        wrong += stage.check()
        now = stage.progress()
        if now < before:
            wrong.append(f"kill {killed}: progress fell from {before} to {now}")
        before = now
        if process.returncode == 0 or stage.is_finished():
            if stage.fingerprint() != expected:
                wrong.append(f"kill {killed}: the result differs")
            stage.clear()
            before = 0
    last = run_command(*stage.args)
    if last.returncode or stage.fingerprint() != expected:
        wrong.append(f"last run: {last.stderr or 'the result differs'}")
    wrong += [f"left behind: {name}" for name in leftovers_in(stage.output.parent)]
    return killed, wrong


def check_refusal(
    stage: Stage, done: subprocess.CompletedProcess[str] | subprocess.Popen[str], stderr: str
) -> list[str]:
    """Check that a command that could not go on printed one error line and a matching exit code.

    A command with several sources may print a line for each.
    """
    lines = [line for line in stderr.splitlines() if line.startswith("faceswap: error: ")]
    told = len(lines) == 1 or (len(stage.sources) > 1 and lines)
    if done.returncode in (3, 4, 5, 6) and told and "Traceback" not in stderr:
        return []
    return [f"exit code {done.returncode}: {' / '.join(stderr.splitlines()[-3:])}"]


def blocked(stage: Stage, work: Path, _: random.Random) -> list[str]:
    """Write to an output folder whose path is taken by a file."""
    place = work / "blocked"
    place.write_text("a file")
    done = run_command(*stage.at(place / stage.output.name).args)
    place.unlink()
    return check_refusal(stage, done, done.stderr)


@contextmanager
def mounted(place: Path, options: str) -> Iterator[bool]:
    """Mount a tmpfs at a path; yield False if that is not permitted."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
    done = subprocess.run(command, capture_output=True, check=False)
    try:
        yield not done.returncode
    finally:
        if not done.returncode:
            subprocess.run(["umount", place], check=True)


def read_only_disk(stage: Stage, work: Path, _: random.Random) -> list[str] | None:
    """Write to a read-only file system; None if none can be mounted."""
    with mounted(work / "fixed", "ro") as possible:
        if not possible:
            return None
        done = run_command(*stage.at(work / "fixed" / stage.output.name).args)
        return check_refusal(stage, done, done.stderr)


def full_disk(stage: Stage, work: Path, chance: random.Random) -> list[str] | None:
    """Fill the disk at a random moment, make room and run again; None if none can be mounted."""
    stage.clear()
    whole = run_command(*stage.args)
    if whole.returncode:
        return [f"the undisturbed run failed: {whole.stderr}"]
    expected = stage.fingerprint()
    size = sum(path.stat().st_size for path in [stage.output, *stage.output.rglob("*")])
    moved = stage.at(work / "small" / stage.output.name)
    with mounted(work / "small", f"size={int(chance.uniform(0.02, 1.0) * size)}") as possible:
        if not possible:
            return None
        done = run_command(*moved.args)
        wrong = check_refusal(stage, done, done.stderr) if done.returncode else []
        wrong += moved.check()
        wrong += [f"left behind: {name}" for name in unfinished_in(work / "small")]
        before = moved.progress()
        subprocess.run(["mount", "-o", "remount,size=1g", work / "small"], check=True)
        if moved.progress() < before:
            wrong.append("finished work is lost")
        again = run_command(*moved.args)
        if again.returncode or moved.fingerprint() != expected:
            wrong.append(f"after making room: {again.stderr or 'the result differs'}")
        return wrong


def while_running(stage: Stage, disturb: Callable[[], None]) -> list[str]:
    """Disturb a command as soon as it has finished some of its work."""
    stage.clear()
    process = start_command(*stage.args)
    while process.poll() is None and not stage.progress():
        time.sleep(0.02)
    disturb()
    _, stderr = process.communicate(timeout=600)
    return [] if process.returncode == 0 else check_refusal(stage, process, stderr)


def output_removed(stage: Stage, work: Path, _: random.Random) -> list[str]:
    """Delete the output during the run; the next run must succeed."""

    def remove() -> None:
        for path in [stage.output, *work.glob(f".{stage.output.name}.*.parts")]:
            shutil.rmtree(path, ignore_errors=True)

    wrong = while_running(stage, remove)
    stage.clear()
    again = run_command(*stage.args)
    return wrong + ([f"second run: {again.stderr}"] if again.returncode else [])


def input_changed(stage: Stage, _: Path, __: random.Random) -> list[str]:
    """Truncate the input to half during the run; with the whole input the next run must succeed."""
    inside = [[path, *path.rglob("*")] for path in stage.sources]
    files = [path for paths in inside for path in paths if path.is_file()]
    kept = {path: path.read_bytes() for path in files}

    def halve() -> None:
        for path, data in kept.items():
            path.write_bytes(data[: len(data) // 2])

    wrong = while_running(stage, halve)
    for path, data in kept.items():
        path.write_bytes(data)
    stage.clear()
    again = run_command(*stage.args)
    return wrong + ([f"second run: {again.stderr}"] if again.returncode else [])


CLOCK = """
import itertools, time
steps = itertools.count()
true = time.time
time.time = lambda: true() - 3600 * next(steps)
from faceswap.cli.main import main
main()
"""


def clock_back(stage: Stage, _: Path, __: random.Random) -> list[str]:
    """Run with a wall clock that goes back an hour at every reading."""
    stage.clear()
    call = [sys.executable, "-c", CLOCK, *map(str, stage.args)]
    done = subprocess.run(call, capture_output=True, text=True, env=ENVIRONMENT, timeout=600,
                          check=False)  # fmt: skip
    return [f"exit code {done.returncode}: {done.stderr}"] if done.returncode else stage.check()


FAULTS = {
    "blocked": blocked,
    "read-only": read_only_disk,
    "disk full": full_disk,
    "output removed": output_removed,
    "input changed": input_changed,
    "clock back": clock_back,
}


def prepare_stages(work: Path, frames: int, steps: int) -> list[Stage]:
    """Make photos, clips and a sequence, and return the commands that work on them."""
    from PIL import Image

    from faceswap.cli import demo
    from faceswap.facesets.extractor import extract
    from faceswap.files import write_bytes
    from faceswap.media import reader
    from faceswap.media.writers import write_clip

    demo.VARIANTS, demo.CLIP_FRAMES = 26, frames
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
    assert not run_command("train", *train, "-o", work / "model" / "m").returncode
    model = ["--model", work / "model" / "m", "--device", "cpu", "--workers", 1]
    clip, shots, short = work / demo.CLIP, work / "shots", work / "short.mp4"
    images = [frame.image for frame in reader.read_video(clip)]
    write_clip(short, images[: frames // 3], demo.CLIP_RATE, demo._chime(), demo.SAMPLE_RATE)
    shots.mkdir()
    for number, image in enumerate(images, start=1001):
        Image.fromarray(image).save(shots / f"shot.{number}.png")
    extracted, trained, converted, sequence, several = (
        work / folder / name
        for folder, name in {"extracted": "faces", "trained": "m", "converted": "out.mp4",
                             "sequence": "shots", "several": "out"}.items()
    )  # fmt: skip
    for output in (extracted, trained, converted, sequence, several):
        output.parent.mkdir()
    sources = [short, shots, few]
    return [
        Extract(
            "extract",
            [few],
            extracted,
            "extract",
            few,
            "-o",
            extracted,
            "--detector",
            "hog",
            "--workers",
            1,
        ),
        Train("train", [a], trained, "train", *train, "-o", trained),
        Convert("convert", [clip], converted, "convert", clip, "-o", converted, *model),
        ConvertSequence(
            "sequence",
            [shots],
            sequence,
            "convert",
            shots,
            "-o",
            sequence,
            "--images",
            "sequence",
            *model,
        ),
        ConvertSeveral("several", sources, several, "convert", *sources, "-o", several, *model),
    ]


def try_fault(
    fault: str, stage: Stage, kills: int, chance: random.Random
) -> tuple[int, list[str] | None]:
    """Try a fault on a command; return how often, and the losses or None if it is impossible."""
    if fault == "kill":
        return kill_at_random(stage, kills, chance)
    times = max(kills // 5, 1) if fault == "disk full" else 1
    found = [FAULTS[fault](stage, stage.output.parent, chance) for _ in range(times)]
    return times, None if None in found else [loss for losses in found for loss in losses or ()]


def main() -> None:
    """Try all faults and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=300, help="frames of the clip to convert")
    parser.add_argument("--steps", type=int, default=12, help="training steps")
    parser.add_argument("--only", nargs="*", default=("kill", *FAULTS), metavar="FAULT[:COMMAND]")
    options = parser.parse_args()
    chance, bad = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        stages = prepare_stages(Path(name).resolve(), options.frames, options.steps)
        print(f"{'fault':16}{'command':10}{'times':>6}  lost", flush=True)
        for fault, _, only in (words.partition(":") for words in options.only):
            for stage in stages:
                if only in ("", stage.name):
                    times, found = try_fault(fault, stage, options.kills, chance)
                    words = "skipped: not permitted" if found is None else "; ".join(found)
                    print(f"{fault:16}{stage.name:10}{times:6}  {words or 'nothing'}", flush=True)
                    bad += bool(found)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
