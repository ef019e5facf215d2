"""Two at once on one model or faceset: the second is refused; a killed one bars nobody."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faceswap.errors import BusyError
from faceswap.files import LOCK, exclusive_folder, lock_file

ROOT = Path(__file__).resolve().parent.parent

# A first process that is in the middle of its work, says so and waits to be killed.
WORKING = {
    "train": """
import sys, time
from faceswap.training import trainer
def step(self, warp):
    print("working", flush=True)
    time.sleep(60)
trainer.Loop._step = step
""",
    "extract": """
import sys, time
from faceswap.faces import extractor
def check(*args):
    print("working", flush=True)
    time.sleep(60)
extractor._check = check
""",
}


@pytest.fixture
def at_work():
    """Start a command that stays in the middle of its work; it is killed at the end."""
    started = []

    def start(*args):
        code = WORKING[args[0]] + "from faceswap.cli import main\nmain.main()"
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


def training(faceset_folders, folder):
    a, b = faceset_folders
    return ["train", "--a", a, "--b", b, "-o", folder, "--steps", 2, "--batch-size", 2,
            "--model", "small", "--device", "cpu"]  # fmt: skip


def faceswap(*args, **variables):
    command = [sys.executable, "-m", "faceswap", *map(str, args)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_second_training_is_refused_until_the_first_is_killed(at_work, faceset_folders, tmp_path):
    command = training(faceset_folders, tmp_path / "model")
    first = at_work(*command)

    refused = faceswap(*command)
    landmark_tracker = faceswap(
        *command, RANK="1"
    )  # as the second process of torchrun: it takes no lock
    first.send_signal(signal.SIGKILL)
    first.wait()
    lock_left = (tmp_path / "model" / LOCK).exists()
    done = faceswap(*command)

    assert refused.returncode == BusyError.exit_code
    assert [line for line in refused.stderr.splitlines() if "error" in line] == [
        f"faceswap: error: training of {tmp_path / 'model'} is under way in another process; "
        "wait for it or stop it"
    ]
    assert landmark_tracker.returncode == 0, landmark_tracker.stderr
    assert lock_left
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "model" / LOCK).exists()


def test_a_second_extraction_is_refused_until_the_first_is_killed(at_work, collins, tmp_path):
    from PIL import Image

    Image.fromarray(collins).save(tmp_path / "x.png")
    command = ["extract", tmp_path / "x.png", "-o", tmp_path / "faces", "--detector", "hog"]
    first = at_work(*command)

    refused = faceswap(*command)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = faceswap(*command)

    assert refused.returncode == BusyError.exit_code
    assert f"an extraction into {tmp_path / 'faces'} is under way" in refused.stderr
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / "faces").iterdir()) == ["000000-0.png", "faces.jsonl"]


def test_a_folder_made_for_nothing_is_gone_again(tmp_path):
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


def test_a_lock_that_its_holder_deletes_is_not_taken_twice(tmp_path, monkeypatch):
    """The file that was locked is deleted, and the new one of its name is another's."""
    import fcntl

    path, flock = tmp_path / LOCK, fcntl.flock
    others = []

    def deleted_meanwhile(file, how):
        if not others:
            path.unlink()
            other = path.open("ab")
            flock(other, fcntl.LOCK_EX)
            others.append(other)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", deleted_meanwhile)
    with pytest.raises(BusyError, match="work in another process"):
        lock_file(path, "work")
    others[0].close()
