"""Distributed training takes the same steps as training in one process."""

import json
import subprocess
import sys

import pytest

from faceswap.training.distributed import World

STEPS = 8


def train(folder, faceset_folders, processes):
    command = ["-m", "faceswap", "train", "--model", "small", "--steps", str(STEPS),
               "--batch-size", "4", "--device", "cpu", "--preview-every", "0",
               "--save-every", "0",  # so that the loss of every step is recorded
               "--a", str(faceset_folders[0]), "--b", str(faceset_folders[1]),
               "--output", str(folder)]  # fmt: skip
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    start = [sys.executable, *(launcher if processes > 1 else []), *command]
    done = subprocess.run(start, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {r["step"]: (r["loss_a"], r["loss_b"]) for r in lines if "loss_a" in r}


def weights(folder):
    from faceswap.models import modelfile

    return modelfile.load(folder).network.state_dict()


def test_two_processes_equal_one(faceset_folders, tmp_path):
    train(tmp_path / "one", faceset_folders, 1)

    stdout = train(tmp_path / "two", faceset_folders, 2)

    assert stdout.count(f"step {STEPS}") == 1  # only rank 0 reports
    expected, found = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert sorted(expected) == sorted(found) == list(range(1, STEPS + 1))
    for step in expected:
        assert found[step] == pytest.approx(expected[step], abs=1e-4), step
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key in one:
        # bfloat16 amplifies differences from the summation order
        share = 0.1 if key == "covariances" else 0.05  # squares of differences
        assert (one[key] - two[key]).norm() < share * one[key].norm(), key


@pytest.mark.parametrize(("size", "shards"), [(1, [(0, 6)]), (3, [(0, 2), (2, 4), (4, 6)])])
def test_shards_cover_the_batch(size, shards):
    found = [World(rank, size).shard(6) for rank in range(size)]

    assert [(shard.start, shard.stop) for shard in found] == shards
