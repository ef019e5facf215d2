import copy
import os
import subprocess
import sys

import pytest
import torch

from faceswap.models import autoencoder
from faceswap.models.architectures import PRESETS
from faceswap.training.optimizer import RECIPES, Muon, Optimizer, orthogonalize

UNSCALED = torch.amp.GradScaler("cpu", enabled=False)


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
            optimizer.step(*([UNSCALED] if optimizer is ours else []))

    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_muon_updates_hidden_weights_in_many_directions(network):
    recipe = RECIPES["small"]
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer = Optimizer(network, recipe, recipe.learning_rate)

    optimizer.zero_grad()
    backward(network)
    optimizer.step(UNSCALED)

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


def matrices_of(shapes, seed=2):
    random = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]


SHAPES = [(32, 400), (256, 64), (48, 48), (48, 48), (256, 64), (64, 96)]


def newton_schulz(matrix):
    """The published iteration, in float64."""
    x = matrix.double()
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def test_muon_equals_its_definition():
    ours, theirs = matrices_of(SHAPES), matrices_of(SHAPES)
    optimizer = Muon(ours, 0.02, 0.1)
    optimizer.compute_type = torch.float32
    random = torch.Generator().manual_seed(3)
    momenta = [torch.zeros(matrix.shape, dtype=torch.float64) for matrix in theirs]

    for _ in range(3):
        for matrix, other, momentum in zip(ours, theirs, momenta, strict=True):
            matrix.grad = torch.randn(matrix.shape, generator=random)
            momentum.mul_(0.95).add_(0.05 * matrix.grad.double())
            update = newton_schulz(0.05 * matrix.grad.double() + 0.95 * momentum)
            rate = 0.02 * max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
            other.data = ((1 - 0.02 * 0.1) * other.double() - rate * update).float()
        optimizer.step()

    for one, two in zip(ours, theirs, strict=True):
        assert torch.allclose(one, two, atol=2e-5)


def test_muon_resumes_from_a_torch_muon_checkpoint_in_nearly_the_same_direction():
    ours, theirs = matrices_of(SHAPES), matrices_of(SHAPES)
    before = torch.optim.Muon(theirs, 0.02, 0.1, momentum=0.95)
    for matrix, start in zip(ours, run_steps(before, theirs), strict=True):
        matrix.data.copy_(start)
    optimizer = Muon(ours, 0.02, 0.1)
    optimizer.load_state_dict(copy.deepcopy(before.state_dict()))
    start = [matrix.detach().clone() for matrix in ours]

    found, expected = run_steps(optimizer, ours, 1), run_steps(before, theirs, 1)

    for one, two, origin in zip(found, expected, start, strict=True):
        moved = torch.nn.functional.cosine_similarity(
            (one - origin).ravel(), (two - origin).ravel(), dim=0
        )
        assert moved > 0.999  # torch computes in bfloat16


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 300), (300, 64), (64, 100)])
def test_orthogonalization_brings_singular_values_near_one(kind, shape):
    matrices = torch.randn(2, *shape, generator=torch.Generator().manual_seed(4))

    found = orthogonalize(matrices, kind).float()

    for one, matrix in zip(found, matrices, strict=True):
        exact = newton_schulz(matrix).float()
        cosine = torch.nn.functional.cosine_similarity(one.ravel(), exact.ravel(), dim=0)
        assert cosine > 0.999
        singular = torch.linalg.svdvals(one)
        assert singular.min() > 0.6
        assert singular.max() < 1.25


def test_nearly_equal_rows_do_not_break_the_products():
    """Inner products of such rows have eigenvalues that rounding makes negative."""
    random = torch.Generator().manual_seed(5)
    matrix = torch.randn(1, 1000, generator=random) + 1e-4 * torch.randn(64, 1000, generator=random)

    found = orthogonalize(matrix[None], torch.float32)

    assert found.isfinite().all()
    assert torch.linalg.svdvals(found[0]).max() < 1.25


def test_bfloat16_is_not_fast_when_onednn_emulates_it():
    code = (
        "import torch; from faceswap.models.devices import is_fast_in_bfloat16\n"
        "print(is_fast_in_bfloat16(torch.device('cpu')))"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}

    done = subprocess.run([sys.executable, "-c", code], env=environment, text=True,
                          capture_output=True, check=True)  # fmt: skip

    assert done.stdout == "False\n"
