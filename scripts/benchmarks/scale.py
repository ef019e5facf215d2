#!/usr/bin/env python3
"""Measure what of a conversion is serial, and what several machines can share.

    scripts/benchmarks/scale.py CLIP MODEL [--shards 4] [--seconds 16]

Converts the beginning of a clip in shards on this machine, one after the other, and joins them.
Printed are the frames per second of each part, the bytes that they leave in the shared folder, and
how long the clip and an hour of footage would take on 1, 2, 4, ... machines like this one; that
last part is a model, see docs/scale.md.
"""

import argparse
import tempfile
import time
from pathlib import Path

from faceswap.config import ConvertConfig
from faceswap.media.footage import video_at
from faceswap.swapping import shards
from faceswap.swapping.shards import Shard, convert_shard, join
from faceswap.swapping.video import CONTEXT_FRAMES
from faceswap.types import Progress

MACHINES = (1, 2, 4, 8, 16, 64, 256, 1000)
HOUR = 3600.0  # seconds


class Clock:
    """Takes progress, and notes when the faces have been followed."""

    def __init__(self) -> None:
        self.units: dict[str, tuple[float, float, float]] = {}  # first and last time, items

    def __call__(self, progress: Progress) -> None:
        now = time.perf_counter()
        first, _, _ = self.units.get(progress.unit, (now, now, 0.0))
        self.units[progress.unit] = first, now, progress.done

    def seconds(self, unit: str) -> float:
        """Return how long work of a unit took."""
        first, last, _ = self.units.get(unit, (0.0, 0.0, 0.0))
        return last - first


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=16.0)
    given = parser.parse_args()
    info = video_at(given.clip).probe()
    assert info.seconds
    rate = float(info.frames / info.seconds)
    config = ConvertConfig(end=f"{min(given.seconds, float(info.seconds)):g}")
    rendering, frames, clock = 0.0, 0, Clock()
    with tempfile.TemporaryDirectory() as name:
        output = Path(name, "out.mp4")
        for number in range(1, given.shards + 1):
            began = time.perf_counter()
            part = convert_shard(
                given.clip, output, given.model, config, Shard(number, given.shards), clock
            )
            if number > 1:  # the first one also follows the faces, and loads what others share
                rendering += time.perf_counter() - began
                frames += part.frames
        folder = next(Path(name).glob(".*.parts"))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        log = (folder / shards.TRACKS).stat().st_size
        began = time.perf_counter()
        total = join(given.clip, output).frames
        joining = time.perf_counter() - began
    following = total / clock.seconds("frames followed")
    checking = clock.seconds("frames checked")
    each = rendering / max(given.shards - 1, 1)  # seconds, with the start of the program
    print(f"{given.clip.name}: {total} frames of {info.width}x{info.height}, {rate:g} per second")
    print(f"following faces (serial): {following:.1f} frames/s, after {checking:.1f} s of checking")
    print(
        f"rendering (shared): {frames / rendering:.1f} frames/s with starts, {each:.1f} s a shard"
    )
    print(f"joining (serial): {joining:.1f} s with its start")
    print(f"shared folder: {size / total / 1000:.1f} KB a frame, {log / total:.0f} B of it tracks")
    print(f"a shard decodes up to {CONTEXT_FRAMES} frames before its own")
    hour = HOUR * rate
    for count in MACHINES:
        # Joining takes as long as the program's start, whatever the length.
        serial = hour / following + hour * checking / total + joining
        shared = (hour / count + CONTEXT_FRAMES) * rendering / frames
        seconds = serial + shared
        print(f"an hour of footage on {count} machines: {seconds / HOUR:.1f} h, "
              f"{serial / seconds:.0%} of it serial")  # fmt: skip


if __name__ == "__main__":
    main()
