"""Long work that the app starts: commands of faceswap, which go on if the app ends.

Each job is a folder of plain files in ``.faceswap/jobs``. A process of its own runs the command and
notes how it ended, so a new server finds all jobs again. That process and the command hold a lock;
a job whose lock is free and which did not note its end was killed.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from faceswap.errors import BusyError, InputError, SettingsError
from faceswap.files import LOCK, lock_file, make_folder, write_bytes

FOLDER = Path(".faceswap", "jobs")  # in the workspace
JOB, LOG, RESULT, END, PROCESS = "job.json", "log.txt", "result.json", "end.json", "process"
WAITING = "waiting"  # is there while a job waits for another one
LOG_TAIL = 4000  # characters of the log that are shown
ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
PROGRESS = re.compile(r"^([0-9.e+]+) of ([0-9.e+]+) (\w[\w ]*), (.*)$")
COMMANDS = ("extract", "train", "convert", "run", "evaluate")  # what a job may run
ALIKE = {"run": "convert"}  # commands that count as another one
INTERRUPTED = 130  # exit code of a command after Ctrl-C
State = Literal["waiting", "running", "done", "stopped", "failed", "killed"]
ACTIVE = ("waiting", "running")
JUST = 30.0  # seconds after its end in which what a job wrote last still looks new


class Command(msgspec.Struct, frozen=True):
    """What a job runs.

    Attributes:
        title: What it does, for people.
        args: The command and its arguments, without "faceswap".
        about: The page about such work, such as "training", or about its result, such as
            "training/0123456789ab".
        started: When it was started, ISO 8601.
    """

    title: str
    args: list[str]
    about: str = ""
    started: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A job and how it goes.

    Attributes:
        id: Its name.
        command: What it runs.
        state: How it goes.
        done: Share that is done, 0 to 1; None if that is unknown.
        words: The last line that it printed; after its end, the last one that is no progress.
        log: The end of what it printed.
    """

    id: str
    command: Command
    state: State
    done: float | None
    words: str
    log: str

    def to_json(self) -> dict[str, Any]:
        """Return what the browser shows."""
        return {
            "id": self.id, "title": self.command.title, "about": self.command.about,
            "started": self.command.started, "command": self.command.args, "state": self.state,
            "done": self.done, "words": self.words, "log": self.log,
        }  # fmt: skip


