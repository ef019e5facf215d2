#!/usr/bin/env python3
"""Convert a jobs file with a video and an image sequence in four ways, and compare the results.

    scripts/tools/check_machines.py CLIP MODEL [--frames 250]

The ways are one machine, three shards of each, a Ray cluster of two nodes that are started here,
and the same cluster with a third node that is killed as soon as something has been rendered. The
hashes of the packets, and of the images, must be equal.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2

from faceswap import cluster
from faceswap.config import ConvertConfig
from faceswap.media.footage import video_at
from faceswap.swapping.batch import convert_all, read_jobs
from faceswap.swapping.shards import Shard, convert_shard, join
from faceswap.types import OnProgress, Progress, ignore_progress

SHARDS = 3


def digest(path: Path) -> str:
    """Return the SHA-256 of the packets of a video with their times, or of a folder's images."""
    found = hashlib.sha256()
    if path.is_dir():
        for image in sorted(path.glob("*.png")):
            found.update(image.name.encode() + image.read_bytes())
        return found.hexdigest()
    with av.open(str(path)) as file:
        for packet in file.demux():
            if packet.size:
                found.update(f"{packet.stream.index} {packet.pts} {packet.dts}".encode())
                found.update(bytes(packet))
    return found.hexdigest()


def images_of(clip: Path, folder: Path, count: int) -> Path:
    """Write the first frames of a clip as an image sequence."""
    folder.mkdir()
    for frame in video_at(clip).read():
        if frame.index == count:
            break
        cv2.imwrite(str(folder / f"shot.{1001 + frame.index}.png"), frame.image[..., ::-1])
    return folder


class Killer:
    """Takes progress, and kills a node once another frame has been rendered on the cluster."""

    def __init__(self, nodes: Any) -> None:
        self._nodes, self._extra = nodes, nodes.add_node(num_cpus=1)

    def __call__(self, progress: Progress) -> None:
        if self._extra and progress.unit == "frames" and progress.done:
            self._nodes.remove_node(self._extra, allow_graceful=False)
            self._extra = None


def main() -> int:
    """Convert and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--frames", type=int, default=250)
    given = parser.parse_args()
    info = video_at(given.clip).probe()
    assert info.seconds, "the clip has no known duration"
    end = f"{float(given.frames * info.seconds / info.frames):.3f}"
    # Images without a watermark, which would name a source that differs between copies.
    config = ConvertConfig(end=end, intermediate=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = given.clip.resolve(), images_of(given.clip, folder / "shot", given.frames)
        found: dict[str, list[str]] = {}

        def run_jobs(way: str, on_cluster: bool, on_progress: OnProgress) -> None:
            jobs = folder / f"{way}.toml"
            jobs.write_text(
                f'model = "{given.model.resolve()}"\n'
                f"[settings]\ncluster = {str(on_cluster).lower()}\n"
                f'end = "{end}"\n'
                f'[[job]]\ninputs = "{sources[0]}"\noutput = "{way}.mp4"\n'
                f'[[job]]\ninputs = "{sources[1]}"\noutput = "{way}"\n'
                f"settings.intermediate = true\n"
            )
            reports = list(convert_all(read_jobs(jobs), on_progress))
            assert all(report.result for report in reports), reports
            found[way] = [digest(each.result.output) for each in reports if each.result]

        run_jobs("alone", False, ignore_progress)
        found["shards"] = []
        for source, output, settings in (
            (sources[0], folder / "shards.mp4", replace(config, intermediate=False)),
            (sources[1], folder / "shards", config),
        ):
            for number in range(1, SHARDS + 1):
                convert_shard(source, output, given.model, settings, Shard(number, SHARDS))
            found["shards"].append(digest(join(source, output).output))

        from ray.cluster_utils import Cluster

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        nodes = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        nodes.add_node(num_cpus=1)
        os.environ["RAY_ADDRESS"] = nodes.address
        ray = cluster.connect()
        run_jobs("two nodes", True, ignore_progress)
        run_jobs("one killed", True, Killer(nodes))
        ray.shutdown()
        nodes.shutdown()  # type: ignore[no-untyped-call]
    for way, digests in found.items():
        print(f"{way:12} video {digests[0][:16]}  sequence {digests[1][:16]}")
    are_equal = all(digests == found["alone"] for digests in found.values())
    print("all equal" if are_equal else "THEY DIFFER")
    return int(not are_equal)


if __name__ == "__main__":
    sys.exit(main())
