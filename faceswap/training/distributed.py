"""Several processes train one model: ``torchrun --nproc-per-node 2 -m faceswap train ...``.

Every process draws the same random numbers for the whole batch and computes its own part of it, so
that two processes take the steps that one would. The first process decides, writes and speaks.
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
    """The processes that train together: this one's number and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process decides, writes and speaks."""
        return self.rank == 0

    def shard(self, count: int) -> slice:
        """This process's part of ``count`` things that all processes know; a multiple of size."""
        share = count // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def agree(self, values: list[float]) -> list[float]:
        """The first process's numbers."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(tensor, 0)
        agreed: list[float] = tensor.tolist()
        return agreed

    def share(self, thing: Any) -> Any:
        """The first process's object; it travels between processes of one run only."""
        if self.size == 1:
            return thing
        box = [thing]
        dist.broadcast_object_list(box, 0)
        return box[0]

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes of a tensor, on the CPU."""
        tensor = tensor.cpu()
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor / self.size

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """A module whose gradients are averaged over all processes as they are made."""
        if self.size == 1:
            return module
        devices = [device] if device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=devices, broadcast_buffers=False)


def is_rank_zero() -> bool:
    """Whether this process is the first, or the only one; known before the others are met."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: torch.device) -> Iterator[World]:
    """Join the processes that ``torchrun`` started; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    # Decisions travel as CPU tensors, so that they never wait for the GPU.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend)
    try:
        yield World(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The GPU that belongs to this process, where several share a machine."""
    if device.type == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
