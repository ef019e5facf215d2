import copy

import pytest
import torch

from faceswap import model as models
from faceswap.config import PRESETS, RECIPES
from faceswap.optimizers import Optimizer


@pytest.fixture
def network():
    torch.manual_seed(0)
    return models.build(PRESETS["small"]).to(memory_format=torch.channels_last)


def backward(network):
    images = torch.rand(2, 3, 80, 80, generator=torch.Generator().manual_seed(1))
    painted = network(images, "a")
    ((painted[:, :3] - images).abs().mean() + network(images, "b").mean()).backward()


def breadth(weight):
    """How many directions a matrix moves, counted by their share of the largest."""
    singular = torch.linalg.svdvals(weight.flatten(1))
    return singular.sum() / singular.max()


def test_without_muon_it_is_adamw(network):
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


def test_muon_moves_every_hidden_direction_alike(network):
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
        assert breadth(moved[name]) > 2 * breadth(gradients[name])
    assert moved["down.0.conv.weight"].abs().max() <= recipe.learning_rate * 1.1  # AdamW's


def test_all_rates_follow_one_factor(network):
    recipe = RECIPES["small"]
    optimizer = Optimizer(network, recipe, 2 * recipe.learning_rate)

    optimizer.scale(0.25)

    rates = {name: part.param_groups[0]["lr"] for name, part in optimizer._parts.items()}
    assert rates == pytest.approx({"adamw": recipe.learning_rate / 2, "muon": recipe.muon_rate / 2})
    assert optimizer.learning_rate == pytest.approx(recipe.learning_rate / 2)
