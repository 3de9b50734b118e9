"""`InputNorm`: normalisation of network inputs by running moments."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEP_SIZE = 1e-4
"""beta of the moving moments, before bias correction."""
MIN_STD, MAX_STD = 1e-3, 1e6
MAX_OUTPUT = 1e4
UNSTABLE_STD = 0.01
"""Features of at most this deviation are only centred: dividing by it would blow noise up."""


class InputNorm(nn.Module):
    """Normalises F features by their running moments, which training updates before use.

    Source: AMAGO (arXiv 2310.09971), appendix A; mu <- (1-b) mu + b m1, nu <- (1-b) nu + b m2 with
    b = beta / (1 - (1-beta)^t), evaluated in float32 as the original does (visible from t = 2 on).
    No gradient reaches the moments.
    """

    mean: Tensor
    mean_square: Tensor
    num_updates: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("mean_square", torch.ones(num_features))
        self.register_buffer("num_updates", torch.ones(1))

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """`[N, F]` to `[N, F]`; in training the rows count in the moments with `weight [N]` (all alike where None)."""
        if self.training:
            self.update(x, weight)
        mean, std, limit = self.affine()
        centred = x - mean
        return torch.clamp(centred, -limit, limit).div_(std)

    @torch.no_grad()
    def update(self, x: Tensor, weight: Tensor | None = None) -> None:
        """Move the moments towards those of `x [N, F]`."""
        x = x.float()
        if weight is None:
            mean, mean_square = x.mean(0), x.square().mean(0)
        else:
            share = (weight / weight.sum()).float()
            # Statistics stay float32 where networks run under autocast.
            with torch.autocast(x.device.type, enabled=False):
                mean, mean_square = share @ x, share @ x.square()
        self.num_updates += 1
        step = STEP_SIZE / (1 - torch.pow(1 - STEP_SIZE, self.num_updates))
        self.mean.copy_((1 - step) * self.mean + step * mean)
        self.mean_square.copy_((1 - step) * self.mean_square + step * mean_square)

    @torch.no_grad()
    def affine(self) -> tuple[Tensor, Tensor, Tensor]:
        """mean, divisor and limit, each `[F]`: the output is `clamp(x - mean, -limit, limit) / divisor`."""
        variance = self.mean_square - self.mean.square() + 1e-5
        std = variance.clamp(min=0).sqrt().clamp(MIN_STD, MAX_STD)
        unstable = std <= UNSTABLE_STD
        limit = (MAX_OUTPUT * std).masked_fill(unstable, float("inf"))
        return self.mean, std.masked_fill(unstable, 1.0), limit
