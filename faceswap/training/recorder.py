"""Record the GPU work of a training step once, and replay it on other random numbers.

A step launches a thousand small kernels, and on a fast GPU the CPU needs longer to launch them than
the GPU to run them. A CUDA graph launches them all at once.
"""

from collections.abc import Callable
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

WARM_UP = 3  # steps before the recording, in which cuDNN and cuBLAS choose their kernels


class Drawn(Protocol):
    """Random numbers of a step, as tensors."""

    def tensors(self) -> list[Tensor]:
        """Return the tensors, in an order that :meth:`of` takes."""
        ...

    @classmethod
    def of(cls, tensors: list[Tensor]) -> Self:
        """Take the tensors."""
        ...


D = TypeVar("D", bound=Drawn)


class StepRecorder(Generic[D]):
    """Takes the first steps one kernel at a time, then records one and replays it from then on."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Drop the recording, because tensors that it uses were replaced."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._losses = torch.empty(0)
        self._steps = 0

    def __call__(self, step: Callable[[list[D]], Tensor], draws: list[D]) -> Tensor:
        """Take a step.

        Args:
            step: Takes it with random numbers on the GPU and returns the losses. It may use only
                tensors that stay where they are, and it must not wait for the GPU.
            draws: The random numbers, of the same shapes as before.

        Returns:
            The losses.
        """
        self._steps += 1
        if self._steps <= WARM_UP:
            return step(draws)
        inputs = [tensor for draw in draws for tensor in draw.tensors()]
        if self._graph is None:
            self._record(step, draws)
        else:
            torch._foreach_copy_(self._inputs, inputs)
        assert self._graph is not None
        self._graph.replay()
        return self._losses.clone()

    def _record(self, step: Callable[[list[D]], Tensor], draws: list[D]) -> None:
        kept = [draw.of([tensor.clone() for tensor in draw.tensors()]) for draw in draws]
        self._inputs = [tensor for draw in kept for tensor in draw.tensors()]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._losses = step(kept)
        self._graph = graph
