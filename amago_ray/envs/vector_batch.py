"""`VectorBatch`: a native vector environment, whatever its reset mode, behind the `EnvBatch` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from amago_ray.data.space_specs import read_action_space, read_observation_space
from amago_ray.data.spaces import ActionAdapter, ObservationAdapter, goal_rows
from amago_ray.data.specs import ACHIEVED_GOAL, ACTION_MASK, EnvSpec
from amago_ray.envs.columns import Array, ObservationColumns
from amago_ray.envs.env_batch import EnvEvent, Observations, StepColumns
from amago_ray.envs.gymnasium_batch import ATTEMPT_RETURN, SUCCESS_KEYS, goal_rule
from amago_ray.errors import EnvError

Vector = VectorEnv[Any, Any, Any]


class VectorBatch:
    """Gives the caller the resets that a vector environment does in its own way. No transition crosses episodes.

    A reset of all environments is passed on, unless they all have just reset themselves. Otherwise the mode decides:

    DISABLED   passed on as `reset(options={"reset_mask": ...})`.
    SAME_STEP  the step that ended the episode has returned the next one's first observation; it is kept, the step
               shows the true final one (`infos["final_obs"]`), and `reset` hands out what was kept.
    NEXT_STEP  the environment resets itself in the next step, while the others move on: `reset` can only repeat the
               final observation, the next step reports the environment as not `valid`, and the `reset` that follows
               hands out the first observation that this step returned. That step is no transition of it.

    Under the last two, later episodes draw on the environment's own random stream, and a running episode cannot be
    given up alone. A reset that is passed on seeds the whole environment with the first seed, as native ones take one
    number. Gymnasium's own SyncVectorEnv and AsyncVectorEnv take a seed each and know reset masks in every mode: they
    are always reset like DISABLED, and heed every seed. Ragged achieved goals do not fit vector infos and are not read.
    Gymnasium's SAME_STEP keeps a reference to the final observation: there, an environment that reuses its buffer has
    overwritten it before anyone outside can copy it.

    Raises:
        EnvError: no reset mode is declared, in `metadata["autoreset_mode"]` or by `autoreset_mode`.
        SpaceError: its spaces are not supported.
    """

    def __init__(self, env: Vector, *, name: str, autoreset_mode: str | None = None) -> None:
        self._env = env
        self._name = name
        self._mode = _declared_mode(env, name, autoreset_mode)
        self._takes_seeds = isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
        self._resets_by_mask = self._takes_seeds or self._mode is AutoresetMode.DISABLED
        space = read_observation_space(env.single_observation_space)
        self._observation = ObservationAdapter(space.leaves)
        self._action = ActionAdapter(read_action_space(env.single_action_space))
        if space.mask_size is not None:
            self._action.check_mask_size(space.mask_size)
        self.num_envs = env.num_envs
        self.env_names: Sequence[str] = (name,) * self.num_envs
        has_goals = space.has_achieved_goal
        horizon = env.spec.max_episode_steps if env.spec is not None else getattr(env.unwrapped, "horizon", None)
        self.spec = EnvSpec(
            name=name,
            observations=space.leaves,
            action=self._action.spec,
            horizon=horizon,
            goal_dim=space.goal_dim if has_goals else 0,
            goal_dtype=space.goal_dtype,
            goal_rule=goal_rule(env.unwrapped, name, space.goal_dtype) if has_goals else None,
            has_action_mask=space.mask_size is not None,
        )
        self._shown = ObservationColumns(self.spec, self.num_envs)
        self._kept = ObservationColumns(self.spec, self.num_envs)
        self._started = False
        # Of the two modes that reset by themselves: whose first observation is kept, and whose is yet to come.
        self._is_kept = np.zeros(self.num_envs, np.bool_)
        self._is_pending = np.zeros(self.num_envs, np.bool_)

    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Start a new episode in each of `indices`; which seeds are heeded is said above.

        Raises:
            EnvError: a running episode is to be given up alone, which this environment cannot do.
        """
        everything_anew = len(indices) == self.num_envs and (self._resets_by_mask or not self._is_kept.all())
        if everything_anew or not self._started:
            self._reset_all(indices, seeds)
        elif self._resets_by_mask:
            self._reset_some(indices, seeds)
        running = ~(self._is_kept | self._is_pending)
        if running[indices].any():
            stuck = int(indices[running[indices]][0])
            raise EnvError(
                f"env '{self._name}': environment {stuck} cannot be reset alone in mode {self._mode.value} while its "
                "episode runs; limit episodes in the environment itself"
            )
        for index in indices[self._is_kept[indices]].tolist():
            _copy_row(self._kept, self._shown, index)
        self._is_kept[indices] = False
        return self._shown.rows(indices)

    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Step all environments."""
        observations, rewards, terminated, truncated, infos = self._env.step(self._action.to_space(np.asarray(actions)))
        skipped = self._is_pending
        ended = np.asarray(terminated, np.bool_) | np.asarray(truncated, np.bool_)
        self._show(self._shown, observations)
        final_infos = infos
        if self._mode is AutoresetMode.SAME_STEP and ended.any():
            for index in np.flatnonzero(ended).tolist():
                _copy_row(self._shown, self._kept, index)
                self._show_final(index, infos)
            final_infos = infos.get("final_info", {})
        for index in np.flatnonzero(skipped).tolist():
            _copy_row(self._shown, self._kept, index)
        ends_itself = ended & ~skipped
        self._is_kept = skipped | (ends_itself if self._mode is AutoresetMode.SAME_STEP else False)
        self._is_pending = ends_itself if self._mode is AutoresetMode.NEXT_STEP else np.zeros_like(ended)
        return StepColumns(
            observations=self._shown.rows(),
            rewards=np.where(skipped, 0, rewards).astype(np.float32),
            terminated=np.asarray(terminated, np.bool_) & ~skipped,
            truncated=np.asarray(truncated, np.bool_) & ~skipped,
            events=_events(infos, final_infos, ends_itself),
            valid=~skipped,
        )

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """An RGB picture of one environment.

        Raises:
            EnvError: the environment gives no pictures.
        """
        pictures: Any = self._env.render() if self._env.render_mode == "rgb_array" else None
        if not pictures or not isinstance(pictures[index], np.ndarray):
            raise EnvError(f"env '{self._name}': renders nothing; give it kwargs render_mode: rgb_array")
        return np.asarray(pictures[index], np.uint8)

    def close(self) -> None:
        """Close the vector environment."""
        self._env.close()

    def _reset_all(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> None:
        """Reset all; those not asked for (before the very first step only) get seeds next to the first one."""
        all_seeds = (int(seeds[0]) + 1 + np.arange(self.num_envs)) % 2**31
        all_seeds[indices] = seeds
        seed_or_seeds: Any = all_seeds.tolist() if self._takes_seeds else int(all_seeds[0])
        observations, _ = self._env.reset(seed=seed_or_seeds)
        self._show(self._kept, observations)
        self._is_kept[:] = True
        self._is_pending[:] = False
        self._started = True

    def _reset_some(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> None:
        mask = np.zeros(self.num_envs, np.bool_)
        mask[indices] = True
        some_seeds: list[int | None] = [None] * self.num_envs
        for index, seed in zip(indices.tolist(), seeds.tolist(), strict=True):
            some_seeds[index] = seed
        seed_or_seeds: Any = some_seeds if self._takes_seeds else int(seeds[0])
        observations, _ = self._env.reset(seed=seed_or_seeds, options={"reset_mask": mask})
        self._show(self._kept, observations)
        self._is_kept[indices] = True
        self._is_pending[indices] = False

    def _show(self, columns: ObservationColumns, observations: Any) -> None:
        for name, rows in self._observation.rows(observations, self.num_envs).items():
            columns.leaves[name][:] = rows
        if columns.action_mask is not None:
            columns.action_mask[:] = self._action.mask_rows(observations[ACTION_MASK], self.num_envs)
        if columns.achieved is not None:
            columns.achieved[:] = [self._goals(row).copy() for row in observations[ACHIEVED_GOAL]]

    def _goals(self, achieved: Any) -> Array:
        return goal_rows(achieved, self.spec.goal_dim, self.spec.goal_dtype)

    def _show_final(self, index: int, infos: dict[str, Any]) -> None:
        final = infos.get("final_obs")
        if final is None:
            raise EnvError(
                f"env '{self._name}': an episode ended in mode {self._mode.value} without infos['final_obs'], "
                "so its true final observation is lost"
            )
        # Gymnasium gives an array of objects, one observation each; others give columns.
        single = final[index] if isinstance(final, np.ndarray) and final.dtype == object else _row(final, index)
        achieved: Array | None = None
        if self._shown.achieved is not None:
            achieved = self._goals(single[ACHIEVED_GOAL])
        mask = self._action.mask_rows(single[ACTION_MASK]) if self._shown.action_mask is not None else None
        self._shown.put(index, self._observation.rows(single), mask, achieved)


def _declared_mode(env: Vector, name: str, autoreset_mode: str | None) -> AutoresetMode:
    own = isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
    # Gymnasium's own write their mode into the metadata of the environment's class, which others share.
    declared = env.unwrapped.autoreset_mode if own else env.metadata.get("autoreset_mode")
    asked = None if autoreset_mode is None else AutoresetMode[autoreset_mode.upper()]
    if isinstance(declared, AutoresetMode):
        if asked is not None and asked is not declared:
            raise EnvError(f"env '{name}': autoreset_mode: expected {declared.name.lower()}, got {autoreset_mode}")
        return declared
    if asked is None:
        raise EnvError(
            f"env '{name}': a vector environment must say how it resets: expected metadata['autoreset_mode'] or the "
            f"setting autoreset_mode (next_step, same_step or disabled), got {declared!r}"
        )
    return asked


def _row(observations: Any, index: int) -> Any:
    if isinstance(observations, dict):
        return {key: _row(value, index) for key, value in observations.items()}
    if isinstance(observations, tuple):
        return tuple(_row(value, index) for value in observations)
    return observations[index]


def _copy_row(source: ObservationColumns, target: ObservationColumns, index: int) -> None:
    for name, column in source.leaves.items():
        target.leaves[name][index] = column[index]
    if source.action_mask is not None and target.action_mask is not None:
        target.action_mask[index] = source.action_mask[index]
    if source.achieved is not None and target.achieved is not None:
        target.achieved[index] = source.achieved[index]


def _events(infos: dict[str, Any], final_infos: dict[str, Any], ended: npt.NDArray[np.bool_]) -> list[EnvEvent]:
    events = _read(infos, ATTEMPT_RETURN, ATTEMPT_RETURN, np.ones_like(ended))
    if final_infos is not infos:
        events += _read(final_infos, ATTEMPT_RETURN, ATTEMPT_RETURN, ended)
    for key in SUCCESS_KEYS:
        found = _read(final_infos, key, "success", ended)
        if found:
            return events + found
    return events


def _read(infos: dict[str, Any], key: str, name: str, wanted: npt.NDArray[np.bool_]) -> list[EnvEvent]:
    if key not in infos:
        return []
    present = wanted & np.asarray(infos.get(f"_{key}", np.ones_like(wanted)), np.bool_)
    return [EnvEvent(index, name, float(infos[key][index])) for index in np.flatnonzero(present).tolist()]
