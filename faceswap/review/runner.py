"""Run the command of a job, and note how it ended.

The app starts it as ``python -m faceswap.review.runner JOB WORKSPACE``. It returns as soon as the
job has begun; a second process waits for the command.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import msgspec

from faceswap.files import LOCK, lock_file, write_bytes
from faceswap.review.jobs import END, JOB, LOG, PROCESS, RESULT, WAITING, Command, Jobs

EVERY = 1.0  # seconds between two looks at the other jobs


def main(folder: Path, root: Path) -> None:
    """Run the command of a job in a workspace.

    The command holds the lock, too, so that it counts as running even if this process is killed.
    """
    if os.name == "posix":
        if os.fork():
            return
        os.setsid()
    lock = lock_file(folder / LOCK, "this job runs")
    if not _has_turn(folder, root):
        lock.close()
        return
    command = msgspec.json.decode((folder / JOB).read_bytes(), type=Command)
    with (folder / LOG).open("ab") as log, (folder / RESULT).open("wb") as result:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "faceswap", *command.args], cwd=root, stdin=subprocess.DEVNULL,
            stdout=result, stderr=log, start_new_session=True,
            pass_fds=[lock.fileno()] if os.name == "posix" else (),
        )  # fmt: skip
        write_bytes(folder / PROCESS, str(process.pid).encode())
        (folder / WAITING).unlink()
        code = process.wait()
    write_bytes(folder / END, json.dumps({"exit_code": code}).encode())
    lock.close()


def _has_turn(folder: Path, root: Path) -> bool:
    """Wait until it is this job's turn; return False if it was stopped meanwhile.

    Until the command has started, the job counts as waiting.
    """
    stopped = Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    write_bytes(folder / WAITING, b"")
    write_bytes(folder / PROCESS, str(os.getpid()).encode())
    jobs = Jobs(root)
    while jobs.must_wait(folder.name) and not stopped.wait(EVERY):
        pass
    if stopped.is_set():
        write_bytes(folder / END, json.dumps({"exit_code": -signal.SIGTERM}).encode())
        (folder / WAITING).unlink()
    return not stopped.is_set()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
