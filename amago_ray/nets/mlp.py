"""`Mlp`: linear layers with leaky ReLU between them, the activation of the whole agent."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from jaxtyping import Float

NEGATIVE_SLOPE = 0.01
"""Slope of the agent's leaky ReLU below zero."""


def activate(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Leaky ReLU, written over `x`, the result of a linear map or convolution (whose gradient does not read it)."""
    return functional.leaky_relu(x, NEGATIVE_SLOPE, inplace=True)


class Mlp(nn.Module):
    """`num_layers` hidden layers of `hidden_dim`, each followed by leaky ReLU, then a linear layer to `output_dim`.

    Parameters: `layers.{i}.weight`, `layers.{i}.bias`, the last of which is the output layer.
    """

    def __init__(self, input_dim: int, hidden_dim: int, num_layers: int, output_dim: int) -> None:
        super().__init__()
        widths = [input_dim, *([hidden_dim] * num_layers), output_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Float[Tensor, "*R input_dim"]) -> Float[Tensor, "*R output_dim"]:
        """`[..., input_dim]` to `[..., output_dim]`."""
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < last:
                x = activate(x)
        return x
