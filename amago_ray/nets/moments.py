"""Moving first and second moments, as `InputNorm` and PopArt keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

SumOverLearners = Callable[[Tensor], None]
"""Replaces a tensor by its sum over the learners that train together."""


@torch.no_grad()
def moved_moments(
    mean: Float[Tensor, " F"],
    mean_square: Float[Tensor, " F"],
    values: Float[Tensor, "N F"],
    weight: Float[Tensor, " N"] | None,
    num_updates: Tensor,
    step_size: float,
    sum_over_learners: SumOverLearners | None = None,
) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
    """Mean and mean square, moved towards those of `values`, whose rows count by `weight` (all alike where None).

    num_updates: how often they have been moved, this time included, with the first moments counted as one.
    sum_over_learners: where given, the rows of all learners count.
    Source: docs/algorithm.md §2.3, in float32 as in the original (visible from the second step on).
    """
    values = values.float()
    if sum_over_learners is not None:
        batch_mean, batch_mean_square = _moments_of_all(values, weight, sum_over_learners)
    elif weight is None:
        batch_mean, batch_mean_square = values.mean(0), values.square().mean(0)
    else:
        share = (weight / weight.sum()).float()
        # Statistics stay float32 where networks run under autocast.
        with torch.autocast(values.device.type, enabled=False):
            batch_mean, batch_mean_square = share @ values, share @ values.square()
    step = step_size / (1 - torch.pow(1 - step_size, num_updates))
    return (1 - step) * mean + step * batch_mean, (1 - step) * mean_square + step * batch_mean_square


def _moments_of_all(
    values: Float[Tensor, "N F"], weight: Float[Tensor, " N"] | None, sum_over_learners: SumOverLearners
) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
    """Mean and mean square over the rows of all learners; one sum for both and for the weights."""
    with torch.autocast(values.device.type, enabled=False):
        weight = values.new_ones(len(values)) if weight is None else weight.to(values)
        sums = torch.cat([weight.sum()[None], weight @ values, weight @ values.square()])
    sum_over_learners(sums)
    mean, mean_square = (sums[1:] / sums[0]).chunk(2)
    return mean, mean_square