class Jobs:
    """The jobs of a workspace.

    Args:
        root: The workspace.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._folder = root, root / FOLDER

    def start(self, title: str, args: Sequence[str], about: str = "") -> str:
        """Start a command in the workspace, and return the job's id.

        Raises:
            InputError: If the folder of the jobs is a link.
            OutputError: If the job's files cannot be written.
        """
        now = datetime.now(UTC)
        name = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        command = Command(title, list(args), about, now.isoformat(timespec="seconds"))
        self._refuse_links()
        make_folder(self._folder / name)
        write_bytes(self._folder / name / JOB, msgspec.json.encode(command))
        self._run(name)
        return name

    def _refuse_links(self) -> None:
        for folder in (self._folder.parent, self._folder):
            if folder.is_symlink():
                raise InputError(f"{folder} is a link; jobs are kept inside the workspace")

    def _run(self, name: str) -> None:
        subprocess.run(  # noqa: S603 - our own program; it goes on in a process of its own
            [sys.executable, "-m", "faceswap.review.runner", self._folder / name, self._root],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            check=True,
        )  # fmt: skip

    def all(self) -> list[Job]:
        """Return the jobs, the newest first."""
        found = []
        for path in sorted(self._folder.glob("*"), reverse=True):
            if ID.fullmatch(path.name):
                with suppress(InputError):  # a job that is just being written, or damaged
                    found.append(self.job(path.name))
        return found

    def job(self, name: str) -> Job:
        """Return a job.

        Raises:
            InputError: If there is none of this name, or its file is damaged.
        """
        folder = self._folder / name
        self._refuse_links()
        if not ID.fullmatch(name) or folder.is_symlink():
            raise InputError("there is no such job")
        try:
            command = msgspec.json.decode((folder / JOB).read_bytes(), type=Command)
        except (OSError, msgspec.DecodeError) as error:
            raise InputError("there is no such job") from error
        log = _tail(folder / LOG)
        lines = [line for line in log.splitlines() if line]
        share = None
        for line in reversed(lines):
            found = PROGRESS.match(line)
            if found:
                share = min(float(found[1]) / max(float(found[2]), 1e-9), 1.0)
                break
        state = self._state(folder)
        told = lines if state in ACTIVE else [line for line in lines if not PROGRESS.match(line)]
        words = told[-1] if told else ""
        return Job(name, command, state, 1.0 if state == "done" else share, words, log)

    def _state(self, folder: Path) -> State:
        if _is_locked(folder):
            return "waiting" if (folder / WAITING).exists() else "running"
        try:
            code = json.loads((folder / END).read_text())["exit_code"]
        except (OSError, ValueError, KeyError, TypeError):
            return "killed" if (folder / PROCESS).exists() else "running"  # it has just begun
        if code == 0:
            return "done"
        return "stopped" if code in (INTERRUPTED, -signal.SIGTERM) else "failed"

    def has_just_ended(self, name: str) -> bool:
        """Return whether a job noted its end a moment ago."""
        try:
            return time.time() - (self._folder / name / END).stat().st_mtime < JUST
        except OSError:
            return False

    def must_wait(self, name: str) -> bool:
        """Return whether a job has to wait: of jobs with the same command, one runs at a time.

        Two conversions or trainings at once would slow each other down more than twofold. Those
        that wait take turns in the order in which they were started.

        Raises:
            InputError: If there is no such job.
        """
        kind = _kind_of(self.job(name))
        others = [
            job for job in self.all()
            if job.id != name and _kind_of(job) == kind and _is_locked(self._folder / job.id)
        ]  # fmt: skip
        return any(
            job.state == "running" or (job.state == "waiting" and job.id < name) for job in others
        )

    def stop(self, name: str) -> None:
        """Stop a job as Ctrl-C does, so that finished work is kept.

        Raises:
            InputError: If there is no such job.
            SettingsError: If it does not run.
        """
        job = self.job(name)
        if job.state not in ACTIVE:
            raise SettingsError(f"this job does not run: {job.state}")
        with suppress(OSError, ValueError):  # it ends just now, or has just begun
            # A server that runs in the background of a shell passes on that SIGINT is ignored.
            os.kill(int((self._folder / name / PROCESS).read_text()), signal.SIGTERM)

    def again(self, name: str) -> None:
        """Run a job again; commands go on with what is not done.

        Raises:
            InputError: If there is no such job.
            SettingsError: If it still runs.
        """
        job = self.job(name)
        if job.state in ACTIVE:
            raise SettingsError("this job still runs")
        if job.command.args[:1] not in [[command] for command in COMMANDS]:
            raise InputError("this job is none of ours")
        with suppress(FileNotFoundError):
            (self._folder / name / END).unlink()
        with suppress(FileNotFoundError):
            (self._folder / name / PROCESS).unlink()
        self._run(name)


def options(settings: dict[str, Any]) -> list[str]:
    """Return settings as options of the command line."""
    args = []
    for name, value in settings.items():
        flag = "--likeness" if name == "identity_strength" else f"--{name.replace('_', '-')}"
        args += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return args


def _kind_of(job: Job) -> str:
    """Return the command that decides for which others a job waits."""
    command = "".join(job.command.args[:1])
    return ALIKE.get(command, command)


def _is_locked(folder: Path) -> bool:
    if not (folder / LOCK).exists():
        return False
    try:
        lock_file(folder / LOCK, "").close()
    except BusyError:
        return True
    return False


def _tail(path: Path) -> str:
    """Return the end of a file, without a half line at its beginning."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - LOG_TAIL, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return text if size <= LOG_TAIL else text.partition("\n")[2]
