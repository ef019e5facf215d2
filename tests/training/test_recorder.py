"""Check the recorder of steps with a graph that does on the CPU what a CUDA graph does."""

from contextlib import contextmanager
from unittest import mock

import pytest
import torch

from faceswap.training.data import Draw
from faceswap.training.recorder import WARM_UP, StepRecorder


class Steps:
    """A step that sums its random numbers, and a graph that repeats the recorded one."""

    def __init__(self):
        self.seen, self.recorded, self.recordings, self.recording = [], None, 0, False

    def step(self, draws):
        if self.recording:
            self.recorded, self.result = draws, torch.full((2,), torch.nan)
            return self.result  # a recording computes nothing
        self.seen.append(draws)
        return self.value(draws)

    def value(self, draws):
        return torch.stack([draw.places.sum() + draw.indices.sum() for draw in draws])

    def replay(self):
        self.result.copy_(self.value(self.recorded))

    @contextmanager
    def record(self, graph):
        self.recordings, self.recording = self.recordings + 1, True
        yield
        self.recording = False


@pytest.fixture
def steps():
    steps = Steps()
    with (
        mock.patch.object(torch.cuda, "CUDAGraph", return_value=steps),
        mock.patch.object(torch.cuda, "graph", steps.record),
    ):
        yield steps


def draws(number):
    return [Draw(torch.tensor([number]), torch.full((1, 56), float(which)), None)
            for which in (0, 1)]  # fmt: skip


def test_recorded_steps_use_the_random_numbers_of_their_own_turn(steps):
    recorder = StepRecorder[Draw]()

    losses = [recorder(steps.step, draws(number)) for number in range(WARM_UP + 5)]

    assert len(steps.seen) == WARM_UP
    assert steps.recordings == 1
    assert [loss.tolist() for loss in losses] == [[n, 56 + n] for n in range(WARM_UP + 5)]


def test_a_forgotten_recording_is_made_again(steps):
    recorder = StepRecorder[Draw]()
    for number in range(WARM_UP + 1):
        recorder(steps.step, draws(number))

    recorder.forget()
    losses = [recorder(steps.step, draws(number)) for number in range(WARM_UP + 1)]

    assert steps.recordings == 2
    assert losses[-1].tolist() == [WARM_UP, 56 + WARM_UP]
