"""`WindowDecoder`: acting with any sequence model, over a window of the last rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from amago_ray.nets.decoding.decoder import Indices
from amago_ray.nets.layout import SequenceLayout

Forward = Callable[[Tensor, Tensor, SequenceLayout], Tensor]
"""A sequence model's forward: see `SequenceModel`."""


class WindowState:
    """Row vectors `[E, context_length, D_enc]` and time indices of each episode's last tokens, oldest first."""

    def __init__(self, batch_size: int, context_length: int) -> None:
        self.lengths = np.zeros(batch_size, dtype=np.int64)
        self.time_index = torch.zeros(batch_size, context_length, dtype=torch.int64)
        self.x: Tensor | None = None

    def reset(self, indices: Indices) -> None:
        """See `DecoderState`."""
        self.lengths[indices] = 0


class WindowDecoder:
    """Any sequence model, run over the last context of tokens at every step: slow, but asks nothing of the model."""

    def __init__(self, model: Forward, context_length: int) -> None:
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
        output = self._model(window[live], state.time_index[live].to(x.device), layout)
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
