"""`Episode`: one whole rollout, immutable, columnar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from amago_ray.errors import DataError


class EpisodeId(NamedTuple):
    """Names an episode for ever: made by the runner, unique across restarts. `run` is the run id."""

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


def validate_episode(episode: Episode) -> None:
    """Check an episode where it enters storage: row counts, dtypes that are fixed, offsets, finite rewards.

    Raises:
        DataError: it breaks the contract of `Episode`.
    """
    where = f"episode {tuple(episode.episode_id)}"
    num_transitions = len(episode)
    if num_transitions < 1:
        raise DataError(f"{where}: expected at least 1 transition, got none")
    if not episode.observations:
        raise DataError(f"{where}: expected at least one observation leaf, got none")
    if episode.rewards.dtype != np.float32 or episode.rewards.ndim != 1:
        raise DataError(f"{where}: rewards: expected float32[T], got {_describe(episode.rewards)}")
    if not np.isfinite(episode.rewards).all():
        raise DataError(f"{where}: rewards: expected finite numbers, got NaN or infinity")
    _check_rows(where, "actions", episode.actions, num_transitions)
    for name, leaf in episode.observations.items():
        _check_rows(where, f"observation {name!r}", leaf, num_transitions + 1)
    mask = episode.action_mask
    if mask is not None:
        _check_rows(where, "action_mask", mask, num_transitions + 1)
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise DataError(f"{where}: action_mask: expected bool[T+1, mask_size], got {_describe(mask)}")
    achieved = episode.achieved_goals
    if achieved is not None:
        offsets = achieved.offsets
        if achieved.values.ndim != 2:
            raise DataError(f"{where}: achieved goals: expected [J, goal_dim], got {_describe(achieved.values)}")
        if len(offsets) != num_transitions + 2 or offsets[0] != 0 or offsets[-1] != len(achieved.values):
            raise DataError(
                f"{where}: achieved goals: expected T+2 = {num_transitions + 2} offsets from 0 to "
                f"{len(achieved.values)}, got {len(offsets)} from {offsets[:1]} to {offsets[-1:]}"
            )
        if (offsets[1:] < offsets[:-1]).any():
            raise DataError(f"{where}: achieved goals: expected offsets that never fall")


def _check_rows(where: str, name: str, values: npt.NDArray[np.generic], num_rows: int) -> None:
    if values.ndim < 1 or len(values) != num_rows:
        raise DataError(f"{where}: {name}: expected {num_rows} rows, got {_describe(values)}")


def _describe(values: npt.NDArray[np.generic]) -> str:
    return f"{values.dtype}{list(values.shape)}"
