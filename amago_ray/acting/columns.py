"""`EpisodeColumns`: preallocated columns in which running episodes grow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from amago_ray.data.episode import AchievedGoals, Episode, EpisodeId, PolicyVersion
from amago_ray.data.specs import EnvSpec
from amago_ray.envs.env_batch import Observations

# Rows reserved at first where the horizon is long or unknown; columns double when an episode outgrows them.
_INITIAL_ROWS = 256


class EpisodeColumns:
    """The running episodes of E environments; environment i has `lengths[i]` transitions so far.

    Everything received is copied in, so environments may reuse their buffers.
    """

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        self._spec = spec
        self.lengths = np.zeros(num_envs, dtype=np.int64)
        self._rows = min(spec.horizon or _INITIAL_ROWS, _INITIAL_ROWS) + 1
        rows = self._rows
        self.observations: dict[str, npt.NDArray[np.generic]] = {
            name: np.zeros((num_envs, rows, *leaf.shape), leaf.dtype) for name, leaf in spec.observations.items()
        }
        self.actions: npt.NDArray[np.generic] = np.zeros((num_envs, rows, *spec.action.shape), spec.action.dtype)
        self.rewards: npt.NDArray[np.float32] = np.zeros((num_envs, rows), np.float32)
        self.action_mask: npt.NDArray[np.bool_] | None = (
            np.ones((num_envs, rows, spec.action.mask_size), np.bool_) if spec.has_action_mask else None
        )
        self._goal_offsets = np.zeros((num_envs, rows + 1), np.int32)
        self._goal_values: npt.NDArray[np.generic] | None = (
            np.zeros((num_envs, rows, spec.goal_dim), spec.goal_dtype) if spec.goal_dim else None
        )

    def start(self, indices: npt.NDArray[np.int64], first: Observations) -> None:
        """Begin new episodes in `indices` with their reset observations as row 0."""
        self.lengths[indices] = 0
        self._write_row(indices, first)

    def append(
        self,
        indices: npt.NDArray[np.int64],
        actions: npt.NDArray[np.generic],
        rewards: npt.NDArray[np.float32],
        observations: Observations,
    ) -> None:
        """Add one transition to each of `indices`; all columns have one row per index."""
        rows = self.lengths[indices]
        if rows.max(initial=0) + 2 > self._rows:
            self._grow()
        self.actions[indices, rows] = actions
        self.rewards[indices, rows] = rewards
        self.lengths[indices] = rows + 1
        self._write_row(indices, observations)

    def episode(
        self,
        index: int,
        *,
        terminated: bool,
        truncated: bool,
        episode_id: EpisodeId,
        env_name: str,
        seed: int,
        first_policy_version: PolicyVersion,
        last_policy_version: PolicyVersion,
    ) -> Episode:
        """The episode of environment `index`, copied out."""
        length = int(self.lengths[index])
        goals = None
        if self._goal_values is not None:
            offsets = self._goal_offsets[index, : length + 2].copy()
            goals = AchievedGoals(self._goal_values[index, : offsets[-1]].copy(), offsets)
        return Episode(
            observations={name: column[index, : length + 1].copy() for name, column in self.observations.items()},
            actions=self.actions[index, :length].copy(),
            rewards=self.rewards[index, :length].copy(),
            terminated=terminated,
            truncated=truncated,
            episode_id=episode_id,
            env_name=env_name,
            seed=seed,
            first_policy_version=first_policy_version,
            last_policy_version=last_policy_version,
            achieved_goals=goals,
            action_mask=None if self.action_mask is None else self.action_mask[index, : length + 1].copy(),
        )

    def _write_row(self, indices: npt.NDArray[np.int64], observations: Observations) -> None:
        rows = self.lengths[indices]
        for name, column in self.observations.items():
            column[indices, rows] = observations.leaves[name]
        if self.action_mask is not None:
            self.action_mask[indices, rows] = True if observations.action_mask is None else observations.action_mask
        if self._goal_values is not None:
            assert observations.achieved_values is not None
            assert observations.achieved_offsets is not None
            self._write_goals(indices, rows, observations.achieved_values, observations.achieved_offsets)

    def _write_goals(
        self,
        indices: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        values: npt.NDArray[np.generic],
        offsets: npt.NDArray[np.int32],
    ) -> None:
        assert self._goal_values is not None
        counts = offsets[1:] - offsets[:-1]
        # An episode's goals begin at 0, which stands there from the start; each row writes where the next one begins.
        starts = self._goal_offsets[indices, rows]
        ends = starts + counts
        self._goal_offsets[indices, rows + 1] = ends
        while ends.max(initial=0) > self._goal_values.shape[1]:
            self._goal_values = _doubled(self._goal_values)
        # Row r of `values` belongs to environment `owner[r]` and is the `position[r]`-th goal of its episode.
        owner = np.repeat(np.arange(len(indices)), counts)
        position = starts[owner] + np.arange(len(values)) - offsets[owner]
        self._goal_values[indices[owner], position] = values

    def _grow(self) -> None:
        self.observations = {name: _doubled(column) for name, column in self.observations.items()}
        self.actions = _doubled(self.actions)
        self.rewards = _doubled(self.rewards).astype(np.float32, copy=False)
        self._goal_offsets = _doubled(self._goal_offsets).astype(np.int32, copy=False)
        if self.action_mask is not None:
            self.action_mask = _doubled(self.action_mask).astype(np.bool_, copy=False)
        self._rows = self.rewards.shape[1]


def _doubled(column: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """The column `[E, rows, ...]` with twice the rows."""
    return np.concatenate([column, np.zeros_like(column)], axis=1)
