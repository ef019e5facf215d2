#!/usr/bin/env python3
"""Convert a clip on a Deadline farm: a task for each shard, and a job that joins them.

    submit_deadline.py 8 clip.mp4 --model models/trump-cage --output clip.swapped.mp4

The first argument is the number of shards; the rest is what follows "faceswap convert". Paths must
mean the same on all machines. Deadline's own programs must be installed here, and faceswap on the
workers.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path


def submit(folder: Path, job: dict[str, str], arguments: list[str]) -> str:
    """Submit a job of Deadline's CommandLine plug-in, and return its id."""
    plugin = {"Executable": "faceswap", "Arguments": quoted(arguments)}
    files = []
    for name, values in (("job_info.job", job), ("plugin_info.job", plugin)):
        files.append(folder / name)
        files[-1].write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    told = subprocess.run(
        ["deadlinecommand", *map(str, files)], check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"JobID=(\S+)", told)
    if not found:
        sys.exit(f"Deadline did not accept the job: {told.strip()}")
    return found[1]


def quoted(arguments: list[str]) -> str:
    """Join arguments; Deadline replaces <QUOTE> by a quotation mark."""
    return " ".join(f"<QUOTE>{one}<QUOTE>" if re.search(r"\s", one) else one for one in arguments)


def main(count: int, arguments: list[str]) -> None:
    """Submit both jobs, and print their ids."""
    source = arguments[0]
    where = []
    for flag in ("-o", "--output"):
        if flag in arguments:
            where = ["--output", arguments[arguments.index(flag) + 1]]
    usual = {"Plugin": "CommandLine", "BatchName": f"faceswap {source}", "ChunkSize": "1"}
    shards = ["convert", *arguments, "--shard", f"<STARTFRAME>/{count}"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        render = usual | {"Name": f"convert {source}", "Frames": f"1-{count}"}
        first = submit(folder, render, shards)
        last = usual | {"Name": f"join {source}", "Frames": "1", "JobDependencies": first}
        second = submit(folder, last, ["join", source, *where])
    print(f"shards: {first}, join: {second}")


if __name__ == "__main__":
    if len(sys.argv) < 3 or not sys.argv[1].isdecimal():
        sys.exit(__doc__)
    main(int(sys.argv[1]), sys.argv[2:])
