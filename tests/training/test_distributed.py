"""Distributed training takes the same steps as training in one process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from faceswap.config import TrainConfig
from faceswap.errors import DeviceError, SettingsError
from faceswap.training import checkpoint, distributed, trainer
from faceswap.training.distributed import World
from faceswap.training.optimizer import Muon

STEPS = 5


def command_of(folder, faceset_folders, steps):
    return ["-m", "faceswap", "train", "--model", "small", "--steps", str(steps),
            "--device", "cpu", "--preview-every", "0",
            "--save-every", "0",  # so that the loss of every step is recorded
            "--a", str(faceset_folders[0]), "--b", str(faceset_folders[1]),
            "--output", str(folder)]  # fmt: skip


def train(folder, faceset_folders, processes):
    command = [*command_of(folder, faceset_folders, STEPS), "--batch-size", "4"]
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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("size", "shards"),
    [(1, [(0, 6)]), (3, [(0, 2), (2, 4), (4, 6)]), (4, [(0, 1), (1, 3), (3, 4), (4, 6)])],
)
def test_shards_cover_the_batch(size, shards):
    found = [World(rank, size).shard(6) for rank in range(size)]

    assert [(shard.start, shard.stop) for shard in found] == shards
    weights = [World(rank, size).weight(6) for rank in range(size)]
    losses = torch.arange(6.0)
    means = [losses[part].mean() * weight for part, weight in zip(found, weights, strict=True)]
    assert torch.stack(means).mean() == pytest.approx(2.5)


@pytest.mark.parametrize(("number", "rank"), [(signal.SIGKILL, 1), (signal.SIGTERM, 0)])
@pytest.mark.slow
def test_a_lost_process_is_started_again(faceset_folders, tmp_path, number, rank):
    """One process is killed or told to stop midway, and both go on from the last saved state.

    With --restart, the second start must not discard what the first one has trained.
    """
    steps, folder = 9, tmp_path / "model"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                "--max-restarts", "1"]  # fmt: skip
    command = [*command_of(folder, faceset_folders, steps), "--batch-size", "5", "--restart"]
    reported = []
    running = subprocess.Popen(
        [sys.executable, *launcher, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        wait_for_steps(folder, running)
        os.kill(process_of_rank(rank, running.pid), number)
        while running.poll() is None:
            reported.append(max(losses(folder), default=0))
            time.sleep(0.05)
        out, errors = running.communicate(timeout=200)
    finally:
        running.kill()

    assert running.returncode == 0, errors
    assert f"step {steps}" in out
    assert sorted(losses(folder)) == list(range(1, steps + 1))
    assert min(reported) >= 3  # the step of the last saved state


def test_a_job_remembers_that_it_has_discarded_the_model(tmp_path, monkeypatch):
    distributed.note_discard()
    assert not distributed.has_discarded()  # without torchrun

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for job in ("one", "other"):
        first = tmp_path / job / "attempt_0" / "1"
        first.mkdir(parents=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(first / "error.json"))
        assert not distributed.has_discarded()
        distributed.note_discard()
        again = tmp_path / job / "attempt_1" / "0" / "error.json"
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(again))
        assert distributed.has_discarded()


def test_restart_without_a_log_folder_of_torchrun_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "")
    with pytest.raises(SettingsError, match="--restart under torchrun needs a log folder"):
        trainer.train(tmp_path, tmp_path, tmp_path / "m", TrainConfig(restart=True, device="cpu"))


def wait_for_steps(folder, running):
    deadline, seen = time.monotonic() + 200, 0
    while seen < 4:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
        if (folder / "metrics.jsonl").exists():
            seen = max(losses(folder), default=0)


@pytest.mark.parametrize(("restarts", "code"), [(0, 130), (1, 13)])
@pytest.mark.slow
def test_all_processes_stop_if_one_is_told_to(faceset_folders, tmp_path, restarts, code):
    """A process without a signal of its own ends so that torchrun starts it again if it can."""
    folder = tmp_path / "model"
    command = [sys.executable, *command_of(folder, faceset_folders, 500), "--batch-size", "4"]
    variables = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(),
        "TORCHELASTIC_MAX_RESTARTS": str(restarts),
    }  # fmt: skip
    running = [
        subprocess.Popen(command, env=variables | {"RANK": str(rank)}, stderr=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        wait_for_steps(folder, running[0])
        running[1].send_signal(signal.SIGTERM)
        errors = [one.communicate(timeout=200)[1] for one in running]
    finally:
        for one in running:
            one.kill()

    assert [one.returncode for one in running] == [code, 130], errors
    assert ("another process was told to stop" in errors[0]) == (restarts > 0)
    saved = checkpoint.read_state(folder).step
    assert saved == max(losses(folder))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def process_of_rank(rank, launcher):
    """Return the process that torchrun started with a rank."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int(re.search(r"PPid:\s+(\d+)", (process / "status").read_text())[1])
            variables = (process / "environ").read_bytes().split(b"\0")
            if parent == launcher and f"RANK={rank}".encode() in variables:
                return int(process.name)
    raise AssertionError(f"no process has rank {rank}")


