#!/usr/bin/env python3
"""Count the faces in each shot of a clip, tracked as in ``convert`` and with HOG on every frame.

    scripts/tools/compare_tracker.py CLIP [CLIP ...]

A face found by HOG counts as kept if the tracker has an overlapping face in the same frame. Prints
one JSON line per clip; ``lost`` lists the frames whose faces were not kept.
"""

import json
import sys
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from faceswap import parallel
from faceswap.faces.detection import DetectorSpec
from faceswap.faces.geometry import FrameFaces
from faceswap.faces.pool import DetectorPool
from faceswap.media import reader
from faceswap.tracking import tracker

MIN_SCORE, HOG = 0.2, DetectorSpec("hog")


def track(clip: Path, detector: DetectorPool) -> Iterator[FrameFaces]:
    """Track faces as ``convert`` does."""
    return tracker.track_faces(parallel.prefetch(reader.read_video(clip), 4), detector, HOG)


def compare(clip: Path) -> dict[str, object]:
    """Compare the two counts in each shot."""
    with DetectorPool(MIN_SCORE, 0) as detector:
        began = time.perf_counter()
        tracked = [(frame.index, faces) for frame, faces in track(clip, detector)]
        seconds = time.perf_counter() - began
        single = detector.detect(parallel.prefetch(reader.read_video(clip), 4), HOG)
        plain = [faces for _, faces in single]
    cuts = [index for index, cut in enumerate(tracker.cuts(reader.read_video(clip))) if cut]
    rows, lost = [], []
    for shot, frames in groupby(range(len(plain)), lambda at: sum(cut <= at for cut in cuts)):
        where = list(frames)
        kept = 0
        for at in where:
            for face in plain[at]:
                found = tracker.same(face, tracked[at][1]) is not None
                kept += found
                lost += [] if found else [at]
        rows.append({
            "shot": shot, "frames": [where[0], where[-1]], "hog": sum(len(plain[a]) for a in where),
            "kept": kept, "followed": sum(len(tracked[a][1]) for a in where),
            "tracks": len({f.track for a in where for f in tracked[a][1]}),
        })  # fmt: skip
    carried = [
        cut for cut in cuts
        if {f.track for f in tracked[cut][1]} & {f.track for f in tracked[cut - 1][1]}
    ]  # fmt: skip
    return {
        "clip": clip.name, "seconds": round(seconds, 1), "shots": rows, "lost": lost,
        "carried_over_a_cut": carried,
    }  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    for name in sys.argv[1:]:
        print(json.dumps(compare(Path(name))), flush=True)
