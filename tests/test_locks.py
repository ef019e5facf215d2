"""Only one process may work on a model or faceset, and a killed one does not block the next."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faceswap.errors import BusyError
from faceswap.files import LOCK, exclusive_folder, lock_file

ROOT = Path(__file__).resolve().parent.parent

# Code for a process that reports when it is in the middle of its work and waits to be killed.
PATCHES = {
    "train": """
import threading
from faceswap.training import trainer
def step(self, warp):
    print("working", flush=True)
    threading.Event().wait()
trainer.Loop._step = step
""",
    "extract": """
import threading
from faceswap.facesets import extractor
def check(*args):
    print("working", flush=True)
    threading.Event().wait()
extractor._check = check
""",
}


@pytest.fixture
def start_and_hang():
    """Start a command that hangs in the middle of its work; it is killed after the test."""
    started = []

    def start(*args):
        code = PATCHES[args[0]] + "from faceswap.cli import main\nmain.main()"
        command = [sys.executable, "-c", code, *map(str, args)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        started.append(process)
        assert process.stdout.readline() == "working\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def train_command(faceset_folders, folder):
    a, b = faceset_folders
    return ["train", "--a", a, "--b", b, "-o", folder, "--steps", 2, "--batch-size", 2,
            "--model", "small", "--device", "cpu"]  # fmt: skip


def faceswap(*args, **variables):
    command = [sys.executable, "-m", "faceswap", *map(str, args)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_second_training_is_refused_until_the_first_is_killed(
    start_and_hang, faceset_folders, tmp_path
):
    command = train_command(faceset_folders, tmp_path / "model")
    first = start_and_hang(*command)

    refused = faceswap(*command)
    rank_one = faceswap(*command, RANK="1")  # only rank 0 of torchrun takes the lock
    first.send_signal(signal.SIGKILL)
    first.wait()
    lock_left = (tmp_path / "model" / LOCK).exists()
    done = faceswap(*command)

    assert refused.returncode == BusyError.exit_code
    assert [line for line in refused.stderr.splitlines() if "error" in line] == [
        f"faceswap: error: training of {tmp_path / 'model'} is under way in another process; "
        "wait for it or stop it"
    ]
    assert rank_one.returncode == 0, rank_one.stderr
    assert lock_left
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "model" / LOCK).exists()


@pytest.mark.slow
def test_second_extraction_is_refused_until_the_first_is_killed(start_and_hang, collins, tmp_path):
    from PIL import Image

    Image.fromarray(collins).save(tmp_path / "x.png")
    command = ["extract", tmp_path / "x.png", "-o", tmp_path / "faces", "--detector", "hog"]
    first = start_and_hang(*command)

    refused = faceswap(*command)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = faceswap(*command)

    assert refused.returncode == BusyError.exit_code
    assert f"an extraction into {tmp_path / 'faces'} is under way" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "faces").iterdir()) == [
        "000000-0.png", "faces.jsonl", "sources.jsonl",
    ]  # fmt: skip


def test_new_folder_is_removed_if_the_work_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), exclusive_folder(tmp_path / "new", "work"):
        raise ZeroDivisionError
    (tmp_path / "old").mkdir()
    with (
        exclusive_folder(tmp_path / "old", "work"),
        pytest.raises(BusyError, match="work in another"),
    ):
        lock_file(tmp_path / "old" / LOCK, "work")

    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert not any((tmp_path / "old").iterdir())


def test_lock_deleted_by_its_holder_is_not_taken_twice(tmp_path, monkeypatch):
    """Between open and flock the file is deleted, and another process locks a new one."""
    import fcntl

    path, flock = tmp_path / LOCK, fcntl.flock
    others = []

    def flock_after_delete(file, how):
        if not others:
            path.unlink()
            other = path.open("ab")
            flock(other, fcntl.LOCK_EX)
            others.append(other)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock_after_delete)
    with pytest.raises(BusyError, match="work in another process"):
        lock_file(path, "work")
    others[0].close()
