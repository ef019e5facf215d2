"""Further people who train the shared encoder: what it learns from their faces helps with a's.

Each of them has a decoder, which the model does not keep, and an optimizer, which starts from
scratch when training is resumed. They take turns, one in each step.
"""

import copy
from dataclasses import dataclass

from torch import Tensor, nn

from faceswap.models.autoencoder import Autoencoder
from faceswap.training.optimizer import Optimizer, Recipe


@dataclass(frozen=True, slots=True)
class Companion:
    """A further person.

    Attributes:
        name: Unique among the companions.
        decoder: Decodes this person's faces.
        optimizer: Updates the decoder.
    """

    name: str
    decoder: nn.Module
    optimizer: Optimizer


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A batch of a companion.

    Attributes:
        companion: The person.
        warped: Inputs, (B, 3, size, size).
        target: Targets, (B, 3 or 4, size, size).
    """

    companion: Companion
    warped: Tensor
    target: Tensor


def companions(
    names: list[str], network: Autoencoder, recipe: Recipe, learning_rate: float
) -> list[Companion]:
    """Give people decoders like that of b.

    Args:
        names: Their names.
        network: The network whose encoder they share.
        recipe: The recipe of the network.
        learning_rate: Its peak learning rate.
    """
    decoders = [copy.deepcopy(network.decoders["b"]) for _ in names]
    return [
        Companion(name, decoder, Optimizer(decoder, recipe, learning_rate))
        for name, decoder in zip(names, decoders, strict=True)
    ]


def weights_of(people: list[Companion]) -> dict[str, Tensor]:
    """Return the weights of the decoders, named such as "name/0.conv.weight"."""
    return {
        f"{person.name}/{key}": tensor
        for person in people
        for key, tensor in person.decoder.state_dict().items()
    }
