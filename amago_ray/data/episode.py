"""`Episode`: one whole rollout, immutable, columnar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class EpisodeId(NamedTuple):
    """Names an episode for ever: made by the runner, unique across restarts. `run` identifies the run."""

    run: int
    runner: int
    incarnation: int
    counter: int


class PolicyVersion(NamedTuple):
    """Age of weights, compared in this order, so that a restored learner's weights count as newer."""

    incarnation: int
    learner_steps: int


@dataclass(frozen=True)
class AchievedGoals:
    """Ragged goals: those achieved in row t are `values[offsets[t]:offsets[t + 1]]`; `offsets` has T+2 entries."""

    values: npt.NDArray[np.generic]
    offsets: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Episode:
    """One whole rollout of T transitions.

    observations: each leaf `[T+1, ...]`; row T is the true final observation.
    actions `[T, ...]`, rewards `[T]` float32: those of transition t lead from row t to row t+1.
    action_mask: `[T+1, mask_size]` bool, True where allowed, or None.
    """

    observations: Mapping[str, npt.NDArray[np.generic]]
    actions: npt.NDArray[np.generic]
    rewards: npt.NDArray[np.float32]
    terminated: bool
    truncated: bool
    episode_id: EpisodeId
    env_name: str
    seed: int
    first_policy_version: PolicyVersion
    last_policy_version: PolicyVersion
    achieved_goals: AchievedGoals | None = None
    action_mask: npt.NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        """T, the number of transitions."""
        return len(self.rewards)
