"""Optimizers: AdamW, or Muon for the hidden weights and AdamW for the rest."""

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from faceswap.config import MODEL_SEAM
from faceswap.models.devices import is_fast_in_bfloat16
from faceswap.training.distributed import ALONE, World


@dataclass(frozen=True, slots=True)
class Recipe:
    """Optimizer settings, schedule and loss for an architecture.

    Attributes:
        learning_rate: Peak learning rate of AdamW.
        betas: Betas of AdamW.
        weight_decay: Weight decay of both optimizers; at 0, AdamW equals Adam.
        loss: Name of the loss, a key of LOSSES or a plug-in.
        muon_rate: Peak learning rate of Muon for hidden weights; 0 uses AdamW for all weights.
        warm_up: Steps in which the learning rate rises from a tenth of its peak to its peak.
        decay_to: Share of the learning rate left at the end of a run of known length.
        warp_until: Share of a run of known length after which inputs are no longer warped.
        outside: Loss weight of pixels outside the face mask; pixels inside have weight 1.
        jitter: Standard deviation of the natural log of a face's random colour gain.
        average: Decay of the moving average (EMA) of the weights that previews and conversion use;
            0 disables it.
        refine: Steps of each refiner for every step of the network; 0 trains no refiners.
        even: Whether rare poses and expressions are dealt more often, and b's faces are not
            mirrored if there are many.
    """

    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    loss: str
    muon_rate: float
    warm_up: int
    decay_to: float
    warp_until: float
    outside: float
    jitter: float
    average: float
    refine: float
    even: bool = True


DEFAULT_RECIPE = Recipe(
    1e-3, (0.9, 0.95), 0.1, "l1-dssim", muon_rate=0.02, warm_up=100, decay_to=0.05,
    warp_until=0.6, outside=0.25, jitter=0.0, average=0.999, refine=0.25,
)  # fmt: skip

RECIPES: dict[str, Recipe] = {
    "original": Recipe(  # as published: Adam, L1 loss, constant learning rate
        5e-5, (0.5, 0.999), 0.0, "l1", muon_rate=0.0, warm_up=0, decay_to=1.0, warp_until=1.0,
        outside=1.0, jitter=0.0, average=0.0, refine=0.0, even=False,
    ),
    "small": DEFAULT_RECIPE,
    "medium": replace(DEFAULT_RECIPE, loss="l1-dssim-scales"),
    "large": replace(DEFAULT_RECIPE, loss="l1-dssim-scales"),
}  # fmt: skip

# Names of the tensors that each optimizer keeps for a parameter once it has been updated.
STATE_KEYS = {"adamw": {"step", "exp_avg", "exp_avg_sq"}, "muon": {"momentum_buffer"}}

