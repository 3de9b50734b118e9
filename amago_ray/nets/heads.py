"""Heads on the sequence model's state: the policy head and the ensembles of critics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amago_ray.config.model import HeadConfig
from amago_ray.nets.mlp import Mlp, activate

if TYPE_CHECKING:
    from jaxtyping import Float

_MAX_ACTION = 0.999


class PolicyHead(nn.Module):
    """From states to the raw parameters of one action distribution per discount: `[R, D] -> [R, G, P]`."""

    def __init__(self, state_dim: int, config: HeadConfig, num_discounts: int, num_params: int) -> None:
        super().__init__()
        self.num_discounts = num_discounts
        self.num_params = num_params
        self.mlp = Mlp(state_dim, config.hidden_dim, config.num_layers, num_discounts * num_params)

    def forward(self, state: Float[Tensor, "*R D"]) -> Float[Tensor, "*R G P"]:
        """Parameters `[R, G, P]` of states `[R, D]`."""
        params: Tensor = self.mlp(state)
        return params.view(*state.shape[:-1], self.num_discounts, self.num_params)


class EnsembleLinear(nn.Module):
    """C linear layers side by side: `weight [C, in, out]`, `bias [C, 1, out]`."""

    def __init__(self, num_members: int, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_members, input_dim, output_dim))
        self.bias = nn.Parameter(torch.empty(num_members, 1, output_dim))
        nn.init.uniform_(self.weight, -math.sqrt(3.0 / input_dim), math.sqrt(3.0 / input_dim))
        nn.init.uniform_(self.bias, -1.0 / math.sqrt(input_dim), 1.0 / math.sqrt(input_dim))

    def parameters_of(self, *, frozen: bool) -> tuple[Float[Tensor, "C inputs outputs"], Float[Tensor, "C 1 outputs"]]:
        """Weight and bias, detached where `frozen`."""
        return (self.weight.detach(), self.bias.detach()) if frozen else (self.weight, self.bias)


class CriticEnsemble(nn.Module):
    """C critics: multilayer perceptrons of equal shape evaluated by batched matrix products.

    With `frozen` parameters a forward lets gradients through to its inputs only.
    """

    def __init__(self, num_critics: int, input_dim: int, config: HeadConfig, output_dim: int) -> None:
        super().__init__()
        self.num_critics = num_critics
        widths = [input_dim, *[config.hidden_dim] * config.num_layers, output_dim]
        self.layers = nn.ModuleList(EnsembleLinear(num_critics, a, b) for a, b in pairwise(widths))

    def _layer(self, index: int, *, frozen: bool) -> tuple[Tensor, Tensor]:
        layer = self.layers[index]
        assert isinstance(layer, EnsembleLinear)
        return layer.parameters_of(frozen=frozen)

    def _upper_layers(self, hidden: Tensor, *, frozen: bool) -> Tensor:
        """All but the first layer, from the first one's result after activation: `[C, R, H] -> [C, R, out]`."""
        last = len(self.layers) - 1
        for index in range(1, last + 1):
            weight, bias = self._layer(index, frozen=frozen)
            hidden = torch.baddbmm(bias, hidden, weight)
            if index < last:
                hidden = activate(hidden)
        return hidden


class StateCritics(CriticEnsemble):
    """Values of all discrete actions at once: `[R, D] -> [C, R, G, A]`."""

    def __init__(
        self, state_dim: int, config: HeadConfig, *, num_critics: int, num_discounts: int, num_actions: int
    ) -> None:
        super().__init__(num_critics, state_dim, config, num_discounts * num_actions)
        self._outputs = (num_discounts, num_actions)

    def forward(self, state: Float[Tensor, "R D"], *, frozen: bool = False) -> Float[Tensor, "C R G A"]:
        """Values `[C, R, G, A]` of states `[R, D]`."""
        weight, bias = self._layer(0, frozen=frozen)
        hidden = activate(_shared_input(state, weight, bias))
        return self._upper_layers(hidden, frozen=frozen).view(self.num_critics, len(state), *self._outputs)


class StateActionCritics(CriticEnsemble):
    """Values of given actions: `[R, D], [R, K, G or 1, A] -> [C, R, K, G, out]`.

    A member's input is [state, symlog(1 / (1 - discount)), action clamped to +-0.999], one evaluation per discount;
    `out` is 1, or the number of value bins.
    """

    discount_features: Float[Tensor, " G"]

    def __init__(
        self,
        state_dim: int,
        config: HeadConfig,
        *,
        num_critics: int,
        discounts: Sequence[float],
        action_dim: int,
        num_outputs: int = 1,
    ) -> None:
        super().__init__(num_critics, state_dim + 1 + action_dim, config, num_outputs)
        self.state_dim = state_dim
        horizon = 1.0 / (1.0 - torch.tensor(discounts, dtype=torch.float32)).clamp_min(1e-6)
        self.register_buffer("discount_features", horizon.log1p(), persistent=False)

    def forward(
        self, state: Float[Tensor, "R D"], action: Float[Tensor, "R K G_or_1 A"], *, frozen: bool = False
    ) -> Float[Tensor, "C R K G outputs"]:
        """Values `[C, R, K, G, out]` of actions `[R, K, G or 1, A]` in states `[R, D]`."""
        weight, bias = self._layer(0, frozen=frozen)
        num_rows, num_samples = action.shape[:2]
        num_critics, num_discounts = self.num_critics, len(self.discount_features)
        w_state, w_discount, w_action = torch.split(weight, [self.state_dim, 1, action.shape[-1]], 1)
        # The state's share of the first layer is the same for every sample and discount: computed once per row.
        of_state = _shared_input(state, w_state, bias)[:, :, None, None]
        of_discount = (self.discount_features[:, None] * w_discount)[:, None, None]
        flat_action = action.clamp(-_MAX_ACTION, _MAX_ACTION).flatten(0, 2)
        of_action = _shared_input(flat_action, w_action).view(num_critics, *action.shape[:3], -1)
        hidden = (of_action + of_state + of_discount).reshape(num_critics, num_rows * num_samples * num_discounts, -1)
        result = self._upper_layers(activate(hidden), frozen=frozen)
        return result.view(num_critics, num_rows, num_samples, num_discounts, -1)


Critics = StateCritics | StateActionCritics


def _shared_input(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """One input to all C members: `[R, in] x [C, in, out] (+ [C, 1, out]) -> [C, R, out]`."""
    inputs = x.expand(len(weight), *x.shape)
    return torch.bmm(inputs, weight) if bias is None else torch.baddbmm(bias, inputs, weight)
