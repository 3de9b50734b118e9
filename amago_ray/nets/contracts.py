"""What timestep encoders and sequence models are: contracts that built-in and custom (`module:attr`) ones keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from amago_ray.errors import ConfigError
from amago_ray.nets.decoding.decoder import Decoder
from amago_ray.nets.decoding.window import WindowDecoder
from amago_ray.nets.layout import SequenceLayout
from amago_ray.nets.tokens import TokenColumns

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class TimestepEncoder(nn.Module):
    """Reads each row by itself. Custom ones are made by `attr(config, spec, **config.kwargs)`.

    config: `CustomEncoderConfig`; spec: `EnvSpec`. Row i of the result depends on row i of the tokens alone
    (beside running statistics), and in eval mode on nothing random.
    """

    output_dim: int
    """D_enc, width of the result."""

    def forward(self, tokens: TokenColumns, weight: Float[Tensor, " N"] | None = None) -> Float[Tensor, "N D_enc"]:
        """`[N, D_enc]` of N tokens; `weight [N]` says how rows count in running statistics (training mode)."""
        raise NotImplementedError

    def fold(self) -> Callable[[TokenColumns], Float[Tensor, "N D_enc"]]:
        """The encoder in eval mode with its present weights, as acting calls it: here itself, or something faster."""
        return self.eval()


class SequenceModel(nn.Module):
    """Reads each sequence causally. Custom ones are made by `attr(config, input_dim, horizon, **config.kwargs)`.

    config: `CustomSequenceModelConfig`; input_dim: D_enc; horizon: longest episode in steps or None. Row i of the
    result depends only on rows of its own sequence up to itself, and in eval mode on nothing random.
    """

    output_dim: int
    """D, width of the result."""
    num_time_indices: int | None = None
    """Rows of an episode that it can tell apart; None is any number."""

    def forward(
        self, x: Float[Tensor, "N D_enc"], time_index: Int[Tensor, " N"], layout: SequenceLayout
    ) -> Float[Tensor, "N D"]:
        """`[N, D]` of packed row vectors `x [N, D_enc]` with the episode's step count `time_index [N]`."""
        raise NotImplementedError

    def check_time_index(self, time_index: npt.NDArray[np.int64]) -> None:
        """Refuse time indices, still on the host, that the model cannot tell apart: a device would stop without a word.

        Raises:
            ConfigError: an episode goes on for longer than the model has positions for.
        """
        if self.num_time_indices is None:
            return
        last = int(time_index.max())
        if last >= self.num_time_indices:
            raise ConfigError(
                f"model.sequence_model.max_time_index: expected more than {last}, as an episode goes on to row "
                f"{last}, got {self.num_time_indices} learned positions (env.max_episode_steps bounds episodes)"
            )

    def make_decoder(self, context_length: int, cache_dtype: torch.dtype = torch.float32) -> Decoder[Any]:
        """The model in eval mode with its present weights, for acting: here by a window of the context.

        A model that keeps what it needs of the past in a state of its own returns its own `Decoder`. cache_dtype: of
        states that hold one entry per row, where that is worth it.
        """
        return WindowDecoder(self.eval(), context_length)
