"""Train one model in several processes: ``torchrun --nproc-per-node 2 -m faceswap train ...``.

Every process draws the random numbers of the whole batch and computes its own shard, so the number
of processes changes the result only by rounding errors. Rank 0 makes decisions, writes files and
reports.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


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
        """Return the slice of this process in a batch; ``count`` is a multiple of ``size``."""
        share = count // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def agree(self, values: list[float]) -> list[float]:
        """Broadcast the numbers of rank 0 to all processes."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(tensor, 0)
        agreed: list[float] = tensor.tolist()
        return agreed

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


def is_rank_zero() -> bool:
    """Return whether this is rank 0; works before the process group is initialized."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the process group of ``torchrun``; without it, yield a world of one process."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    # Gloo broadcasts rank 0's decisions as CPU tensors, so that they never wait for the GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend)
    try:
        yield World(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """Replace ``cuda`` by this process's own GPU, as several processes may share a machine."""
    if device.type == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
