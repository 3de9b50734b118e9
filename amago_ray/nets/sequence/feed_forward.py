"""`FeedForwardSequenceModel`: no memory, for ablation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amago_ray.config.model import FeedForwardConfig
from amago_ray.nets.contracts import SequenceModel
from amago_ray.nets.decoding.decoder import Indices
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.mlp import activate

if TYPE_CHECKING:
    from jaxtyping import Float


class FeedForwardSequenceModel(SequenceModel):
    """act(linear), residual blocks x <- x + act(F2 act(F1 x)), linear, LayerNorm; each row by itself."""

    def __init__(self, config: FeedForwardConfig, input_dim: int, horizon: int | None) -> None:
        super().__init__()
        dim, d_ff = config.d_model, config.d_ff or 4 * config.d_model
        self.embed = nn.Linear(input_dim, dim)
        self.blocks = nn.ModuleList(ResidualBlock(dim, d_ff) for _ in range(config.num_layers))
        self.output = nn.Linear(dim, dim)
        self.output_norm = nn.LayerNorm(dim)
        self.output_dim = dim

    def forward(self, x: Tensor, time_index: Tensor, layout: SequenceLayout) -> Tensor:
        """See `SequenceModel`."""
        return self.run(x)

    def run(self, x: Float[Tensor, "N D_enc"]) -> Float[Tensor, "N D"]:
        """`[N, D_enc]` to `[N, D]`."""
        x = activate(self.embed(x))
        for block in self.blocks:
            x = block(x)
        output: Tensor = self.output_norm(self.output(x))
        return output

    def make_decoder(self, context_length: int, cache_dtype: torch.dtype = torch.float32) -> FeedForwardDecoder:
        """See `SequenceModel`."""
        return FeedForwardDecoder(self)


class ResidualBlock(nn.Module):
    """x + act(contract(act(expand(x))))."""

    def __init__(self, dim: int, d_ff: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, d_ff)
        self.contract = nn.Linear(d_ff, dim)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """`[N, D]` to `[N, D]`."""
        return x + activate(self.contract(activate(self.expand(x))))


class NoState:
    """The state of a model without memory."""

    def reset(self, indices: Indices) -> None:
        """See `DecoderState`."""


class FeedForwardDecoder:
    """A model without memory."""

    def __init__(self, model: FeedForwardSequenceModel) -> None:
        self._model = model

    def initial_state(self, batch_size: int) -> NoState:
        """See `Decoder`."""
        return NoState()

    def step(self, x: Tensor, time_index: Tensor, state: NoState) -> Tensor:
        """See `Decoder`."""
        return self._model.run(x)

    def rebuild(self, x: Tensor, time_index: Tensor, layout: SequenceLayout, indices: Indices, state: NoState) -> None:
        """See `Decoder`; there is nothing to rebuild."""
