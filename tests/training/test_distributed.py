"""Two processes take the steps that one would."""

import json
import subprocess
import sys

import pytest

from faceswap.training.distributed import World

STEPS = 20


def train(folder, faceset_folders, processes):
    command = ["-m", "faceswap", "train", "--model", "small", "--steps", str(STEPS),
               "--batch-size", "4", "--device", "cpu", "--preview-every", "0",
               "--save-every", "0",  # so that the loss of each step is written
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

    said = train(tmp_path / "two", faceset_folders, 2)

    assert said.count(f"step {STEPS}") == 1  # only the first process speaks
    exclusive_folder, together = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert sorted(exclusive_folder) == sorted(together) == list(range(1, STEPS + 1))
    for step in exclusive_folder:
        assert together[step] == pytest.approx(exclusive_folder[step], abs=1e-4), step
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key in one:
        # bfloat16 turns the last bit of a sum's order into more
        assert (one[key] - two[key]).norm() < 0.05 * one[key].norm(), key


@pytest.mark.parametrize(("size", "parts"), [(1, [(0, 6)]), (3, [(0, 2), (2, 4), (4, 6)])])
def test_the_parts_of_a_batch_are_the_batch(size, parts):
    found = [World(rank, size).shard(6) for rank in range(size)]

    assert [(part.start, part.stop) for part in found] == parts
