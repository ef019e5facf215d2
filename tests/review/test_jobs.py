"""Jobs run the command line, go on without the app, and are found again."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from faceswap.errors import InputError, SettingsError
from faceswap.files import LOCK, lock_file
from faceswap.review.jobs import JOB, LOG, PROCESS, Jobs

TRAIN = (
    "train", "--model", "small", "--batch-size", "4", "--device", "cpu", "--preview-every", "0",
)  # fmt: skip
FINISHED = ("done", "stopped", "failed", "killed")


@pytest.fixture
def jobs(tmp_path):
    return Jobs(tmp_path)


@pytest.fixture
def train(faceset_folders):
    a, b = map(str, faceset_folders)
    return [*TRAIN, "--a", a, "--b", b]


def wait(jobs, name, states, until=lambda job: True):
    deadline = time.monotonic() + 120
    while (job := jobs.job(name)).state not in states or not until(job):
        assert time.monotonic() < deadline, job
        assert job.state not in FINISHED or job.state in states, job
        time.sleep(0.05)
    return job


def test_job_runs_the_command_in_the_workspace(jobs, train, tmp_path):
    name = jobs.start("train two people", [*train, "--steps", "1", "-o", "models/x"], "training")

    job = wait(jobs, name, ["done"])

    assert (job.command.title, job.command.about, job.done) == ("train two people", "training", 1)
    assert (tmp_path / "models" / "x" / "model.safetensors").is_file()
    assert [one.id for one in Jobs(tmp_path).all()] == [name]


def test_failed_job_says_why(jobs):
    name = jobs.start("train nobody", ["train", "--a", "./x", "--b", "./y"])

    job = wait(jobs, name, ["failed"])

    assert job.words.startswith("faceswap: error: x/faces contains no faceset")


@pytest.mark.slow
def test_stopped_job_goes_on_when_it_is_run_again(jobs, train, tmp_path):
    folder = tmp_path / "m"
    name = jobs.start("train", [*train, "--save-every", "0.02", "-o", "m"])
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists():
        assert time.monotonic() < deadline, jobs.job(name)
        time.sleep(0.05)
    jobs.stop(name)
    job = wait(jobs, name, ["stopped"])
    assert "interrupted and saved" in job.words
    with pytest.raises(SettingsError, match="does not run: stopped"):
        jobs.stop(name)
    steps = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]

    jobs.again(name)
    with pytest.raises(SettingsError, match="still runs"):
        jobs.again(name)
    while json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"] <= steps:
        assert time.monotonic() < deadline, jobs.job(name)
        time.sleep(0.05)
    jobs.stop(name)
    wait(jobs, name, ["stopped"])


@pytest.mark.skipif(sys.platform != "linux", reason="looks for a process in /proc")
@pytest.mark.slow
def test_killed_job_is_told_apart_from_a_running_one(jobs, train, tmp_path):
    name = jobs.start("train", [*train, "-o", "m"])
    process = tmp_path / ".faceswap" / "jobs" / name / PROCESS
    deadline = time.monotonic() + 60
    while not process.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert jobs.job(name).state == "running"
    command = int(process.read_text())
    waiting = int(Path(f"/proc/{command}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(waiting, signal.SIGKILL)  # the command goes on
    time.sleep(0.2)
    assert jobs.job(name).state == "running"
    os.kill(command, signal.SIGKILL)

    wait(jobs, name, ["killed"])


@pytest.mark.parametrize(
    ("line", "share"),
    [
        ("120 of 480 frames, 5.3/s, 540 s left  a note", 0.25), ("12 of images, 3/s", None),
        ("0.5 of 10 minutes, 3 steps/s, 570 s left  step 9 loss a 0.1", 0.05),
        ("12 images, 1/s", None),
        ("5 of 4 steps, 1/s", 1.0), ("faceswap: warning: 3 of 4 photos, then", None),
    ],
)  # fmt: skip
def test_progress_is_read_from_the_last_line_that_tells_it(jobs, tmp_path, line, share):
    folder = tmp_path / ".faceswap" / "jobs" / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    (folder / JOB).write_text('{"title": "x", "args": ["train"]}')
    (folder / LOG).write_text(f"{line}\n\nfaceswap: note: a note\n")

    job = jobs.job(folder.name)

    assert job.done == share
    assert job.words == "faceswap: note: a note"


def test_jobs_that_ended_do_not_say_how_long_they_take(jobs, tmp_path):
    folder = tmp_path / ".faceswap" / "jobs" / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    (folder / JOB).write_text('{"title": "x", "args": ["train"]}')
    (folder / LOG).write_text("faceswap: note: a note\n2.9 of 3 minutes, 3 steps/s, 6 s left  x\n")
    assert "6 s left" in jobs.job(folder.name).words

    (folder / "end.json").write_text('{"exit_code": 0}')

    job = jobs.job(folder.name)
    assert (job.state, job.done, job.words) == ("done", 1.0, "faceswap: note: a note")
    assert jobs.has_just_ended(folder.name)
    os.utime(folder / "end.json", (0, 0))
    assert not jobs.has_just_ended(folder.name)


@pytest.mark.parametrize("name", ["../x", "x", "20260101-000000-abcdeg", "20260101-000000-abcdef"])
def test_unknown_jobs_are_refused(jobs, name):
    with pytest.raises(InputError, match="no such job"):
        jobs.job(name)


@pytest.mark.parametrize("text", ["", "no JSON", '{"title": 1}', '{"title": "x", "args": "train"}'])
def test_damaged_jobs_are_not_listed(jobs, tmp_path, text):
    folder = tmp_path / ".faceswap" / "jobs" / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    (folder / JOB).write_text(text)

    assert jobs.all() == []


def test_job_of_a_stranger_runs_no_other_command(jobs, tmp_path):
    folder = tmp_path / ".faceswap" / "jobs" / "20260101-000000-abcdef"
    folder.mkdir(parents=True)
    (folder / JOB).write_text('{"title": "x", "args": ["import-checkpoint", "x", "y"]}')
    (folder / PROCESS).write_text("1")

    with pytest.raises(InputError, match="none of ours"):
        jobs.again(folder.name)
    with pytest.raises(SettingsError, match="does not run"):
        jobs.stop(folder.name)


def test_jobs_folder_that_is_a_link_is_not_written(jobs, tmp_path, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (tmp_path / ".faceswap").symlink_to(outside)

    with pytest.raises(InputError, match="is a link"):
        jobs.start("x", ["train"])
    assert not list(outside.iterdir())


@pytest.mark.slow
def test_jobs_with_the_same_command_take_turns(jobs, train, tmp_path):
    folder = tmp_path / ".faceswap" / "jobs"
    first = jobs.start("train", [*train, "--save-every", "0.02", "-o", "m"])
    wait(jobs, first, ["running"], lambda job: not (folder / first / "waiting").exists())
    second = jobs.start("train", [*train, "--steps", "1", "-o", "n"])
    third = jobs.start("train", [*train, "--steps", "1", "-o", "o"])
    other = jobs.start("convert nothing", ["run", "./none.toml"])
    wait(jobs, other, ["failed"])  # of another kind
    assert [jobs.job(name).state for name in (first, second, third)] == [
        "running", "waiting", "waiting",
    ]  # fmt: skip
    with pytest.raises(SettingsError, match="still runs"):
        jobs.again(second)

    jobs.stop(third)
    wait(jobs, third, ["stopped"])
    assert not (folder / third / LOG).exists()
    assert jobs.job(second).state == "waiting"
    deadline = time.monotonic() + 120
    while not (tmp_path / "m" / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    jobs.stop(first)

    wait(jobs, first, ["stopped"])
    wait(jobs, second, ["done"])
    assert (tmp_path / "n" / "model.safetensors").is_file()
    assert not (tmp_path / "o").exists()


def test_conversions_wait_for_each_other_whatever_their_command(jobs, tmp_path):
    folder = tmp_path / ".faceswap" / "jobs"
    for number, args in enumerate((["convert", "x"], ["run", "x"], ["train"])):
        (folder / f"2026010{number + 1}-000000-abcdef").mkdir(parents=True)
        path = folder / f"2026010{number + 1}-000000-abcdef"
        (path / JOB).write_text(json.dumps({"title": "x", "args": args}))
    names = sorted(path.name for path in folder.iterdir())
    with lock_file(folder / names[1] / LOCK, ""):
        assert [jobs.must_wait(name) for name in names] == [True, False, False]
        (folder / names[1] / "waiting").touch()
        assert [jobs.must_wait(name) for name in names] == [False, False, False]
    with lock_file(folder / names[0] / LOCK, ""):
        (folder / names[0] / "waiting").touch()
        assert [jobs.must_wait(name) for name in names] == [False, True, False]
