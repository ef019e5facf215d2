"""Check on tensors without data that a training step does not wait for a GPU."""

import threading
from pathlib import Path

import pytest
import torch

from faceswap.config import TrainConfig
from faceswap.models import autoencoder
from faceswap.models.architectures import PRESETS
from faceswap.training import trainer
from faceswap.training.checkpoint import TrainingState
from faceswap.training.data import TrainingFaces
from faceswap.training.distributed import World
from faceswap.training.optimizer import Optimizer, recipe_of
from tests.support.waits import Waits, in_channels_last, pretended_gpu, without_backward


def loop_of(name):
    device, preset, recipe = torch.device("cuda"), PRESETS[name], recipe_of(name)
    with device:
        network, average = autoencoder.build(preset), autoencoder.build(preset)
    in_channels_last(network)
    in_channels_last(average)
    optimizer = Optimizer(network, recipe, recipe.learning_rate)
    run = TrainingState(network, optimizer, torch.Generator(), ("a", "b"), (0.1, 0.0, -0.1))
    run.average = average
    seen = {key: torch.zeros(30, 4, preset.crop_size, preset.crop_size, dtype=torch.uint8,
                             device=device) for key in ("a", "b")}  # fmt: skip
    config = TrainConfig(batch_size=4, precision="float32")
    faces = TrainingFaces(seen, {}, {})
    return trainer.Loop(run, faces, Path(), config, World(), None, threading.Event())


@pytest.mark.parametrize("name", ["small", "medium"])
def test_a_training_step_never_waits_for_the_gpu(name):
    with pretended_gpu():
        loop = loop_of(name)
        with without_backward(loop._run.network):
            loop._step(warp=True)  # uploads constants that later steps reuse
            with Waits() as waits:
                losses = loop._step(warp=True)

    assert losses.device.type == "cuda"
    assert waits.operations > 100
    assert waits.found == {}


def test_reads_and_plain_copies_are_found():
    with pretended_gpu():
        numbers = torch.zeros(3)
        with Waits() as waits:
            on_gpu = numbers.to("cuda")
            numbers.pin_memory().to("cuda", non_blocking=True)
            on_gpu.cpu()

    assert waits.found == {"_to_copy between cpu and cuda": 2}
