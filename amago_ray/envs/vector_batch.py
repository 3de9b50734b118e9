"""`VectorBatch`: a native vector environment, whatever its reset mode, behind the `EnvBatch` protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from amago_ray.data.space_specs import read_action_space, read_observation_space
from amago_ray.data.spaces import ActionAdapter, ObservationAdapter, goal_rows
from amago_ray.data.specs import ACHIEVED_GOAL, ACTION_MASK, EnvSpec
from amago_ray.envs.columns import Array, ObservationColumns, read_leaves
from amago_ray.envs.declared import declared_autoreset_mode, declared_goal_rule, declared_horizon, declared_space
from amago_ray.envs.env_batch import Observations, StepColumns
from amago_ray.envs.failures import FailureBook, Retries, failure_message, is_interrupt
from amago_ray.envs.foreign import ForeignEnv, kept_folder
from amago_ray.envs.hang_watch import HangWatch
from amago_ray.envs.returned import (
    ReturnedError,
    flags,
    info_dict,
    numbers,
    picture,
    reset_result,
    step_result,
)
from amago_ray.envs.vector_events import info_entry, vector_events
from amago_ray.errors import EnvError, SpaceError

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

    Action masks are part of the observation space or columns of infos, `infos["action_mask"]` `[E, mask_size]`.

    Where it raises, hangs or exits, all its environments have failed, and it is made anew. What it returns of one
    environment and has no plain meaning is a failure of that one: its episode is given up, under the last two modes by
    looking away until it ends. One that goes on failing is isolated (see `Retries`).

    Raises:
        EnvError: it cannot be made, or no reset mode is declared, in `metadata["autoreset_mode"]` or by
            `autoreset_mode`.
        SpaceError: its spaces are not supported.
    """

    def __init__(
        self,
        make: Callable[[], Vector],
        *,
        name: str,
        autoreset_mode: str | None = None,
        step_timeout_s: float | None = None,
        retries: Retries | None = None,
    ) -> None:
        self._watch = None if step_timeout_s is None else HangWatch(f"env '{name}'", step_timeout_s)
        self._env = ForeignEnv(make, self._watch)
        self._name = name
        call = "cannot be made"
        try:
            env = self._env.build()
            self._mode = declared_autoreset_mode(env, name, autoreset_mode)
            self._takes_seeds = isinstance(env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
            self._resets_by_mask = self._takes_seeds or self._mode is AutoresetMode.DISABLED
            self._space = read_observation_space(declared_space(env, "single_observation_space", name))
            self._observation = ObservationAdapter(self._space.leaves)
            self._action = ActionAdapter(read_action_space(declared_space(env, "single_action_space", name)))
            self.num_envs = env.num_envs
            call = "first reset"
            self.spec = self._read_spec(env, reset_result(self._env.call(lambda env: env.reset(seed=0)))[1])
        except BaseException as error:
            self.close()
            if isinstance(error, SpaceError):
                raise SpaceError(f"env '{name}': {error}") from error
            if is_interrupt(error) or (isinstance(error, EnvError) and not isinstance(error, ReturnedError)):
                raise
            raise EnvError(f"env '{name}': {failure_message(error, call)}") from error
        self.env_names: Sequence[str] = (name,) * self.num_envs
        self._failures = FailureBook(name, self.num_envs, retries or Retries())
        self._shown = ObservationColumns(self.spec, self.num_envs)
        self._kept = ObservationColumns(self.spec, self.num_envs)
        self._started = False
        none = np.zeros(self.num_envs, np.bool_)
        # Of the two modes that reset by themselves: whose first observation is kept, whose is yet to come, and whose
        # episode still runs though it was given up.
        self._is_kept, self._is_pending, self._is_given_up = none.copy(), none.copy(), none.copy()
        self._is_over = none.copy()

    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Start a new episode in each of `indices`; which seeds are heeded is said above.

        Raises:
            EnvError: a running episode is to be given up alone, which this environment cannot do.
        """
        failed = [index for index in indices.tolist() if self._failures.reset(index)]
        self._failures.pause(failed)
        if not self._failures.isolated.all():
            try:
                self._begin(indices, seeds)
            except BaseException as error:
                self._fail_all("reset", error)
                return self._shown.rows(indices)
        running = ~(self._is_kept | self._is_pending)
        failed += [index for index in indices.tolist() if self._failures.is_open(index)]
        self._is_given_up[failed] = running[failed]
        stuck = indices[(running & ~self._is_given_up & ~self._failures.isolated)[indices]]
        if len(stuck):
            raise EnvError(
                f"env '{self._name}': environment {stuck[0]} cannot be reset alone in mode {self._mode.value} while "
                "its episode runs; limit episodes in the environment itself"
            )
        for index in indices[self._is_kept[indices]].tolist():
            _copy_row(self._kept, self._shown, index)
        self._is_kept[indices] = False
        return self._shown.rows(indices)

    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Step all environments."""
        if not self._started or self._failures.isolated.all():
            return self._nothing()
        taken = self._action.to_space(np.asarray(actions))
        try:
            with kept_folder():
                entries = step_result(self._env.step(taken))
            rewards, reward_errors = numbers("step: rewards", entries[1], self.num_envs)
            terminated, terminated_errors = flags("step: terminated", entries[2], self.num_envs)
            truncated, truncated_errors = flags("step: truncated", entries[3], self.num_envs)
            infos = info_dict("step", entries[4])
            observation_errors = self._show(self._shown, "step", entries[0], infos)
        except BaseException as error:
            self._fail_all("step", error)
            return self._nothing()
        errors: dict[int, EnvError] = {**truncated_errors, **terminated_errors, **reward_errors}
        skipped = self._is_pending
        ended = (terminated | truncated) & ~skipped
        final_infos: Any = infos
        if self._mode is AutoresetMode.SAME_STEP and ended.any():
            final_infos = infos.get("final_info", {})
            for index in np.flatnonzero(ended).tolist():
                _copy_row(self._shown, self._kept, index)
                try:
                    self._show_final(index, infos.get("final_obs"), final_infos)
                except EnvError as error:
                    errors[index] = error
        for index in np.flatnonzero(skipped).tolist():
            _copy_row(self._shown, self._kept, index)
        self._is_over = ended
        self._is_kept = skipped | (ended if self._mode is AutoresetMode.SAME_STEP else False)
        self._is_pending = ended if self._mode is AutoresetMode.NEXT_STEP else np.zeros_like(ended)
        valid = ~(skipped | self._is_given_up | self._failures.isolated)
        self._is_given_up &= ~ended
        events, event_errors = vector_events(infos, final_infos, valid, ended)
        first = {index: wrong for index, wrong in observation_errors.items() if self._is_kept[index]}
        errors = {**observation_errors, **event_errors, **errors}
        self._fail_some("step", {index: errors[index] for index in errors if valid[index] and index not in first})
        self._fail_first(first)
        failures = self._failures.report()
        for failure in failures:
            valid[failure.index] = False
        for index in np.flatnonzero(valid).tolist():
            self._failures.stepped(index, ended=bool(ended[index]))
        return StepColumns(
            observations=self._shown.rows(),
            rewards=np.where(valid, rewards, 0).astype(np.float32),
            terminated=terminated & valid,
            truncated=truncated & valid,
            events=[event for event in events if valid[event.index]],
            failures=failures,
            valid=valid,
        )

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """An RGB picture of one environment.

        Raises:
            EnvError: the environment gives no pictures.
        """
        try:
            shown: Any = self._env.call(lambda env: env.render() if env.render_mode == "rgb_array" else None)
            if shown is not None and len(shown) > index:
                return picture(shown[index])
        except BaseException as error:
            if is_interrupt(error):
                raise
            raise EnvError(f"env '{self._name}': {failure_message(error, 'render')}") from error
        raise EnvError(f"env '{self._name}': renders nothing: expected pictures with render_mode=\"rgb_array\"")

    def close(self) -> None:
        """Close the vector environment."""
        self._env.discard(_close)
        if self._watch is not None:
            self._watch.close()

    def _read_spec(self, env: Vector, infos: Mapping[str, Any]) -> EnvSpec:
        """The spec; a reset's `infos` show whether they hold action masks."""
        name, space, mask = self._name, self._space, infos.get(ACTION_MASK)
        if not space.leaves:
            raise EnvError(f"env '{name}': single_observation_space: expected something to see, got an empty Dict")
        if space.mask_size is not None:
            self._action.check_mask_size(space.mask_size)
        elif mask is not None:
            self._mask("first reset", None, infos, 0)
        has_goals = space.has_achieved_goal
        return EnvSpec(
            name=name,
            observations=space.leaves,
            action=self._action.spec,
            horizon=declared_horizon(env, name),
            goal_dim=space.goal_dim if has_goals else 0,
            goal_dtype=space.goal_dtype,
            goal_rule=declared_goal_rule(env.unwrapped, name, space.goal_dtype) if has_goals else None,
            has_action_mask=space.mask_size is not None or mask is not None,
        )

    def _begin(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> None:
        """Pass a reset on to the environment, where it is one that can be."""
        everything_anew = len(indices) == self.num_envs and (self._resets_by_mask or not self._is_kept.all())
        if everything_anew or not self._started:
            self._reset_all(indices, seeds)
            return
        # An isolated one is reset only where it could not be stepped otherwise.
        chosen = ~self._failures.isolated[indices] | self._is_over[indices]
        if self._resets_by_mask and chosen.any():
            self._reset_some(indices[chosen], seeds[chosen])

    def _reset_all(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> None:
        """Reset all; those not asked for (before the very first step only) get seeds next to the first one."""
        all_seeds = (int(seeds[0]) + 1 + np.arange(self.num_envs)) % 2**31
        all_seeds[indices] = seeds
        seed_or_seeds: Any = all_seeds.tolist() if self._takes_seeds else int(all_seeds[0])
        observations, infos = reset_result(self._env.call(lambda env: env.reset(seed=seed_or_seeds)))
        errors = self._show(self._kept, "reset", observations, infos)
        self._is_kept[:] = True
        self._is_pending[:] = self._is_given_up[:] = False
        self._started = True
        self._fail_first(errors)

    def _reset_some(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> None:
        mask = np.zeros(self.num_envs, np.bool_)
        mask[indices] = True
        some_seeds: list[int | None] = [None] * self.num_envs
        for index, seed in zip(indices.tolist(), seeds.tolist(), strict=True):
            some_seeds[index] = seed
        seed_or_seeds: Any = some_seeds if self._takes_seeds else int(seeds[0])
        options = {"reset_mask": mask}
        observations, infos = reset_result(self._env.call(lambda env: env.reset(seed=seed_or_seeds, options=options)))
        errors = self._show(self._kept, "reset", observations, infos)
        self._is_kept[indices] = True
        self._is_pending[indices] = self._is_given_up[indices] = False
        self._fail_first({index: error for index, error in errors.items() if mask[index]})

    def _fail_all(self, call: str, error: BaseException) -> None:
        """The whole environment failed: give it up, the next reset makes it anew."""
        if is_interrupt(error):
            raise error
        self._env.discard(_close)
        self._started = False
        for index in np.flatnonzero(~self._failures.isolated).tolist():
            self._shown.clear(index)
            self._failures.add(index, call, error)

    def _fail_some(self, call: str, errors: Mapping[int, EnvError]) -> None:
        for index, error in errors.items():
            if not self._failures.isolated[index]:
                self._shown.clear(index)
                self._failures.add(index, call, error)

    def _fail_first(self, errors: Mapping[int, EnvError]) -> None:
        """The first observations of new episodes, which are kept for the next reset, are of no use."""
        self._is_kept[list(errors)] = False
        self._fail_some("reset", errors)

    def _nothing(self) -> StepColumns:
        """The columns of a step that did not take place."""
        zeros = np.zeros(self.num_envs, np.bool_)
        return StepColumns(
            observations=self._shown.rows(),
            rewards=np.zeros(self.num_envs, np.float32),
            terminated=zeros,
            truncated=zeros,
            failures=self._failures.report(),
            valid=zeros,
        )

    def _show(
        self, columns: ObservationColumns, call: str, observations: Any, infos: Mapping[str, Any]
    ) -> dict[int, EnvError]:
        """Copy in all observations; by index, what is wrong with those of some.

        Raises:
            EnvError: none of them is right.
        """
        try:
            self._put_all(columns, call, observations, infos)
            return {}
        except Exception as error:
            wrong = error
        errors: dict[int, EnvError] = {}
        try:
            for index in range(self.num_envs):
                single = _row(observations, index)
                try:
                    self._put_one(columns, index, call, single, infos)
                except EnvError as error:
                    errors[index] = error
        except Exception as error:
            raise _as_env_error(f"{call}: observations", observations, wrong) from error
        if len(errors) in (0, self.num_envs):
            raise _as_env_error(f"{call}: observations", observations, wrong)
        return errors

    def _put_all(self, columns: ObservationColumns, call: str, observations: Any, infos: Any) -> None:
        for name, rows in self._observation.rows(observations, self.num_envs).items():
            columns.leaves[name][:] = rows
        if self._space.mask_size is not None:
            masks = self._action.mask_rows(observations[ACTION_MASK], self.num_envs)
            for index, mask in enumerate(masks):
                columns.put(index, {}, mask, None)
        elif columns.action_mask is not None:
            for index in range(self.num_envs):
                columns.put(index, {}, self._mask(call, None, infos, index), None)
        if columns.achieved is not None:
            columns.achieved[:] = [self._goals(row).copy() for row in observations[ACHIEVED_GOAL]]

    def _put_one(self, columns: ObservationColumns, index: int, call: str, observation: Any, infos: Any) -> None:
        achieved = None if columns.achieved is None else self._goals(observation[ACHIEVED_GOAL])
        mask = None if columns.action_mask is None else self._mask(call, observation, infos, index)
        columns.put(index, read_leaves(self._observation, observation), mask, achieved)

    def _mask(self, call: str, observation: Any, infos: Any, index: int) -> npt.NDArray[np.bool_] | None:
        if self._space.mask_size is not None:
            return self._action.mask_rows(observation[ACTION_MASK])
        mask = info_entry(call, infos, ACTION_MASK, index)
        return None if mask is None else self._action.mask_rows(mask)

    def _goals(self, achieved: Any) -> Array:
        return goal_rows(achieved, self.spec.goal_dim, self.spec.goal_dtype)

    def _show_final(self, index: int, final: Any, infos: Any) -> None:
        if final is None:
            raise EnvError(
                f"an episode ended in mode {self._mode.value} without infos['final_obs'], so its true final "
                "observation is lost"
            )
        try:
            # Gymnasium gives an array of objects, one observation each; others give columns.
            single = final[index] if isinstance(final, np.ndarray) and final.dtype == object else _row(final, index)
            self._put_one(self._shown, index, "step", single, infos)
        except Exception as error:
            raise _as_env_error("step: infos['final_obs']", final, error) from error


def _close(env: Vector) -> None:
    env.close()


def _as_env_error(place: str, found: Any, error: Exception) -> EnvError:
    """What says that observations are no ones of their space."""
    return error if isinstance(error, EnvError) else ReturnedError(place, "those of the observation space", found)


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
