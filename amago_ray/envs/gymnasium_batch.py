"""`GymnasiumBatch`: E ordinary Gymnasium environments stepped one after the other in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from amago_ray.data.space_specs import read_action_space, read_observation_space
from amago_ray.data.spaces import ActionAdapter, ObservationAdapter, goal_rows
from amago_ray.data.specs import ACHIEVED_GOAL, ACTION_MASK, EnvSpec, space_difference
from amago_ray.envs.columns import Array, ObservationColumns, read_leaves
from amago_ray.envs.declared import declared_goal_rule, declared_horizon, declared_space
from amago_ray.envs.env_batch import EnvEvent, Observations, StepColumns
from amago_ray.envs.failures import FailureBook, Retries, failure_message, is_interrupt
from amago_ray.envs.foreign import ForeignEnv, kept_folder
from amago_ray.envs.hang_watch import HangWatch
from amago_ray.envs.returned import (
    ReturnedError,
    flag,
    info_dict,
    number,
    optional_number,
    picture,
    reset_result,
    step_result,
)
from amago_ray.errors import EnvError, SpaceError

ACHIEVED_GOALS = "achieved_goals"
"""Entry of `info` that overrides the observation's achieved goal: all goals achieved in this row, `[J, goal_dim]`."""
SUCCESS_KEYS = ("is_success", "success")
ATTEMPT_RETURN = "attempt_return"

Env = gymnasium.Env[Any, Any]


