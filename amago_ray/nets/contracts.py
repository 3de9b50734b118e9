"""What timestep encoders and sequence models are: contracts that built-in and custom (`module:attr`) ones keep."""

from __future__ import annotations

from torch import Tensor, nn

from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.tokens import TokenColumns


class TimestepEncoder(nn.Module):
    """Reads each timestep by itself. Custom ones are made by `attr(config, spec)`.

    config: `TimestepEncoderConfig`; spec: `EnvSpec`. Row i of the result depends on row i of the tokens alone
    (beside running statistics), and in eval mode on nothing random.
    """

    output_dim: int
    """D_enc, width of the result."""

    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        """`[N, D_enc]` of N tokens; `weight [N]` says how rows count in running statistics (training mode)."""
        raise NotImplementedError


class SequenceModel(nn.Module):
    """Reads each sequence causally. Custom ones are made by `attr(config, input_dim, horizon)`.

    config: `SequenceModelConfig`; input_dim: D_enc; horizon: longest episode in steps or None. Row i of the result
    depends only on rows of its own sequence up to itself, and in eval mode on nothing random.
    """

    output_dim: int
    """D, width of the result."""

    def forward(self, x: Tensor, time_index: Tensor, layout: SequenceLayout) -> Tensor:
        """`[N, D]` of packed timestep vectors `x [N, D_enc]` with the episode's step count `time_index [N]`."""
        raise NotImplementedError