# Quintic Newton-Schulz iteration with the steps and coefficients of K. Jordan et al. 2024. It maps
# singular values from 0.0015 to 1 into 0.68..1.2; smaller ones end lower.
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
# From this ratio of the sides on, it is cheaper to iterate on the small matrix of inner products.
WIDE = 2.0


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a built-in architecture, or of a plug-in's network class.

    A plug-in without a ``recipe`` is trained with the default one.

    Raises:
        SettingsError: If no plug-in has this name, or its import fails.
    """
    if name in RECIPES:
        return RECIPES[name]
    recipe = getattr(MODEL_SEAM.load(name), "recipe", DEFAULT_RECIPE)
    assert isinstance(recipe, Recipe)
    return recipe


class Muon(torch.optim.Optimizer):
    """Muon for matrices (K. Jordan et al., "Muon: an optimizer for hidden layers", 2024).

    This is the algorithm of ``torch.optim.Muon``, except that matrices of the same shape, such as
    those of both decoders, are orthogonalized together, and that bfloat16 is only used on devices
    that multiply it in hardware. torch always uses bfloat16, which most processors emulate at a
    fiftieth of the speed of float32.

    Args:
        matrices: Parameters (O, I).
        lr: Learning rate. It scales an update whose singular values are near 1, or near the square
            root of O / I if that is larger.
        weight_decay: Decoupled weight decay.
        momentum: Coefficient of the Nesterov momentum.
        world: The processes that train together. Each orthogonalizes a share of the matrices.
    """

    def __init__(
        self, matrices: list[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95,
        world: World = ALONE,
    ) -> None:  # fmt: skip
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        fast = is_fast_in_bfloat16(matrices[0].device)
        self.compute_type = torch.bfloat16 if fast else torch.float32
        self._alike: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for matrix in matrices:
            self._alike[matrix.shape].append(matrix)
        self._world, self._owners = world, _owners(self._alike, world.size)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None, "Muon does not support closures"
        (group,) = self.param_groups
        directions = {}
        for shape, matrices in self._alike.items():
            gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
            buffers = [self._momentum(matrix) for matrix in matrices]
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
            directions[shape] = torch.stack(gradients).lerp_(
                torch.stack(buffers), group["momentum"]
            )
        for shape, updates in self._orthogonal(directions).items():
            rows, columns = shape
            weights: list[Tensor] = [*self._alike[shape]]
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            updates = updates * (-group["lr"] * max(1, rows / columns) ** 0.5)
            torch._foreach_add_(weights, updates.unbind())

    def _orthogonal(self, directions: dict[torch.Size, Tensor]) -> dict[torch.Size, Tensor]:
        """Orthogonalize matrices (N, O, I) by shape; each process does those that it owns."""
        rank, size = self._world.rank, self._world.size
        done = {}
        for shape, stack in directions.items():
            places = [at for at, owner in enumerate(self._owners[shape]) if owner == rank]
            if places:
                mine = stack if len(places) == len(stack) else stack[places]
                done[shape] = orthogonalize(mine, self.compute_type).to(stack.dtype)
        if size == 1:
            return done
        like = next(iter(directions.values()))
        flat = torch.cat([like.new_empty(0), *(one.reshape(-1) for one in done.values())])
        lengths = [
            sum(self._owners[shape].count(owner) * shape.numel() for shape in directions)
            for owner in range(size)
        ]
        for owner, found in enumerate(self._world.gather(flat, lengths)):
            for shape, stack in directions.items():
                places = [at for at, one in enumerate(self._owners[shape]) if one == owner]
                length = len(places) * shape.numel()
                stack[places] = found[:length].view(len(places), *shape)
                found = found[length:]
        return directions

    def _momentum(self, matrix: nn.Parameter) -> Tensor:
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _owners(
    alike: dict[torch.Size, list[nn.Parameter]], processes: int
) -> dict[torch.Size, list[int]]:
    """Return which process orthogonalizes each matrix, by shape, so that all have as much to do."""
    work = [0] * processes
    owners: dict[torch.Size, list[int]] = {shape: [] for shape in alike}
    for shape in sorted(alike, key=_products, reverse=True):
        for _ in alike[shape]:
            owner = work.index(min(work))
            work[owner] += _products(shape)
            owners[shape].append(owner)
    return owners


def _products(shape: torch.Size) -> int:
    """Return the number of products in which a Newton-Schulz step of a matrix takes part."""
    return shape.numel() * min(shape)


def orthogonalize(matrices: Tensor, compute_type: torch.dtype) -> Tensor:
    """Approximate the nearest semi-orthogonal matrices by five Newton-Schulz steps.

    Args:
        matrices: (N, O, I).
        compute_type: Type of the matrix products. Much wider or taller matrices than square ones
            are always multiplied in float32 on a CPU.

    Returns:
        (N, O, I), with the singular vectors of ``matrices``. Singular values of at least 0.0015 of
        the Frobenius norm end between 0.68 and 1.2.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    is_wide = x.shape[2] >= WIDE * x.shape[1]
    # Inner products square the singular values. Only float32 resolves those of the small ones,
    # and GPUs that multiply bfloat16 may round float32 products to TF32.
    by_products = is_wide and (compute_type == torch.float32 or x.device.type == "cpu")
    x = x if by_products else x.to(compute_type)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    x = _polynomial_of_products(x) @ x if by_products else _iterated(x)
    return x.mT if is_tall else x


