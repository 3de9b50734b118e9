"""PopArt: value targets normalised by running moments while the critics' outputs are preserved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amago_ray.nets.moments import SumOverLearners, moved_moments

if TYPE_CHECKING:
    from jaxtyping import Float

STEP_SIZE = 5e-4
"""beta of the moving moments, before bias correction."""
INITIAL_MEAN_SQUARE = 100.0


class PopArt(nn.Module):
    """Per discount: moving moments of the targets, and the affine map (scale, shift) behind the critics.

    All values have the G discounts as their last axis. Nothing here is trained and no gradient reaches the buffers.
    Source: docs/algorithm.md §6; van Hasselt et al. 2016 (arXiv 1602.07714), algorithm 1.
    Where not `enabled`, every method is the identity.
    """

    mean: Float[Tensor, " G"]
    mean_square: Float[Tensor, " G"]
    scale: Float[Tensor, " G"]
    shift: Float[Tensor, " G"]
    num_updates: Float[Tensor, " G"]

    def __init__(self, num_discounts: int, *, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled
        self.sum_over_learners: SumOverLearners | None = None
        """Where several learners train: their targets all count, in equal moments of each."""
        self.register_buffer("mean", torch.zeros(num_discounts))
        self.register_buffer("mean_square", torch.full((num_discounts,), INITIAL_MEAN_SQUARE))
        self.register_buffer("scale", torch.ones(num_discounts))
        self.register_buffer("shift", torch.zeros(num_discounts))
        self.register_buffer("num_updates", torch.ones(num_discounts))

    @property
    def std(self) -> Float[Tensor, " G"]:
        """sigma."""
        variance = (self.mean_square - self.mean.square()).clamp(1e-4, 1e8)
        return variance.sqrt().clamp(1e-4, 1e6)

    @torch.no_grad()
    def update(self, targets: Float[Tensor, "M G"], weight: Float[Tensor, " M"] | None = None) -> None:
        """Move the moments towards those of `targets`, rows counting by `weight`; outputs are preserved."""
        if not self.enabled:
            return
        self.num_updates += 1
        moments, sum_over_learners = (self.mean, self.mean_square), self.sum_over_learners
        moved = moved_moments(*moments, targets, weight, self.num_updates, STEP_SIZE, sum_over_learners)
        self.set_moments(*moved)

    @torch.no_grad()
    def set_moments(self, mean: Float[Tensor, " G"], mean_square: Float[Tensor, " G"]) -> None:
        """Take over new moments, and change scale and shift such that denormalised outputs stay as they were."""
        old_mean, old_std = self.mean.clone(), self.std
        self.mean.copy_(mean)
        self.mean_square.copy_(mean_square)
        std = self.std
        self.scale.mul_(old_std / std)
        self.shift.mul_(old_std).add_(old_mean - self.mean).div_(std)

    def normalized_output(self, output: Float[Tensor, "*rows G"]) -> Float[Tensor, "*rows G"]:
        """Normalised values of raw critic outputs."""
        return self.scale * output + self.shift if self.enabled else output

    def denormalized_output(self, output: Float[Tensor, "*rows G"]) -> Float[Tensor, "*rows G"]:
        """Values, in return units, of raw critic outputs."""
        return self.std * self.normalized_output(output) + self.mean if self.enabled else output

    def normalized(self, values: Float[Tensor, "*rows G"]) -> Float[Tensor, "*rows G"]:
        """Normalised form of values in return units."""
        return (values - self.mean) / self.std if self.enabled else values
