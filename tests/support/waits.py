"""Count the operations of a GPU program that make the CPU wait for the GPU, without a GPU."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from faceswap.training import data

# torch has no such function for tensors without data. The operation only writes in place.
ATEN = torch.library.Library("aten", "IMPL", "Meta")  # type: ignore[no-untyped-call]
ATEN.impl("_fused_adamw_.tensor_lr", lambda *_, **__: None)  # type: ignore[no-untyped-call]

# Operations whose result the CPU reads.
READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero")


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records operations that wait: reads of results, and copies that are not asynchronous."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[str] = Counter()
        self.operations = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # types and kwargs are part of torch's interface
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        name = operation.overloadpacket.__name__
        tensors = [value for value in (*args, result) if isinstance(value, torch.Tensor)]
        kinds = {tensor.device.type for tensor in tensors}
        self.operations += "cuda" in kinds
        if "cuda" in kinds and name in READS:
            self.found[name] += 1
        asynchronous = kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))
        if name in ("_to_copy", "copy_") and kinds == {"cpu", "cuda"} and not asynchronous:
            self.found[f"{name} between cpu and cuda"] += 1
        return result


def in_channels_last(network: nn.Module) -> None:
    """Do what ``network.to(memory_format=torch.channels_last)`` cannot do without data."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight.detach().contiguous(memory_format=torch.channels_last)
            module.weight = nn.Parameter(weight)


@contextmanager
def without_backward(network: nn.Module) -> Iterator[None]:
    """Replace the backward pass, for which torch wants a real GPU, by gradients of zero."""

    def backward(loss: torch.Tensor) -> None:
        for weight in network.parameters():
            weight.grad = torch.zeros_like(weight)

    with mock.patch.object(torch.Tensor, "backward", backward):
        yield


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Give new tensors a shape and a device, such as ``cuda``, but no data.

    The order of the faces cannot be drawn without data. It is drawn on the CPU alone, so any order
    will do.
    """

    def any_faces(run: object, key: str, deck: torch.Tensor, size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.int64)

    with (
        mock.patch.object(data, "next_indices", any_faces),
        FakeTensorMode(allow_non_fake_inputs=True),
        mock.patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor),
    ):
        yield
