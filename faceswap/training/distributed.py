"""Train one model in several processes: ``torchrun --nproc-per-node 2 -m faceswap train ...``.

Every process draws the random numbers of the whole batch and computes its own shard, so the number
of processes changes the result only by rounding errors. Rank 0 makes decisions, writes files and
reports. The processes also share the work of the optimizer that grows with the network alone.

With ``torchrun --max-restarts``, the processes start again if one is lost, perhaps fewer or more of
them, and go on from the last saved state.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from faceswap.errors import DeviceError, SettingsError
from faceswap.files import reason

JOIN_SECONDS = 300.0  # for all processes of a start to load the packages and meet
POLL_SECONDS = 0.05
# The others wait while rank 0 refines and measures, for hours after a run of days. They notice at
# once if it is lost.
ALONE_HOURS = 24


@dataclass(frozen=True, slots=True)
class World:
    """The rank of this process and the number of processes that train together."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which makes decisions, writes files and reports."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """Return the slice of this process in a batch of at least ``size`` items."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def weight(self, count: int) -> float:
        """Return the factor by which this process multiplies the mean loss of its shard.

        The mean of the results over all processes is then the mean loss of the whole batch, also if
        the shards differ in length.
        """
        mine = len(range(count)[self.shard(count)])
        return mine * self.size / count

    def gather(self, mine: Tensor, lengths: list[int]) -> list[Tensor]:
        """Return the tensors of all processes, each of one dimension.

        Args:
            mine: The tensor of this process.
            lengths: The length of each process's tensor.
        """
        if self.size == 1:
            return [mine]
        padded = mine.new_zeros(max(lengths))
        padded[: len(mine)] = mine
        gathered = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(gathered, padded)
        return [one[:length] for one, length in zip(gathered, lengths, strict=True)]

    def agree(self, values: list[float], flag: bool) -> tuple[list[float], bool]:
        """Return the finite numbers of rank 0, and whether the flag of any process is set."""
        if self.size == 1:
            return values, flag
        mine = values if self.first else [0.0] * len(values)
        tensor = torch.tensor([*mine, flag], dtype=torch.float64)
        dist.all_reduce(tensor)
        *agreed, flags = tensor.tolist()
        return agreed, flags > 0

    def share(self, value: Any) -> Any:
        """Broadcast an object from rank 0 by pickle, which is safe between processes of one run."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0)
        return values[0]

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes, on the CPU."""
        tensor = tensor.cpu()
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor / self.size

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """Wrap a module so that backward averages its gradients over all processes."""
        if self.size == 1:
            return module
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)


ALONE = World()


def is_rank_zero() -> bool:
    """Return whether this is rank 0; works before the process group is initialized."""
    return os.environ.get("RANK", "0") == "0"


def is_elastic() -> bool:
    """Return whether ``torchrun`` starts the processes again if one is lost."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def has_discarded() -> bool:
    """Return whether :func:`note_discard` was called on this machine in this job of ``torchrun``.

    Raises:
        SettingsError: If the job cannot keep a note because ``torchrun`` writes no logs.
    """
    note = _discard_note()
    return note is not None and note.exists()


def note_discard() -> None:
    """Record that this job has discarded the old model, so that a restart keeps the new one.

    Raises:
        SettingsError: See :func:`has_discarded`.
    """
    note = _discard_note()
    if note:
        note.touch()


def _discard_note() -> Path | None:
    """Return a path in the folder that the machine's agent makes for the job's logs and leaves.

    A store cannot keep the note, because each machine that becomes the first hosts an empty one.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    errors = os.environ.get("TORCHELASTIC_ERROR_FILE")  # <job>/attempt_<number>/<rank>/error.json
    if not errors:
        raise SettingsError(
            "--restart under torchrun needs a log folder, so that it discards the model only "
            "once: leave out --log-dir, or name a folder"
        )
    return Path(errors).parents[2] / "discarded"


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the process group of ``torchrun``; without it, yield a world of one process.

    Raises:
        DeviceError: If the processes do not meet in time.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    # Decisions travel over Gloo as CPU tensors, so they never wait for the GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # The store of torchrun outlives the processes, and with it the addresses of lost ones.
    try:
        timeout = timedelta(seconds=JOIN_SECONDS)
        store, rank, size = next(iter(rendezvous("env://", timeout=timeout)))
        store = PrefixStore(meet(store, rank, size, JOIN_SECONDS), store)
    except dist.DistError as error:
        raise DeviceError(
            f"the {size} processes of the training did not meet ({reason(error)}): check that "
            "all machines run and reach each other"
        ) from error
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=timedelta(hours=ALONE_HOURS)
    )
    try:
        yield World(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def meet(store: Store, rank: int, size: int, seconds: float) -> str:
    """Return a token that the processes of this start share, and no other start.

    The restart count of ``torchrun`` would not do: each machine has its own, and it does not rise
    when a machine joins. Instead rank 0 answers every greeting in the store until all ranks of this
    start have acknowledged its token. Nobody waits for the answer to a greeting of a lost process.

    Args:
        store: A store that may hold the keys of earlier starts.
        rank: The rank of this process.
        size: The number of processes in this start.
        seconds: How long to wait for the others.

    Raises:
        DistStoreError: If the processes do not meet in time.
    """
    mine = uuid.uuid4().hex
    if rank > 0:
        store.set(f"hello/{rank}", mine)
        store.wait([f"welcome/{mine}"], timedelta(seconds=seconds))
        token: str = store.get(f"welcome/{mine}").decode()
        store.set(f"ack/{token}/{rank}", "")
        return token
    deadline, missing = time.monotonic() + seconds, list(range(1, size))
    while missing:
        if time.monotonic() > deadline:
            raise dist.DistStoreError(f"waited {seconds:g} s for the ranks {missing}")
        for other in missing:
            if store.check([f"hello/{other}"]):
                store.set(f"welcome/{store.get(f'hello/{other}').decode()}", mine)
        time.sleep(POLL_SECONDS)
        missing = [other for other in missing if not store.check([f"ack/{mine}/{other}"])]
    return mine


def local_device(device: torch.device) -> torch.device:
    """Replace ``cuda`` by this process's own GPU, as several processes may share a machine."""
    if device.type == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
