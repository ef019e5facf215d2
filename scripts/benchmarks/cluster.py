#!/usr/bin/env python3
"""Measure what a Ray cluster costs: the same conversion alone, and as tasks on one machine.

    scripts/benchmarks/cluster.py CLIP MODEL [--frames 1000] [--nodes 1]

The cluster is started here. Its nodes share the cores of this machine, so it cannot be faster: what
it takes longer is its overhead. The packets of both outputs are compared.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import av

from faceswap import cluster, convert
from faceswap.config import ConvertConfig
from faceswap.media.footage import video_at
from faceswap.parallel import cores


def digest(path: Path) -> str:
    """Return the SHA-256 of the packets of a video and of their times."""
    found = hashlib.sha256()
    with av.open(str(path)) as file:
        for packet in file.demux():
            if packet.size:
                found.update(f"{packet.stream.index} {packet.pts} {packet.dts}".encode())
                found.update(bytes(packet))
    return found.hexdigest()


def main() -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=1)
    given = parser.parse_args()
    info = video_at(given.clip).probe()
    assert info.seconds, "the clip has no known duration"
    end = float(given.frames * info.seconds / info.frames)
    config = ConvertConfig(end=f"{end:.3f}" if given.frames < info.frames else None)

    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        alone = convert(given.clip, Path(name, "alone.mp4"), given.model, config)
        plain = time.perf_counter() - began
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        share = max(cores() // given.nodes, 1)
        began = time.perf_counter()
        nodes = Cluster(
            initialize_head=True, head_node_args={"num_cpus": share, "include_dashboard": False}
        )
        for _ in range(given.nodes - 1):
            nodes.add_node(num_cpus=share)
        os.environ["RAY_ADDRESS"] = nodes.address
        ray = cluster.connect()
        started = time.perf_counter() - began
        together = convert(
            given.clip, Path(name, "together.mp4"), given.model, replace(config, cluster=True)
        )
        spread = time.perf_counter() - began - started
        equal = digest(alone.output) == digest(together.output)
        ray.shutdown()
        nodes.shutdown()  # type: ignore[no-untyped-call]
    print(f"alone: {alone.frames} frames in {plain:.1f} s, {alone.frames / plain:.2f} frames/s")
    print(f"on {given.nodes} nodes: {spread:.1f} s, {spread / plain:.2f} times as long")
    print(f"starting the cluster: {started:.1f} s; packets {'equal' if equal else 'DIFFER'}")
    return int(not equal)


if __name__ == "__main__":
    sys.exit(main())
