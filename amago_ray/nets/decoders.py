"""Decoders: sequence models taken one timestep at a time, with the state that acting carries from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from amago_ray.nets.contracts import SequenceModel
from amago_ray.nets.feed_forward import FeedForwardSequenceModel
from amago_ray.nets.layout import SequenceLayout, to_device
from amago_ray.nets.recurrent import GruSequenceModel
from amago_ray.nets.transformer import Transformer
from amago_ray.nets.transformer_decoder import TransformerDecoder

Indices = npt.NDArray[np.int64]


class DecoderState(Protocol):
    """What E running episodes carry between steps."""

    def reset(self, indices: Indices) -> None:
        """Begin new episodes in these environments."""
        ...


StateT = TypeVar("StateT")


class Decoder(Protocol[StateT]):
    """A sequence model with fixed weights; states outlive it and go on under the decoder of newer weights.

    A step equals the row of a full forward over the episode, in which attention looks back at most
    context_length - 1 tokens in every layer.
    """

    def initial_state(self, batch_size: int) -> StateT:
        """The state of E episodes that have not begun."""
        ...

    def step(self, x: Tensor, time_index: Tensor, state: StateT) -> Tensor:
        """`[E, D]` of the next timestep's vectors `x [E, D_enc]` of all episodes; advances `state` in place."""
        ...

    def rebuild(self, x: Tensor, time_index: Tensor, layout: SequenceLayout, indices: Indices, state: StateT) -> None:
        """Recompute the state of `indices` from packed timestep vectors, sequence j for `indices[j]`."""
        ...


@dataclass
class GruState:
    """hidden: `[layers, E, hidden_dim]`."""

    hidden: Tensor

    def reset(self, indices: Indices) -> None:
        """See `DecoderState`."""
        self.hidden[:, to_device(indices, self.hidden.device)] = 0


class GruDecoder:
    """A GRU, one timestep at a time."""

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


class WindowState:
    """Timestep vectors `[E, context_length, D_enc]` and time indices of each episode's last tokens, oldest first."""

    def __init__(self, batch_size: int, context_length: int) -> None:
        self.lengths = np.zeros(batch_size, dtype=np.int64)
        self.time_index = torch.zeros(batch_size, context_length, dtype=torch.int64)
        self.x: Tensor | None = None

    def reset(self, indices: Indices) -> None:
        """See `DecoderState`."""
        self.lengths[indices] = 0


class WindowDecoder:
    """Any sequence model, run over the last context of tokens at every step: slow, but asks nothing of the model."""

    def __init__(self, model: SequenceModel, context_length: int) -> None:
        self._model = model
        self._context_length = context_length

    def initial_state(self, batch_size: int) -> WindowState:
        """See `Decoder`."""
        return WindowState(batch_size, self._context_length)

    def step(self, x: Tensor, time_index: Tensor, state: WindowState) -> Tensor:
        """See `Decoder`."""
        window = self._window(x, state)
        for e in np.flatnonzero(state.lengths == self._context_length):
            window[e] = window[e].roll(-1, 0)
            state.time_index[e] = state.time_index[e].roll(-1, 0)
        state.lengths = np.minimum(state.lengths + 1, self._context_length)
        last = torch.from_numpy(state.lengths - 1)
        environments = torch.arange(len(x))
        window[environments, last] = x
        state.time_index[environments, last] = time_index.cpu()
        layout = SequenceLayout.from_lengths(state.lengths.tolist(), x.device)
        live = torch.arange(self._context_length) < torch.from_numpy(state.lengths)[:, None]
        output: Tensor = self._model(window[live], state.time_index[live].to(x.device), layout)
        return output.index_select(0, layout.cu_seqlens[1:].to(torch.int64) - 1)

    def rebuild(
        self, x: Tensor, time_index: Tensor, layout: SequenceLayout, indices: Indices, state: WindowState
    ) -> None:
        """See `Decoder`."""
        window = self._window(x, state)
        for e, start, length in zip(indices, layout.starts, layout.lengths, strict=True):
            window[e, :length] = x[start : start + length]
            state.time_index[e, :length] = time_index[start : start + length].cpu()
            state.lengths[e] = length

    def _window(self, x: Tensor, state: WindowState) -> Tensor:
        if state.x is None:
            state.x = x.new_zeros(*state.time_index.shape, x.shape[-1])
        return state.x


AnyDecoder = TransformerDecoder | GruDecoder | FeedForwardDecoder | WindowDecoder


def make_decoder(model: SequenceModel, context_length: int, cache_dtype: torch.dtype = torch.float32) -> AnyDecoder:
    """The decoder of a sequence model with its present weights (folded copies where that pays).

    cache_dtype: see `TransformerDecoder`.
    """
    if isinstance(model, Transformer):
        return TransformerDecoder(model, context_length, cache_dtype)
    if isinstance(model, GruSequenceModel):
        return GruDecoder(model)
    if isinstance(model, FeedForwardSequenceModel):
        return FeedForwardDecoder(model)
    return WindowDecoder(model, context_length)
