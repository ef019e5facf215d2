"""The optimizer: AdamW, or Muon for hidden weights with AdamW for the rest."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from faceswap.config import LossName, ModelName
from faceswap.models.devices import is_fast_in_bfloat16


@dataclass(frozen=True, slots=True)
class Recipe:
    """Optimizer settings, schedule and loss of an architecture.

    Attributes:
        learning_rate: At its peak.
        betas: Of AdamW.
        weight_decay: Of both optimizers; without it AdamW is Adam.
        loss: Key of LOSSES.
        muon_rate: Peak learning rate of Muon for hidden weights; 0: AdamW for all.
        warm_up: Steps from a tenth of the learning rate to all of it.
        decay_to: Share of the learning rate left at the end of a run whose end is known.
        warp_until: Share of such a run after which the input is no longer warped.
        outside: Weight of the pixels off the face's mask, those on it having 1.
        jitter: Standard deviation of the random change of a face's colours, natural logarithm.
        average: Decay of the mean of the weights that previews and conversion use; 0: no mean.
    """

    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    loss: LossName
    muon_rate: float
    warm_up: int
    decay_to: float
    warp_until: float
    outside: float
    jitter: float
    average: float


DEFAULT_RECIPE = Recipe(
    1e-3, (0.9, 0.95), 0.1, "l1-dssim", muon_rate=0.02, warm_up=100, decay_to=0.05,
    warp_until=0.6, outside=0.25, jitter=0.0, average=0.999,
)  # fmt: skip

RECIPES: dict[ModelName, Recipe] = {
    "original": Recipe(  # as published: Adam, L1, a constant rate
        5e-5, (0.5, 0.999), 0.0, "l1", muon_rate=0.0, warm_up=0, decay_to=1.0, warp_until=1.0,
        outside=1.0, jitter=0.0, average=0.0,
    ),
    "small": DEFAULT_RECIPE,
    "medium": DEFAULT_RECIPE,
    "large": DEFAULT_RECIPE,
}  # fmt: skip

# Quintic Newton-Schulz iteration: steps and coefficients of K. Jordan et al. 2024, which push every
# singular value to between 0.7 and 1.2.
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Muon for matrices (K. Jordan et al., "Muon: an optimizer for hidden layers", 2024).

    The same algorithm as ``torch.optim.Muon``, with one difference: the orthogonalization runs in
    bfloat16 only where the device multiplies it in hardware. torch always uses bfloat16, which most
    processors emulate at a fiftieth of the speed of float32.

    Args:
        matrices: Parameters (O, I).
        lr: Learning rate, for an update whose singular values are near one.
        weight_decay: Decoupled weight decay.
        momentum: Of the Nesterov momentum.
    """

    def __init__(
        self, matrices: list[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        fast = is_fast_in_bfloat16(matrices[0].device)
        self.compute_type = torch.bfloat16 if fast else torch.float32

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply the gradients."""
        assert closure is None, "the loss is not evaluated again"
        for group in self.param_groups:
            for matrix in group["params"]:
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                buffer = state["momentum_buffer"]
                buffer.lerp_(matrix.grad, 1 - group["momentum"])
                nesterov = matrix.grad.lerp(buffer, group["momentum"])
                update = orthogonalize(nesterov, self.compute_type)
                rows, columns = matrix.shape
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def orthogonalize(matrix: Tensor, compute_type: torch.dtype) -> Tensor:
    """Approximate the nearest semi-orthogonal matrix by five Newton-Schulz steps.

    Args:
        matrix: (O, I).
        compute_type: Of the products and of the result.

    Returns:
        (O, I), the singular vectors of ``matrix`` with singular values between about 0.7 and 1.2.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(compute_type)
    x = x.T if is_tall else x
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return x.T if is_tall else x


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
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(
                rest, learning_rate, recipe.betas, weight_decay=recipe.weight_decay, fused=fused
            )
        }
        if hidden:
            rate = recipe.muon_rate * learning_rate / recipe.learning_rate
            self._optimizers["muon"] = Muon(
                [view for _, view in self._views], rate, recipe.weight_decay
            )
        self._peaks = {
            name: optimizer.param_groups[0]["lr"] for name, optimizer in self._optimizers.items()
        }

    @property
    def learning_rate(self) -> float:
        """AdamW's present learning rate."""
        return float(self._optimizers["adamw"].param_groups[0]["lr"])

    def scale(self, factor: float) -> None:
        """Set every learning rate to its peak times ``factor``."""
        for name, optimizer in self._optimizers.items():
            optimizer.param_groups[0]["lr"] = self._peaks[name] * factor

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for weight in (*self._rest, *(weight for weight, _ in self._views)):
            weight.grad = None

    def step(self) -> None:
        """Apply the gradients."""
        for weight, view in self._views:
            assert weight.grad is not None
            view.grad = _as_matrix(weight.grad.contiguous(memory_format=_format_of(weight)))
        for optimizer in self._optimizers.values():
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """All that resuming needs."""
        return {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave.

        Raises:
            KeyError: If the state is another recipe's.
            ValueError: If it does not fit the network.
        """
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])


def _hidden_weights(network: nn.Module) -> list[nn.Parameter]:
    """Weights of all but the layers that read or paint pixels: three colours, perhaps a mask."""
    return [p for p in network.parameters() if p.ndim >= 2 and min(p.shape[:2]) > 4]


def _as_matrix(weight: Tensor) -> Tensor:
    """A weight (O, I) or (O, I, H, W) in channels_last order as (O, H W I), in the same memory."""
    return weight if weight.ndim == 2 else weight.permute(0, 2, 3, 1).view(len(weight), -1)


def _format_of(weight: Tensor) -> torch.memory_format:
    return torch.channels_last if weight.ndim == 4 else torch.contiguous_format
