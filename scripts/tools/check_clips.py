#!/usr/bin/env python3
"""Convert clips and compare frames, times, sound, size and luma off the faces with the source.

scripts/tools/check_clips.py MODEL OUTPUT_FOLDER CLIP [CLIP ...]
"""

import json
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

import faceswap


def seconds(pts: int | None, time_base: Fraction | None) -> Fraction:
    """A timestamp in seconds; files without timestamps cannot be compared."""
    if pts is None or time_base is None:
        raise ValueError("a packet or frame has no timestamp")
    return pts * time_base


def packets(path: Path) -> list[tuple[int, bytes, object]]:
    """Track, bytes and time of every audio and subtitle packet."""
    with av.open(str(path)) as container:
        others = [s for s in container.streams if s.type in ("audio", "subtitle")]
        place = {stream.index: number for number, stream in enumerate(others)}
        return sorted(
            (place[p.stream.index], bytes(p), seconds(p.pts, p.time_base))
            for p in (container.demux(*others) if others else ())
            if p.dts is not None
        )


def compare(source: Path, swapped: Path) -> dict[str, object]:
    """Report what is equal, and how far the luma is off where no face was swapped."""
    with av.open(str(source)) as before, av.open(str(swapped)) as after:
        one, two = before.streams.video[0], after.streams.video[0]
        times: list[tuple[Fraction, Fraction]] = []
        bias, count, quality = 0.0, 0, []
        for old, new in zip(before.decode(one), after.decode(two), strict=True):
            times.append((seconds(old.pts, old.time_base), seconds(new.pts, new.time_base)))
            y = [f.to_ndarray(format="gray").astype(np.int16) if f.format.name == "gray" else
                 np.frombuffer(memoryview(f.planes[0]), np.uint8).reshape(f.height, -1)[
                     :, : f.width].astype(np.int16) for f in (old, new)]  # fmt: skip
            difference = y[1] - y[0]
            still = np.abs(difference) < 12  # a swapped face differs by more, the encoder by less
            bias, count = bias + float(difference[still].sum()), count + int(still.sum())
            quality.append(float((difference[still].astype(np.float64) ** 2).mean()))
        return {
            "frames": len(times),
            "times_equal": all(a == b for a, b in times),
            "size": f"{two.width}x{two.height}",
            "size_equal": (one.width, one.height) == (two.width, two.height),
            "sound_equal": packets(source) == packets(swapped),
            "luma_bias": round(bias / count, 3),
            "psnr_off_faces": round(10 * np.log10(255**2 / np.mean(quality)), 1),
        }


def main(model: str, folder: str, clips: list[str]) -> None:
    """Convert and compare each clip; print one JSON line per clip."""
    for clip in map(Path, clips):
        output = Path(folder) / f"{clip.stem}.swapped{clip.suffix}"
        began = time.perf_counter()
        report = faceswap.convert(clip, output, model)
        took = time.perf_counter() - began
        result = {"clip": clip.name, "faces": report.faces, "without_face": report.without_face,
                  "seconds": round(took, 1), **compare(clip, output)}  # fmt: skip
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