def _iterated(x: Tensor) -> Tensor:
    """Take Newton-Schulz steps on matrices (N, O, I)."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _polynomial_of_products(x: Tensor) -> Tensor:
    """Return the matrices (N, O, O) by which Newton-Schulz steps multiply ``x`` (N, O, I).

    A step multiplies x by a polynomial p of its inner products G, so it turns G into p G p. All of
    them commute.
    """
    a, b, c = NEWTON_SCHULZ
    gram = x @ x.mT
    product: Tensor | None = None
    for last in [False] * (NEWTON_SCHULZ_STEPS - 1) + [True]:
        step = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        step.diagonal(dim1=1, dim2=2).add_(a)
        product = step if product is None else step @ product
        gram = gram if last else step @ (gram @ step)
    assert product is not None
    return product


class Optimizer:
    """AdamW, or AdamW and Muon, with one factor that scales all learning rates.

    If the recipe has a Muon rate, Muon (K. Jordan et al., "Muon: an optimizer for hidden layers in
    neural networks", 2024) updates the weights of the hidden layers with momentum orthogonalized
    over each layer's outputs and inputs. AdamW (I. Loshchilov and F. Hutter, ICLR 2019) updates the
    biases, the first layer and the last layer of each decoder.

    Args:
        network: Network with convolution weights in channels_last order.
        recipe: Learning rates and other settings.
        learning_rate: Peak learning rate of AdamW; Muon's peak scales in proportion.
        world: The processes that train together; all have the same gradients.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, learning_rate: float, world: World = ALONE
    ) -> None:
        hidden = _hidden_weights(network) if recipe.muon_rate else []
        taken = {id(weight) for weight in hidden}
        rest = [p for p in network.parameters() if id(p) not in taken]
        # Muon takes matrices, so give it an (outputs, inputs) view of each weight's memory.
        self._views = [(weight, nn.Parameter(_as_matrix(weight.data))) for weight in hidden]
        self._rest = rest
        kind = rest[0].device.type
        self._peaks = {"adamw": learning_rate}
        self._optimizers: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(
                rest, learning_rate, recipe.betas, weight_decay=recipe.weight_decay,
                fused=kind in ("cpu", "cuda"), capturable=kind == "cuda",
            )
        }  # fmt: skip
        if hidden:
            self._peaks["muon"] = recipe.muon_rate * learning_rate / recipe.learning_rate
            self._optimizers["muon"] = Muon(
                [view for _, view in self._views], self._peaks["muon"], recipe.weight_decay,
                world=world,
            )  # fmt: skip
        if kind == "cuda":  # tensors, so that a recorded step reads the rates of its replay
            for optimizer in self._optimizers.values():
                (group,) = optimizer.param_groups
                group["lr"] = torch.tensor(group["lr"], device=rest[0].device)

    @property
    def learning_rate(self) -> float:
        """Current learning rate of AdamW."""
        return float(self._optimizers["adamw"].param_groups[0]["lr"])

    def scale(self, factor: float) -> None:
        """Set every learning rate to its peak times ``factor``."""
        for name, optimizer in self._optimizers.items():
            (group,) = optimizer.param_groups
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(self._peaks[name] * factor)
            else:
                group["lr"] = self._peaks[name] * factor

    def zero_grad(self) -> None:
        for weight in (*self._rest, *(weight for weight, _ in self._views)):
            weight.grad = None

    def step(self, scaler: torch.amp.GradScaler) -> None:
        """Take a step.

        Args:
            scaler: Undoes the scaling of the loss. If a gradient of an optimizer is not finite,
                that optimizer does nothing. The caller updates the scale.
        """
        for weight, view in self._views:
            assert weight.grad is not None
            view.grad = _as_matrix(weight.grad.contiguous(memory_format=_format_of(weight)))
        for optimizer in self._optimizers.values():
            scaler.step(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the optimizers by name."""
        states = {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}
        for state in states.values():
            (group,) = state["param_groups"]
            group["lr"] = float(group["lr"])
        return states

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state from :meth:`state_dict`.

        Raises:
            KeyError, TypeError, ValueError: If the state belongs to another recipe or does not fit
                the network.
        """
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(_fitted(optimizer, state[name], STATE_KEYS[name]))


def _fitted(
    optimizer: torch.optim.Optimizer, state: dict[str, Any], keys: set[str]
) -> dict[str, Any]:
    """Check a saved state and copy it to the memory layout of the optimizer's parameters.

    The fused kernels of torch index a parameter and its moments by the same memory offset, without
    checking shapes or strides.

    Args:
        optimizer: The optimizer to load the state into.
        state: Result of ``optimizer.state_dict()``, with tensors in any memory layout.
        keys: Names of the tensors that the state must hold for each parameter in it.

    Raises:
        KeyError, TypeError, ValueError: If the state does not fit.
    """
    parameters = dict(enumerate(p for group in optimizer.param_groups for p in group["params"]))
    entries: dict[int, dict[str, Tensor]] = {}
    for index, saved in state["state"].items():
        if set(saved) != keys:
            raise ValueError(f"the state of a parameter must hold {', '.join(sorted(keys))}")
        entries[index] = {}
        for key, value in saved.items():
            like = torch.tensor(0.0) if key == "step" else parameters[index]
            if value.shape != like.shape:
                raise ValueError(f"{key} must have shape {tuple(like.shape)}")
            entries[index][key] = torch.empty_like(like).copy_(value)
    groups = zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True)
    return {"state": entries, "param_groups": [_with_numbers(*pair) for pair in groups]}


def _with_numbers(group: dict[str, Any], saved: dict[str, Any]) -> dict[str, Any]:
    """Replace the numbers of a parameter group, such as the learning rate, by the saved ones."""
    merged = dict(group)
    for key in group.keys() & saved.keys():
        if isinstance(group[key], float):
            merged[key] = float(saved[key])
        elif isinstance(group[key], tuple):  # betas
            merged[key] = tuple(float(value) for value in saved[key])
            if len(merged[key]) != len(group[key]):
                raise ValueError(f"{key} must be {len(group[key])} numbers")
    return merged


def _hidden_weights(network: nn.Module) -> list[nn.Parameter]:
    """Return the weights of all layers except those whose input or output is an image."""
    return [p for p in network.parameters() if p.ndim >= 2 and min(p.shape[:2]) > 4]


def _as_matrix(weight: Tensor) -> Tensor:
    """View a weight (O, I) or a channels_last weight (O, I, H, W) as a matrix (O, H W I)."""
    return weight if weight.ndim == 2 else weight.permute(0, 2, 3, 1).view(len(weight), -1)


def _format_of(weight: Tensor) -> torch.memory_format:
    return torch.channels_last if weight.ndim == 4 else torch.contiguous_format
