"""How the time index enters a Transformer: sinusoidal or learned vectors added to the embedding, or rotated q and k."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class SinusoidalPositions(nn.Module):
    """Even entries sin, odd entries cos of t * 10000^(-2i/D).

    Source: docs/algorithm.md §3.4; Vaswani et al. (arXiv 1706.03762), section 3.5.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        # Rows computed so far, on the CPU only: there sines cost more than a look-up, and the largest time index is
        # known without waiting for a device.
        self._table = torch.empty(0, dim)

    def forward(self, time_index: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """`[N]` int64 to `[N, D]`."""
        if time_index.device.type != "cpu" or torch.compiler.is_compiling():
            return sinusoids(time_index, self.dim)
        needed = int(time_index.max()) + 1
        if needed > len(self._table):
            self._table = sinusoids(torch.arange(max(needed, 2 * len(self._table))), self.dim)
        return functional.embedding(time_index, self._table)


class LearnedPositions(nn.Module):
    """A table of vectors, one per time index below `size`."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(size, dim))

    def forward(self, time_index: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """`[N]` int64 to `[N, D]`."""
        return functional.embedding(time_index, self.table)


def sinusoids(time_index: Int[Tensor, "*R"], dim: int) -> Float[Tensor, "*R dim"]:
    """`[..., D]` float32: sin and cos of t * 10000^(-2i/D), interleaved."""
    angles = _angles(time_index, dim)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., :dim]


def rotary_tables(
    time_index: Int[Tensor, " N"], head_dim: int
) -> tuple[Float[Tensor, "N 1 head_dim//2"], Float[Tensor, "N 1 head_dim//2"]]:
    """Cosines and sines, `[N, 1, head_dim / 2]`, of the angles by which `rotate` turns q and k.

    Source: docs/algorithm.md §3.4; Su et al. (arXiv 2104.09864), section 3.2.
    """
    angles = _angles(time_index, head_dim)[:, None, :]
    return angles.cos(), angles.sin()


def rotate(
    x: Float[Tensor, "N H head_dim"], cos: Float[Tensor, "N 1 head_dim//2"], sin: Float[Tensor, "N 1 head_dim//2"]
) -> Float[Tensor, "N H head_dim"]:
    """`x [N, H, head_dim]` with the pairs (i, i + head_dim/2) turned by the angle of their row."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _angles(time_index: Tensor, dim: int) -> Tensor:
    exponents = torch.arange(0, dim, 2, device=time_index.device, dtype=torch.float32)
    return time_index[..., None].to(torch.float32) * torch.exp(exponents * (-math.log(10000.0) / dim))
