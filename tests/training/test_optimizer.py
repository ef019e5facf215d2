import copy
import os
import subprocess
import sys

import pytest
import torch

from faceswap.models import autoencoder
from faceswap.models.architectures import PRESETS
from faceswap.training.optimizer import RECIPES, Muon, Optimizer, orthogonalize


@pytest.fixture
def network():
    torch.manual_seed(0)
    return autoencoder.build(PRESETS["small"]).to(memory_format=torch.channels_last)


def backward(network):
    images = torch.rand(2, 3, 80, 80, generator=torch.Generator().manual_seed(1))
    decoded = network(images, "a")
    ((decoded[:, :3] - images).abs().mean() + network(images, "b").mean()).backward()


def effective_rank(weight):
    """Effective rank of a matrix: the sum of its singular values over the largest."""
    singular = torch.linalg.svdvals(weight.flatten(1))
    return singular.sum() / singular.max()


def test_without_muon_the_optimizer_equals_adamw(network):
    other = copy.deepcopy(network)
    recipe = RECIPES["original"]
    ours = Optimizer(network, recipe, recipe.learning_rate)
    plain = torch.optim.AdamW(other.parameters(), recipe.learning_rate, recipe.betas,
                              weight_decay=recipe.weight_decay, fused=True)  # fmt: skip

    for _ in range(3):
        for net, optimizer in ((network, ours), (other, plain)):
            optimizer.zero_grad()
            backward(net)
            optimizer.step()

    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_muon_updates_hidden_weights_in_many_directions(network):
    recipe = RECIPES["small"]
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = Optimizer(network, recipe, recipe.learning_rate)

    optimizer.zero_grad()
    backward(network)
    optimizer.step()

    moved = {name: p.detach() - before[name] for name, p in network.named_parameters()}
    assert all(change.abs().max() > 0 for change in moved.values())
    gradients = {name: p.grad for name, p in network.named_parameters()}
    for name in ("down.1.conv.weight", "decoders.a.0.conv.weight"):
        assert effective_rank(moved[name]) > 2 * effective_rank(gradients[name])
    assert moved["down.0.conv.weight"].abs().max() <= recipe.learning_rate * 1.1  # stepped by AdamW


def test_scale_applies_one_factor_to_all_learning_rates(network):
    recipe = RECIPES["small"]
    optimizer = Optimizer(network, recipe, 2 * recipe.learning_rate)

    optimizer.scale(0.25)

    rates = {
        name: optimizer.param_groups[0]["lr"] for name, optimizer in optimizer._optimizers.items()
    }
    assert rates == pytest.approx({"adamw": recipe.learning_rate / 2, "muon": recipe.muon_rate / 2})
    assert optimizer.learning_rate == pytest.approx(recipe.learning_rate / 2)


def run_steps(optimizer, matrices, steps=3):
    random = torch.Generator().manual_seed(3)
    for _ in range(steps):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=random)
        optimizer.step()
    return [matrix.detach().clone() for matrix in matrices]


def network_like_matrices():
    random = torch.Generator().manual_seed(2)
    shapes = [(32, 400), (256, 64), (48, 48)]
    return [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]


def test_muon_in_bfloat16_equals_torch_muon():
    ours, theirs = network_like_matrices(), network_like_matrices()
    optimizer = Muon(ours, 0.02, 0.1)
    optimizer.compute_type = torch.bfloat16

    found = run_steps(optimizer, ours)
    expected = run_steps(torch.optim.Muon(theirs, 0.02, 0.1, momentum=0.95), theirs)

    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


def test_orthogonalization_in_float32_equals_bfloat16_within_rounding():
    matrix = torch.randn(64, 300, generator=torch.Generator().manual_seed(4))

    exact = orthogonalize(matrix, torch.float32)
    rounded = orthogonalize(matrix, torch.bfloat16).float()

    assert torch.nn.functional.cosine_similarity(exact.ravel(), rounded.ravel(), dim=0) > 0.999
    for found in (exact, orthogonalize(matrix.T, torch.float32)):
        singular = torch.linalg.svdvals(found)
        assert singular.min() > 0.6
        assert singular.max() < 1.25


def test_muon_resumes_from_a_torch_muon_checkpoint():
    ours, theirs = network_like_matrices(), network_like_matrices()
    before = torch.optim.Muon(theirs, 0.02, 0.1, momentum=0.95)
    for matrix, start in zip(ours, run_steps(before, theirs), strict=True):
        matrix.data.copy_(start)
    optimizer = Muon(ours, 0.01, 0.1)
    optimizer.compute_type = torch.bfloat16

    optimizer.load_state_dict(copy.deepcopy(before.state_dict()))

    found, expected = run_steps(optimizer, ours), run_steps(before, theirs)
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


def test_bfloat16_is_not_fast_when_onednn_emulates_it():
    code = (
        "import torch; from faceswap.models.devices import is_fast_in_bfloat16\n"
        "print(is_fast_in_bfloat16(torch.device('cpu')))"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}

    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True,
                          capture_output=True, check=True)  # fmt: skip

    assert done.stdout == "False\n"
