#!/usr/bin/env python3
"""Convert a video, an image sequence and a jobs file in four ways, and compare the results.

    scripts/tools/check_machines.py CLIP MODEL [--frames 250]

The ways are one machine, three shards, a Ray cluster of two nodes that are started here, and the
same cluster with a third node that is killed as soon as it has rendered something. The hashes of
the packets, and of the images, must be equal.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2

from faceswap import cluster
from faceswap.config import ConvertConfig
from faceswap.media.footage import video_at
from faceswap.swapping.batch import convert_all, read_jobs
from faceswap.swapping.converter import convert
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
    movie = ConvertConfig(end=end)
    # Without a watermark, which names the source: that of each copy would be another.
    shot = ConvertConfig(intermediate=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = images_of(given.clip, folder / "shot", given.frames)
        found: dict[str, dict[str, str]] = {"video": {}, "sequence": {}, "jobs": {}}

        def by_runs(way: str, on_cluster: bool, told: Callable[[], OnProgress]) -> None:
            for kind, source, config, output in (
                ("video", given.clip, movie, folder / f"{way}.mp4"),
                ("sequence", images, shot, folder / way),
            ):
                convert(source, output, given.model, replace(config, cluster=on_cluster), told())
                found[kind][way] = digest(output)
            jobs = folder / f"{way}.toml"
            jobs.write_text(
                f'model = "{given.model.resolve()}"\noutput = "{way}-jobs"\n'
                f"[settings]\ncluster = {str(on_cluster).lower()}\n"
                f'[[job]]\ninputs = "{given.clip.resolve()}"\nsettings.end = "{end}"\n'
                '[[job]]\ninputs = "shot"\nsettings.intermediate = true\n'
            )
            reports = list(convert_all(read_jobs(jobs), told()))
            made = [report.result.output for report in reports if report.result]
            assert len(made) == 2, reports
            found["jobs"][way] = " ".join(map(digest, made))

        by_runs("alone", False, lambda: ignore_progress)
        for kind, source, config, output in (
            ("video", given.clip, movie, folder / "shards.mp4"),
            ("sequence", images, shot, folder / "shards"),
        ):
            for number in range(1, SHARDS + 1):
                convert_shard(source, output, given.model, config, Shard(number, SHARDS))
            found[kind]["shards"] = digest(join(source, output).output)
        found["jobs"]["shards"] = f"{found['video']['shards']} {found['sequence']['shards']}"

        from ray.cluster_utils import Cluster

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        nodes = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
        )
        nodes.add_node(num_cpus=1)
        os.environ["RAY_ADDRESS"] = nodes.address
        ray = cluster.connect()
        by_runs("two nodes", True, lambda: ignore_progress)
        by_runs("one killed", True, lambda: Killer(nodes))
        ray.shutdown()
        nodes.shutdown()  # type: ignore[no-untyped-call]
    for kind, digests in found.items():
        print(kind, "equal" if len({*digests.values()}) == 1 else "DIFFER")
        for way, one in digests.items():
            print(f"  {way:12} {' '.join(part[:16] for part in one.split())}")
    return int(any(len({*digests.values()}) > 1 for digests in found.values()))


if __name__ == "__main__":
    sys.exit(main())
