"""What the running episodes of E environments show now, and what is kept of them until they end."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from amago_ray.acting.growing_rows import Column, GrowingRows, Kinds
from amago_ray.data.episode import AchievedGoals, Episode, EpisodeId, PolicyVersion
from amago_ray.data.specs import EnvSpec
from amago_ray.envs.env_batch import Observations

_REWARD: Kinds = {"reward": ((), "float32")}


class EvaluationColumns:
    """The newest observations and, of each running episode, its rewards: what statistics need.

    Everything received is copied in, so environments may reuse their buffers.
    """

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        self._all = np.arange(num_envs)
        self._rows = GrowingRows(num_envs, _REWARD)
        self._leaves: dict[str, Column] = {
            name: np.zeros((num_envs, *leaf.shape), leaf.dtype) for name, leaf in spec.observations.items()
        }
        self._mask = np.ones((num_envs, spec.action.mask_size), np.bool_) if spec.has_action_mask else None

    @property
    def observations(self) -> dict[str, Column]:
        """Each leaf `[E, ...]` as the environments show it now; not to be kept, the arrays are used again."""
        return self._leaves

    @property
    def action_mask(self) -> npt.NDArray[np.bool_] | None:
        """What is allowed now `[E, mask_size]`, not to be kept; None where the environment has no masks."""
        return self._mask

    def start(self, indices: npt.NDArray[np.int64], first: Observations) -> None:
        """Begin new episodes in `indices`, which show `first`."""
        self._rows.begin(indices)
        self._show(indices, first)

    def append(self, actions: Column, rewards: npt.NDArray[np.float32], observations: Observations) -> None:
        """Add one transition to the episodes of all E environments."""
        self._rows["reward"][:] = rewards
        self._rows.advance()
        self._show(self._all, observations)

    def rewards(self, index: int) -> npt.NDArray[np.float32]:
        """The rewards `[T]` of an environment's episode so far."""
        return self._rows.episode(index)["reward"][:-1].astype(np.float32, copy=False)

    def _show(self, indices: npt.NDArray[np.int64], observations: Observations) -> None:
        for name, column in self.observations.items():
            column[indices] = observations.leaves[name]
        mask = self.action_mask
        if mask is not None:
            mask[indices] = True if observations.action_mask is None else observations.action_mask


class EpisodeColumns(EvaluationColumns):
    """Whole running episodes: what is to be stored of them, and what caches are rebuilt from."""

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        super().__init__(spec, num_envs)
        self._has_goals, self._has_mask = spec.goal_dim > 0, spec.has_action_mask
        # Names of leaves are the environment's; the prefix keeps them apart from the columns that are ours.
        self._names = {name: f"observation {name}" for name in spec.observations}
        columns = {
            **_REWARD,
            "action": (spec.action.shape, spec.action.dtype),
            **{self._names[name]: (leaf.shape, leaf.dtype) for name, leaf in spec.observations.items()},
            **({"action_mask": ((spec.action.mask_size,), "bool")} if spec.has_action_mask else {}),
        }
        ragged = {"goal": ((spec.goal_dim,), spec.goal_dtype)} if self._has_goals else {}
        self._rows = GrowingRows(num_envs, columns, ragged)

    @property
    def observations(self) -> dict[str, Column]:
        """See `EvaluationColumns.observations`."""
        return {name: self._rows[column] for name, column in self._names.items()}

    @property
    def action_mask(self) -> npt.NDArray[np.bool_] | None:
        """See `EvaluationColumns.action_mask`."""
        return self._rows["action_mask"].view(np.bool_) if self._has_mask else None

    def append(self, actions: Column, rewards: npt.NDArray[np.float32], observations: Observations) -> None:
        """See `EvaluationColumns.append`."""
        self._rows["action"][:] = actions
        super().append(actions, rewards, observations)

    def context(self, index: int, count: int) -> tuple[dict[str, Column], Column, Column]:
        """Of the `count` rows before the newest: observations, and the actions and rewards that led to them.

        Row 0 was led to by nothing, that is by zeros.
        """
        rows = {name: self._rows.newest(column, index, count + 1)[:-1] for name, column in self._names.items()}
        return rows, self._led_to("action", index, count), self._led_to("reward", index, count)

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
        rows = self._rows.episode(index)
        goals = None
        if self._has_goals:
            offsets = np.concatenate([[0], rows["goal counts"].cumsum()]).astype(np.int32)
            goals = AchievedGoals(rows["goal"], offsets)
        return Episode(
            observations={name: rows[column] for name, column in self._names.items()},
            actions=rows["action"][:-1],
            rewards=rows["reward"][:-1].astype(np.float32, copy=False),
            terminated=terminated,
            truncated=truncated,
            episode_id=episode_id,
            env_name=env_name,
            seed=seed,
            first_policy_version=first_policy_version,
            last_policy_version=last_policy_version,
            achieved_goals=goals,
            action_mask=rows["action_mask"].astype(np.bool_, copy=False) if self._has_mask else None,
        )

    def _show(self, indices: npt.NDArray[np.int64], observations: Observations) -> None:
        super()._show(indices, observations)
        if self._has_goals:
            assert observations.achieved_values is not None
            assert observations.achieved_offsets is not None
            self._rows.put_ragged("goal", indices, observations.achieved_values, observations.achieved_offsets)

    def _led_to(self, name: str, index: int, count: int) -> Column:
        rows = self._rows.newest(name, index, count + 2)[:-2]
        nothing = np.zeros((count - len(rows), *rows.shape[1:]), rows.dtype)
        return np.concatenate([nothing, rows])
