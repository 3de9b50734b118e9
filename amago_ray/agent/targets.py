"""Temporal-difference targets as pure functions of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def reduce_ensemble(
    values: Float[Tensor, "C M G"], subset: Int[Tensor, "M S G"], *, pessimistic: bool
) -> Float[Tensor, "M G"]:
    """Values from those of C critics, over the critics drawn in `subset`.

    The minimum of those drawn where `pessimistic`, else their mean.
    Source: docs/algorithm.md §5.2; Chen et al. 2021, REDQ (arXiv 2101.05982), equation 1, with a draw per transition
    and discount.
    """
    drawn = values.transpose(0, 1).gather(1, subset)
    return drawn.amin(1) if pessimistic else drawn.mean(1)


def n_step_returns(
    reward: Float[Tensor, " M"],
    terminated: Bool[Tensor, " M"],
    bootstrap: Float[Tensor, "M G"],
    discounts: Float[Tensor, " G"],
    *,
    n_step: int = 1,
    steps_left: Int[Tensor, " M"] | None = None,
) -> Float[Tensor, "M G"]:
    """Targets: up to `n_step` rewards, then the value of the state reached, unless it is terminal.

    reward: in return units. bootstrap: in row t the value of the successor of transition t. steps_left: transitions
    from t to the end of its sequence, itself included; needed where n_step > 1.
    A sequence that ends without termination bootstraps from its last state over a shorter horizon.
    Source: docs/algorithm.md §5.3; Sutton 1988 for n > 1.
    """
    survives = 1.0 - terminated.to(bootstrap.dtype)
    if n_step == 1:
        return reward[:, None] + survives[:, None] * discounts * bootstrap
    assert steps_left is not None
    rows = torch.arange(len(reward), device=reward.device)
    last = rows
    alive = torch.ones_like(terminated)
    returns = torch.zeros_like(bootstrap)
    num_summed = torch.zeros_like(reward)
    for i in range(n_step):
        alive = alive & (i < steps_left)
        index = torch.where(alive, rows + i, last)
        returns = returns + torch.where(alive, reward[index], 0.0)[:, None] * discounts**i
        num_summed = num_summed + alive
        last = index
        alive = alive & ~terminated[index]
    return returns + discounts ** num_summed[:, None] * survives[last][:, None] * bootstrap[last]
