"""Moving first and second moments, as `InputNorm` and PopArt keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


@torch.no_grad()
def moved_moments(
    mean: Float[Tensor, " F"],
    mean_square: Float[Tensor, " F"],
    values: Float[Tensor, "N F"],
    weight: Float[Tensor, " N"] | None,
    num_updates: Tensor,
    step_size: float,
) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"]]:
    """Mean and mean square, moved towards those of `values`, whose rows count by `weight` (all alike where None).

    num_updates: how often they have been moved, this time included, with the first moments counted as one.
    Source: docs/algorithm.md §2.3, in float32 as in the original (visible from the second step on).
    """
    values = values.float()
    if weight is None:
        batch_mean, batch_mean_square = values.mean(0), values.square().mean(0)
    else:
        share = (weight / weight.sum()).float()
        # Statistics stay float32 where networks run under autocast.
        with torch.autocast(values.device.type, enabled=False):
            batch_mean, batch_mean_square = share @ values, share @ values.square()
    step = step_size / (1 - torch.pow(1 - step_size, num_updates))
    return (1 - step) * mean + step * batch_mean, (1 - step) * mean_square + step * batch_mean_square
