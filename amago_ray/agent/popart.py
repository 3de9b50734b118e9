"""PopArt: value targets normalised by running moments while the critics' outputs are preserved."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEP_SIZE = 5e-4
"""beta of the moving moments, before bias correction."""
INITIAL_MEAN_SQUARE = 100.0


class PopArt(nn.Module):
    """Per discount: moving moments of the targets, and the affine map (scale, shift) behind the critics.

    All values have the G discounts as their last axis. Nothing here is trained and no gradient reaches the buffers.
    Source: van Hasselt et al. 2016 (arXiv 1602.07714), algorithm 1; step size beta / (1 - (1-beta)^t) in float32.
    Where not `enabled`, every method is the identity.
    """

    mean: Tensor
    mean_square: Tensor
    scale: Tensor
    shift: Tensor
    num_updates: Tensor

    def __init__(self, num_discounts: int, *, enabled: bool = True) -> None:
        super().__init__()
        self.enabled = enabled
        self.register_buffer("mean", torch.zeros(num_discounts))
        self.register_buffer("mean_square", torch.full((num_discounts,), INITIAL_MEAN_SQUARE))
        self.register_buffer("scale", torch.ones(num_discounts))
        self.register_buffer("shift", torch.zeros(num_discounts))
        self.register_buffer("num_updates", torch.ones(num_discounts))

    @property
    def std(self) -> Tensor:
        """sigma `[G]`."""
        variance = (self.mean_square - self.mean.square()).clamp(1e-4, 1e8)
        return variance.sqrt().clamp(1e-4, 1e6)

    @torch.no_grad()
    def update(self, targets: Tensor, weight: Tensor | None = None) -> None:
        """Move the moments towards those of `targets [M, G]`, rows counting by `weight [M]`; outputs are preserved."""
        if not self.enabled:
            return
        if weight is None:
            mean, mean_square = targets.mean(0), targets.square().mean(0)
        else:
            share = weight / weight.sum()
            mean, mean_square = share @ targets, share @ targets.square()
        self.num_updates += 1
        step = STEP_SIZE / (1 - torch.pow(1 - STEP_SIZE, self.num_updates))
        self.set_moments((1 - step) * self.mean + step * mean, (1 - step) * self.mean_square + step * mean_square)

    @torch.no_grad()
    def set_moments(self, mean: Tensor, mean_square: Tensor) -> None:
        """Take over new moments, and change scale and shift such that denormalised outputs stay as they were."""
        old_mean, old_std = self.mean.clone(), self.std
        self.mean.copy_(mean)
        self.mean_square.copy_(mean_square)
        std = self.std
        self.scale.mul_(old_std / std)
        self.shift.mul_(old_std).add_(old_mean - self.mean).div_(std)

    def normalized_output(self, output: Tensor) -> Tensor:
        """Normalised values of raw critic outputs `[..., G]`."""
        return self.scale * output + self.shift if self.enabled else output

    def denormalized_output(self, output: Tensor) -> Tensor:
        """Values, in return units, of raw critic outputs `[..., G]`."""
        return self.std * self.normalized_output(output) + self.mean if self.enabled else output

    def normalized(self, values: Tensor) -> Tensor:
        """Normalised form of values `[..., G]` in return units."""
        return (values - self.mean) / self.std if self.enabled else values
