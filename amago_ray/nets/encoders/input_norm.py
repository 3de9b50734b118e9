"""`InputNorm`: normalisation of network inputs by running moments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amago_ray.nets.moments import SumOverLearners, moved_moments

if TYPE_CHECKING:
    from jaxtyping import Float

STEP_SIZE = 1e-4
"""beta of the moving moments, before bias correction."""
MIN_STD, MAX_STD = 1e-3, 1e6
MAX_OUTPUT = 1e4
UNSTABLE_STD = 0.01
"""Features of at most this deviation are only centred: dividing by it would blow noise up."""


class InputNorm(nn.Module):
    """Normalises F features by their running moments, which training updates before use.

    Source: docs/algorithm.md §2.3; AMAGO (arXiv 2310.09971), appendix A.
    No gradient reaches the moments.
    """

    mean: Float[Tensor, " F"]
    mean_square: Float[Tensor, " F"]
    num_updates: Float[Tensor, " 1"]

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.sum_over_learners: SumOverLearners | None = None
        """Where several learners train: their inputs all count, in equal moments of each."""
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("mean_square", torch.ones(num_features))
        self.register_buffer("num_updates", torch.ones(1))

    def forward(self, x: Float[Tensor, "N F"], weight: Float[Tensor, " N"] | None = None) -> Float[Tensor, "N F"]:
        """`[N, F]` to `[N, F]`; in training the rows count in the moments with `weight [N]` (all alike where None)."""
        if self.training:
            self.update(x, weight)
        mean, std, limit = self.affine()
        centred = x - mean
        return torch.clamp(centred, -limit, limit).div_(std)

    @torch.no_grad()
    def update(self, x: Float[Tensor, "N F"], weight: Float[Tensor, " N"] | None = None) -> None:
        """Move the moments towards those of `x [N, F]`."""
        self.num_updates += 1
        moments, sum_over_learners = (self.mean, self.mean_square), self.sum_over_learners
        moved = moved_moments(*moments, x, weight, self.num_updates, STEP_SIZE, sum_over_learners)
        self.mean.copy_(moved[0])
        self.mean_square.copy_(moved[1])

    @torch.no_grad()
    def affine(self) -> tuple[Float[Tensor, " F"], Float[Tensor, " F"], Float[Tensor, " F"]]:
        """mean, divisor and limit, each `[F]`: the output is `clamp(x - mean, -limit, limit) / divisor`."""
        variance = self.mean_square - self.mean.square() + 1e-5
        std = variance.clamp(min=0).sqrt().clamp(MIN_STD, MAX_STD)
        unstable = std <= UNSTABLE_STD
        limit = (MAX_OUTPUT * std).masked_fill(unstable, float("inf"))
        return self.mean, std.masked_fill(unstable, 1.0), limit
