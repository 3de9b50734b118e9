"""Values as distributions over bins that are equally spaced in symlog space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Float

HL_GAUSS_STD_IN_BINS = 0.75
"""Standard deviation of HL-Gauss labels, in bin widths."""


class ValueBins(nn.Module):
    """`num_bins` bins between symlog(min_return) and symlog(max_return).

    Source: docs/algorithm.md §4.5; Hafner et al. 2023 (arXiv 2301.04104), equations 9-10 for symlog two-hot labels;
    Farebrother et al. 2024 (arXiv 2403.03950), section 3.1 for HL-Gauss labels.
    """

    centers: Float[Tensor, " bins"]

    def __init__(
        self, num_bins: int, min_return: float, max_return: float, labels: Literal["two_hot", "hl_gauss"]
    ) -> None:
        super().__init__()
        low, high = _symlog(min_return), _symlog(max_return)
        self._labels = labels
        self._width = (high - low) / (num_bins - 1)
        self.register_buffer("centers", torch.linspace(low, high, num_bins), persistent=False)

    def value(self, log_probs: Float[Tensor, "*rows bins"]) -> Float[Tensor, "*rows"]:
        """Scalars, in return units, of (log-)unnormalised bin scores."""
        symlog_value = (log_probs.softmax(-1) * self.centers).sum(-1)
        return symlog_value.sign() * symlog_value.abs().expm1()

    def label(self, returns: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows bins"]:
        """Distributions that stand for scalars in return units."""
        position = returns.sign() * returns.abs().log1p()
        return self._two_hot(position) if self._labels == "two_hot" else self._hl_gauss(position)

    def _two_hot(self, position: Tensor) -> Tensor:
        """Linear weights on the two neighbouring bins; outside the range all mass on the end bin."""
        centers = self.centers
        position = position.clamp(centers[0], centers[-1]).unsqueeze(-1)
        below = (torch.searchsorted(centers, position.contiguous(), right=True) - 1).clamp(0, len(centers) - 2)
        left, right = centers[below], centers[below + 1]
        share = (position - left) / (right - left)
        label = torch.zeros(*position.shape[:-1], len(centers), dtype=position.dtype, device=position.device)
        return label.scatter_(-1, below, 1.0 - share).scatter_(-1, below + 1, share)

    def _hl_gauss(self, position: Tensor) -> Tensor:
        """Mass of a Gaussian around the scalar in each bin, renormalised to the range.

        Differs: a scalar outside the range counts as its end; the original's label fades to nothing there.
        """
        centers = self.centers
        position = position.clamp(centers[0], centers[-1])
        edges = torch.cat([centers - self._width / 2, centers[-1:] + self._width / 2])
        scale = math.sqrt(2.0) * HL_GAUSS_STD_IN_BINS * self._width
        cdf = torch.erf((edges - position.unsqueeze(-1)) / scale)
        return cdf.diff(dim=-1) / (cdf[..., -1:] - cdf[..., :1])


def _symlog(x: float) -> float:
    return math.copysign(math.log1p(abs(x)), x)