class GymnasiumBatch:
    """Wraps environments that one function makes.

    Beside the spaces (see `data.space_specs`) it reads of `info`: `action_mask`; `achieved_goals` `[J, goal_dim]`;
    `is_success` or `success`, reported as event "success" when the episode ends; `attempt_return`, reported at once. An
    attribute `goal_rule` of the unwrapped environment declares the reward rule of its goals, `horizon` its longest
    episode where no time limit is set by a wrapper.

    An environment that raises, exits, returns what has no plain meaning, or takes longer than `step_timeout_s` for a
    step or reset, is made anew by its next reset, after a pause; one that goes on failing is isolated (see `Retries`).
    The failure is reported by the step in which it happened, or, if it was in a reset, by the next one.

    Raises:
        EnvError: an environment cannot be made, or the first reset fails.
        SpaceError: its spaces are not supported.
    """

    def __init__(
        self,
        make: Callable[[], Env],
        num_envs: int,
        *,
        name: str,
        step_timeout_s: float | None = None,
        retries: Retries | None = None,
    ) -> None:
        self._name = name
        self._watch = None if step_timeout_s is None else HangWatch(f"env '{name}'", step_timeout_s)
        self._envs = [ForeignEnv(make, self._watch) for _ in range(num_envs)]
        self._failures = FailureBook(name, num_envs, retries or Retries())
        self.num_envs = num_envs
        self.env_names: Sequence[str] = (name,) * num_envs
        call = "cannot be made"
        try:
            for env in self._envs:
                env.build()
            call = "first reset"
            first = self._envs[0].build()
            self._space = read_observation_space(declared_space(first, "observation_space", name))
            self._observation = ObservationAdapter(self._space.leaves)
            self._action = ActionAdapter(read_action_space(declared_space(first, "action_space", name)))
            self.spec = self._read_spec(first, _reset(self._envs[0], 0)[1])
            for number, other in enumerate(self._envs[1:], 1):
                self._require_alike(number, other.build())
        except BaseException as error:
            self.close()
            if isinstance(error, SpaceError):
                raise SpaceError(f"env '{name}': {error}") from error
            if is_interrupt(error) or (isinstance(error, EnvError) and not isinstance(error, ReturnedError)):
                raise
            raise EnvError(f"env '{name}': {failure_message(error, call)}") from error
        self._columns = ObservationColumns(self.spec, num_envs)

    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Start a new episode in each of `indices`, with a seed each."""
        failed = [index for index in indices.tolist() if self._failures.reset(index)]
        self._failures.pause(failed)
        for index, seed in zip(indices.tolist(), seeds.tolist(), strict=True):
            if self._failures.isolated[index]:
                continue
            try:
                observation, info = _reset(self._envs[index], seed)
                self._put(index, observation, info)
            except BaseException as error:
                self._fail(index, "reset", error)
        return self._columns.rows(indices)

    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Step all environments."""
        rewards = np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        events: dict[int, list[EnvEvent]] = {}
        book = self._failures
        with kept_folder():
            for index, env in enumerate(self._envs):
                if index in book.idle:
                    continue
                action = self._env_action(actions[index])
                try:
                    observation, reward, ended, cut, info = step_result(env.step(action))
                    if type(info) is not dict:
                        info = info_dict("step", info)
                    rewards[index] = number("step: reward", reward)
                    terminated[index] = ended = flag("step: terminated", ended)
                    truncated[index] = cut = flag("step: truncated", cut)
                    if info:
                        events[index] = _events(index, info, ended or cut)
                    self._put(index, observation, info)
                except BaseException as error:
                    self._fail(index, "step", error)
                    continue
                book.stepped(index, ended=ended or cut)
        failures = self._failures.report()
        for failure in failures:
            rewards[failure.index] = terminated[failure.index] = truncated[failure.index] = 0
            events.pop(failure.index, None)
        return StepColumns(
            observations=self._columns.rows(),
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            events=[event for several in events.values() for event in several],
            failures=failures,
            valid=self._failures.usable,
        )

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """An RGB picture of one environment.

        Raises:
            EnvError: the environment was not made with `render_mode="rgb_array"`, or gives no picture.
        """
        try:
            shown: Any = self._envs[index].call(lambda env: env.render() if env.render_mode == "rgb_array" else None)
            if shown is not None:
                return picture(shown)
        except BaseException as error:
            if is_interrupt(error):
                raise
            raise EnvError(f"env '{self._name}': {failure_message(error, 'render')}") from error
        raise EnvError(f"env '{self._name}': renders nothing: expected pictures with render_mode=\"rgb_array\"")

    def close(self) -> None:
        """Close all environments."""
        for env in self._envs:
            env.discard(_close)
        if self._watch is not None:
            self._watch.close()

    def _fail(self, index: int, call: str, error: BaseException) -> None:
        if is_interrupt(error):
            raise error
        self._envs[index].discard(_close)
        self._columns.clear(index)
        self._failures.add(index, call, error)

    def _put(self, index: int, observation: Any, info: Mapping[str, Any]) -> None:
        spec = self.spec
        mask = None
        if spec.has_action_mask:
            mask = info.get(ACTION_MASK) if self._space.mask_size is None else observation[ACTION_MASK]
            mask = None if mask is None else self._action.mask_rows(mask)
        achieved: Array | None = None
        if spec.goal_dim:
            if ACHIEVED_GOALS in info:
                achieved = goal_rows(info[ACHIEVED_GOALS], spec.goal_dim, spec.goal_dtype)
            else:
                shown = observation[ACHIEVED_GOAL] if self._space.has_achieved_goal else ()
                achieved = goal_rows(shown, spec.goal_dim, spec.goal_dtype)
        self._columns.put(index, read_leaves(self._observation, observation), mask, achieved)

    def _env_action(self, stored: Any) -> Any:
        action = self._action.to_space(np.asarray(stored))
        return int(action) if action.ndim == 0 and self.spec.action.kind == "discrete" else action

    def _require_alike(self, number: int, env: Env) -> None:
        """Refuse an environment that shows or takes other things than the first."""
        found = dataclasses.replace(
            self.spec,
            observations=read_observation_space(declared_space(env, "observation_space", self._name)).leaves,
            action=read_action_space(declared_space(env, "action_space", self._name)),
        )
        unlike = space_difference(self.spec, found)
        if unlike:
            raise SpaceError(f"environment {number} is made with other spaces than the first one: {unlike}")

    def _read_spec(self, env: Env, info: Mapping[str, Any]) -> EnvSpec:
        """The spec; the first reset's `info` shows which optional entries there are."""
        space, mask = self._space, info.get(ACTION_MASK)
        if not space.leaves:
            raise EnvError(f"env '{self._name}': observation_space: expected something to see, got an empty Dict")
        if space.mask_size is not None:
            self._action.check_mask_size(space.mask_size)
        elif mask is not None:
            self._action.mask_rows(mask)
        has_goals = space.has_achieved_goal or (space.goal_dim > 0 and ACHIEVED_GOALS in info)
        return EnvSpec(
            name=self._name,
            observations=space.leaves,
            action=self._action.spec,
            horizon=declared_horizon(env, self._name),
            goal_dim=space.goal_dim if has_goals else 0,
            goal_dtype=space.goal_dtype,
            goal_rule=declared_goal_rule(env.unwrapped, self._name, space.goal_dtype) if has_goals else None,
            has_action_mask=space.mask_size is not None or mask is not None,
        )


def _reset(env: ForeignEnv[Env], seed: int) -> tuple[Any, Mapping[str, Any]]:
    return reset_result(env.call(lambda env: env.reset(seed=seed)))


def _close(env: Env) -> None:
    env.close()  # type: ignore[no-untyped-call]


def _events(index: int, info: Mapping[str, Any], ended: bool) -> list[EnvEvent]:
    events = []
    if ATTEMPT_RETURN in info:
        value = optional_number(f"step: info['{ATTEMPT_RETURN}']", info[ATTEMPT_RETURN])
        if value is not None:
            events.append(EnvEvent(index, ATTEMPT_RETURN, value))
    if ended:
        key = next((key for key in SUCCESS_KEYS if key in info), None)
        value = None if key is None else optional_number(f"step: info['{key}']", info[key])
        if value is not None:
            events.append(EnvEvent(index, "success", value))
    return events
