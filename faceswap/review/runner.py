"""Run the command of a job, and note how it ended.

The app starts it as ``python -m faceswap.review.runner JOB WORKSPACE``. It returns as soon as the
job has begun; a second process waits for the command.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec

from faceswap.files import LOCK, lock_file, write_bytes
from faceswap.review.jobs import END, JOB, LOG, PROCESS, RESULT, Command


def main(folder: Path, root: Path) -> None:
    """Run the command of a job in a workspace.

    The command holds the lock, too, so that it counts as running even if this process is killed.
    """
    if os.name == "posix":
        if os.fork():
            return
        os.setsid()
    lock = lock_file(folder / LOCK, "this job runs")
    command = msgspec.json.decode((folder / JOB).read_bytes(), type=Command)
    with (folder / LOG).open("ab") as log, (folder / RESULT).open("wb") as result:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "faceswap", *command.args], cwd=root, stdin=subprocess.DEVNULL,
            stdout=result, stderr=log, start_new_session=True,
            pass_fds=[lock.fileno()] if os.name == "posix" else (),
        )  # fmt: skip
        write_bytes(folder / PROCESS, str(process.pid).encode())
        code = process.wait()
    write_bytes(folder / END, json.dumps({"exit_code": code}).encode())
    lock.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