def start(store, size, late):
    """Let the processes of a start meet, some of them late, and return their tokens."""

    def join(rank):
        time.sleep(0.3 if rank in late else 0)
        return distributed.meet(store(), rank, size, seconds=20)

    with ThreadPoolExecutor(size) as processes:
        return list(processes.map(join, range(size)))


@pytest.mark.parametrize("kind", ["hash", "tcp"])
def test_processes_of_each_start_meet(kind):
    """The store keeps greetings of earlier starts, and of processes that were lost at once."""
    hosted = (
        dist.HashStore() if kind == "hash"
        else dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    )  # fmt: skip

    def store():
        if kind == "hash":
            return hosted
        return dist.TCPStore("127.0.0.1", hosted.port, is_master=False, wait_for_workers=False)

    for rank in (1, 2, 7):
        hosted.set(f"hello/{rank}", f"lost-{rank}")
    sizes, late = [4, 2, 3, 3], [[], [1], [0], []]
    starts = [start(store, *each) for each in zip(sizes, late, strict=True)]

    assert [len(set(tokens)) for tokens in starts] == [1] * 4
    assert len({tokens[0] for tokens in starts}) == 4


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_does_not_wait_for_ever(rank):
    with pytest.raises(dist.DistStoreError):
        distributed.meet(dist.HashStore(), rank, 2, seconds=0.2)


def test_processes_that_do_not_meet_are_an_error(monkeypatch):
    variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": free_port()}  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "JOIN_SECONDS", 0.2)

    with (
        pytest.raises(DeviceError, match="2 processes of the training did not meet"),
        distributed.joined(torch.device("cpu")),
    ):
        pass


def exchange(rank, size, folder):
    """Take Muon steps as one of several processes, and store the weights."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": (folder / "port").read_text()}  # fmt: skip
    with distributed.joined(torch.device("cpu")) as world:
        weights = muon_steps(world)
    torch.save(weights, folder / f"{rank}.pt")


def muon_steps(world):
    torch.manual_seed(1)
    shapes = [(8, 24), (32, 32), (8, 24)]
    matrices = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    muon = Muon(matrices, lr=0.02, weight_decay=0.1, world=world)
    for _ in range(3):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape)  # alike in all processes
        muon.step()
    return [matrix.detach() for matrix in matrices]


@pytest.mark.parametrize("size", [2, 4])  # more processes than matrices, too
def test_processes_share_the_orthogonalization(tmp_path, size):
    (tmp_path / "port").write_text(free_port())

    torch.multiprocessing.spawn(exchange, (size, tmp_path), size)

    alone = muon_steps(World())
    first = torch.load(tmp_path / "0.pt")
    for rank in range(size):
        for one, other in zip(torch.load(tmp_path / f"{rank}.pt"), first, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)  # equal in all processes
    for one, other in zip(first, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_matrices_are_owned_evenly():
    shapes = [(8, 24)] * 4 + [(32, 32)] * 3
    muon = Muon(
        [nn.Parameter(torch.zeros(shape)) for shape in shapes], 0.02, 0.1, world=World(0, 2)
    )
    owners = [owner for found in muon._owners.values() for owner in found]

    assert len(owners) == 7
    assert muon._owners[torch.Size((32, 32))] == [0, 1, 0]
    assert muon._owners[torch.Size((8, 24))][0] == 1
