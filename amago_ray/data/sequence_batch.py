"""`SequenceBatch`: B sequences packed end to end, without padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SequenceBatch:
    """What the learner trains on.

    Sequence i has T_i transitions and T_i + 1 tokens, rows `cu_seqlens[i]:cu_seqlens[i + 1]` of the token columns
    (`[N]`, N = sum(T_i + 1)); its transitions are rows `cu_seqlens[i] - i : cu_seqlens[i + 1] - i - 1` of the
    transition columns (`[M]`, M = sum(T_i) = N - B).

    prev_action, prev_reward: what led to the token; zero at an episode's first token (time_index 0), where the
    network reads them as "no action" (no one-hot entry set).
    time_index `[N]` int64: the episode's own step count.
    terminated `[M]`: True only for a transition into a terminal state.
    weight `[B]` float32: factor of each sequence in losses and statistics (1, or 0 for a dummy that fills a
    static shape).
    episode_ids `[B, 4]` int64 and policy_versions `[B, 2]` int64 (last version that acted).
    """

    observations: Mapping[str, npt.NDArray[np.generic]]
    prev_action: npt.NDArray[np.generic]
    prev_reward: npt.NDArray[np.float32]
    time_index: npt.NDArray[np.int64]
    action: npt.NDArray[np.generic]
    reward: npt.NDArray[np.float32]
    terminated: npt.NDArray[np.bool_]
    cu_seqlens: npt.NDArray[np.int32]
    max_seqlen: int
    weight: npt.NDArray[np.float32]
    episode_ids: npt.NDArray[np.int64]
    policy_versions: npt.NDArray[np.int64]
    action_mask: npt.NDArray[np.bool_] | None = None

    @property
    def num_sequences(self) -> int:
        """B."""
        return len(self.cu_seqlens) - 1

    @property
    def num_tokens(self) -> int:
        """N."""
        return int(self.cu_seqlens[-1])

    @property
    def num_transitions(self) -> int:
        """M."""
        return self.num_tokens - self.num_sequences

    def __reduce__(self) -> tuple[Callable[..., SequenceBatch], tuple[Any, ...]]:
        """Pickle as one buffer, out of band where the protocol can: each buffer more costs a transfer its own upkeep.

        What is unpickled are views on that buffer, read-only where it is.
        """
        columns = {f"{_LEAF}{name}": leaf for name, leaf in self.observations.items()}
        columns.update((name, value) for name, value in vars(self).items() if isinstance(value, np.ndarray))
        places, size = [], 0
        for name, column in columns.items():
            places.append((name, column.dtype.str, column.shape, size))
            size += -(-column.nbytes // _ALIGNMENT) * _ALIGNMENT
        arena = np.empty(size, np.uint8)
        for column, view in zip(columns.values(), _views(places, arena).values(), strict=True):
            view[...] = column
        return _from_arena, (places, self.max_seqlen, arena)


_Places = list[tuple[str, str, tuple[int, ...], int]]
"""Name, dtype, shape and offset of each column in an arena."""
_LEAF = "observations/"
_ALIGNMENT = 64
"""Of a column in bytes: that of a cache line."""


def _views(places: _Places, arena: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    return {name: np.ndarray(shape, dtype, buffer=arena, offset=offset) for name, dtype, shape, offset in places}


def _from_arena(places: _Places, max_seqlen: int, arena: npt.NDArray[np.uint8]) -> SequenceBatch:
    views = _views(places, arena)
    observations = {name.removeprefix(_LEAF): views.pop(name) for name in list(views) if name.startswith(_LEAF)}
    return SequenceBatch(observations=observations, max_seqlen=max_seqlen, **views)
