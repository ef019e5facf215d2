#!/usr/bin/env python3
"""Convert a clip on an OpenCue farm: a layer with a frame for each shard, and one that joins them.

    submit_opencue.py 8 clip.mp4 --model models/trump-cage --output clip.swapped.mp4

The first argument is the number of shards; the rest is what follows "faceswap convert". Paths must
mean the same on all machines. It needs OpenCue's Python packages: pip install opencue-pyoutline.
"""

import getpass
import os
import sys

import outline
import outline.cuerun
from outline.modules.shell import Shell


def main(count: int, arguments: list[str]) -> None:
    """Launch the job."""
    source = arguments[0]
    where = []
    for flag in ("-o", "--output"):
        if flag in arguments:
            where = ["--output", arguments[arguments.index(flag) + 1]]
    job = outline.Outline(
        "faceswap", show=os.environ.get("SHOW", "testing"), shot=os.environ.get("SHOT", "shot"),
        user=getpass.getuser(),
    )  # fmt: skip
    command = ["faceswap", "convert", *arguments, "--shard", f"#IFRAME#/{count}"]
    shards = Shell("shards", command=command, range=f"1-{count}", chunk=1, threads=2)
    joined = Shell("join", command=["faceswap", "join", source, *where], range="1", chunk=1)
    job.add_layer(shards)
    job.add_layer(joined)
    joined.depend_all(shards)
    outline.cuerun.launch(job, use_pycuerun=False)


if __name__ == "__main__":
    if len(sys.argv) < 3 or not sys.argv[1].isdecimal():
        sys.exit(__doc__)
    main(int(sys.argv[1]), sys.argv[2:])
