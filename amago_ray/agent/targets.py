"""Temporal-difference targets as pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def reduce_ensemble(values: Tensor, subset: Tensor, *, pessimistic: bool) -> Tensor:
    """Values `[M, G]` from those of C critics `[C, M, G]`, over the critics drawn in `subset [M, S, G]`.

    The minimum of those drawn where `pessimistic`, else their mean.
    Source: Chen et al. 2021, REDQ (arXiv 2101.05982), equation 1, with a draw per transition and discount.
    """
    drawn = values.transpose(0, 1).gather(1, subset)
    return drawn.amin(1) if pessimistic else drawn.mean(1)


def n_step_returns(
    reward: Tensor,
    terminated: Tensor,
    bootstrap: Tensor,
    discounts: Tensor,
    *,
    n_step: int = 1,
    steps_left: Tensor | None = None,
) -> Tensor:
    """Targets `[M, G]`: up to `n_step` rewards, then the value of the state reached, unless it is terminal.

    reward `[M]` in return units, terminated `[M]`, bootstrap `[M, G]` (row t: value of the successor of transition t),
    steps_left `[M]`: transitions from t to the end of its sequence, itself included; needed where n_step > 1.
    A sequence that ends without termination bootstraps from its last state over a shorter horizon.
    Source: reference formulas of the original, 3.6; Sutton 1988 for n > 1.
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
