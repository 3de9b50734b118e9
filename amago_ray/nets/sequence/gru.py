"""`GruSequenceModel`: a GRU over the rows of an episode, acting with its hidden state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from amago_ray.config.model import GruConfig
from amago_ray.nets.contracts import SequenceModel
from amago_ray.nets.decoding.decoder import Indices
from amago_ray.nets.layout import SequenceLayout, to_device

if TYPE_CHECKING:
    from jaxtyping import Float


class GruSequenceModel(SequenceModel):
    """GRU, linear, LayerNorm. The time index is not read."""

    def __init__(self, config: GruConfig, input_dim: int, horizon: int | None) -> None:
        super().__init__()
        hidden_dim = config.gru_hidden_dim or config.d_model
        self.rnn = nn.GRU(input_dim, hidden_dim, config.num_layers, batch_first=True)
        self.output = nn.Linear(hidden_dim, config.d_model)
        self.output_norm = nn.LayerNorm(config.d_model)
        self.output_dim = config.d_model

    def forward(self, x: Tensor, time_index: Tensor, layout: SequenceLayout) -> Tensor:
        """See `SequenceModel`; every sequence starts from a zero hidden state."""
        return self.run(x, layout)[0]

    def run(
        self, x: Float[Tensor, "N D_enc"], layout: SequenceLayout
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "layers B hidden_dim"]]:
        """The result `[N, D]`, and the hidden state `[layers, B, hidden_dim]` after each sequence's last token."""
        if layout.is_uniform:
            states, hidden = self.rnn(x.view(layout.num_sequences, layout.max_seqlen, -1))
            states = states.flatten(0, 1)
        else:
            rows, inverse, batch_sizes, unsorted = _time_major(layout)
            packed = PackedSequence(x.index_select(0, rows), batch_sizes, None, unsorted)
            states, hidden = self.rnn(packed)
            states = states.data.index_select(0, inverse)
        output: Tensor = self.output_norm(self.output(states))
        return output, hidden

    def make_decoder(self, context_length: int, cache_dtype: torch.dtype = torch.float32) -> GruDecoder:
        """See `SequenceModel`; the hidden state reaches back to the start of the episode."""
        return GruDecoder(self)


@dataclass
class GruState:
    """hidden: `[layers, E, hidden_dim]`."""

    hidden: Float[Tensor, "layers E hidden_dim"]

    def reset(self, indices: Indices) -> None:
        """See `DecoderState`."""
        self.hidden[:, to_device(indices, self.hidden.device)] = 0


class GruDecoder:
    """A GRU, one row at a time."""

    def __init__(self, model: GruSequenceModel) -> None:
        self._model = model

    def initial_state(self, batch_size: int) -> GruState:
        """See `Decoder`."""
        rnn = self._model.rnn
        device = self._model.output.weight.device
        return GruState(torch.zeros(rnn.num_layers, batch_size, rnn.hidden_size, device=device))

    def step(self, x: Tensor, time_index: Tensor, state: GruState) -> Tensor:
        """See `Decoder`."""
        states, state.hidden = self._model.rnn(x[:, None], state.hidden)
        output: Tensor = self._model.output_norm(self._model.output(states[:, 0]))
        return output

    def rebuild(self, x: Tensor, time_index: Tensor, layout: SequenceLayout, indices: Indices, state: GruState) -> None:
        """See `Decoder`."""
        state.hidden[:, to_device(indices, x.device)] = self._model.run(x, layout)[1]


def _time_major(layout: SequenceLayout) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Packed rows in the order of `PackedSequence` (step by step, longest sequence first), and the way back.

    Returns: token rows `[N]`; for each token its place in that order `[N]`; sequences alive at each step; for each
    sequence its place among the sorted ones `[B]`.
    """
    lengths = np.asarray(layout.lengths)
    longest_first = np.argsort(-lengths, kind="stable")
    rank = np.argsort(longest_first)
    step = np.arange(layout.num_tokens) - np.repeat(layout.starts, lengths)
    rows = np.lexsort((np.repeat(rank, lengths), step))
    batch_sizes = (lengths[:, None] > np.arange(layout.max_seqlen)).sum(0)
    device = layout.device
    return (
        to_device(rows, device),
        to_device(np.argsort(rows), device),
        # PyTorch wants these on the host, wherever the rest is.
        torch.from_numpy(batch_sizes),
        to_device(rank, device),
    )
