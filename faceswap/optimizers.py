"""The optimizer: AdamW, or Muon for hidden weights with AdamW for the rest."""

from typing import Any

import torch
from torch import Tensor, nn

from faceswap.config import Recipe


class Optimizer:
    """Steps a network; every group's learning rate is its peak times one common factor.

    With a Muon rate in the recipe, the weights of hidden layers are stepped by Muon (K. Jordan et
    al., "Muon: an optimizer for hidden layers in neural networks", 2024): momentum, made orthogonal
    over a layer's outputs and inputs. Biases, the first layer and the decoders' last are left to
    AdamW (I. Loshchilov and F. Hutter, ICLR 2019).

    Args:
        network: Its convolutions' weights in channels_last order.
        recipe: Learning rates and settings.
        learning_rate: AdamW's peak; Muon's moves in proportion.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, learning_rate: float) -> None:
        hidden = _hidden_weights(network) if recipe.muon_rate else []
        taken = {id(weight) for weight in hidden}
        rest = [p for p in network.parameters() if id(p) not in taken]
        # Muon takes matrices: each is a view of its weight, (outputs, inputs), in the same memory.
        self._views = [(weight, nn.Parameter(_as_matrix(weight.data))) for weight in hidden]
        self._rest = rest
        fused = rest[0].device.type in ("cpu", "cuda")
        self._parts: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(
                rest, learning_rate, recipe.betas, weight_decay=recipe.weight_decay, fused=fused
            )
        }
        if hidden:
            rate = recipe.muon_rate * learning_rate / recipe.learning_rate
            self._parts["muon"] = torch.optim.Muon(
                [view for _, view in self._views], rate, recipe.weight_decay, momentum=0.95
            )
        self._peaks = {name: part.param_groups[0]["lr"] for name, part in self._parts.items()}

    @property
    def learning_rate(self) -> float:
        """AdamW's present learning rate."""
        return float(self._parts["adamw"].param_groups[0]["lr"])

    def scale(self, factor: float) -> None:
        """Set every learning rate to its peak times ``factor``."""
        for name, part in self._parts.items():
            part.param_groups[0]["lr"] = self._peaks[name] * factor

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for weight in (*self._rest, *(weight for weight, _ in self._views)):
            weight.grad = None

    def step(self) -> None:
        """Apply the gradients."""
        for weight, view in self._views:
            assert weight.grad is not None
            view.grad = _as_matrix(weight.grad.contiguous(memory_format=_format_of(weight)))
        for part in self._parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            KeyError: If the state is another recipe's.
            ValueError: If it does not fit the network.
        """
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def _hidden_weights(network: nn.Module) -> list[nn.Parameter]:
    """Weights of all but the layers that read or paint pixels: three colours, perhaps a mask."""
    return [p for p in network.parameters() if p.ndim >= 2 and min(p.shape[:2]) > 4]


def _as_matrix(weight: Tensor) -> Tensor:
    """A weight (O, I) or (O, I, H, W) in channels_last order as (O, H W I), in the same memory."""
    return weight if weight.ndim == 2 else weight.permute(0, 2, 3, 1).view(len(weight), -1)


def _format_of(weight: Tensor) -> torch.memory_format:
    return torch.channels_last if weight.ndim == 4 else torch.contiguous_format
