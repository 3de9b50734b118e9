"""`SequenceBatch`: B sequences packed end to end, without padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
