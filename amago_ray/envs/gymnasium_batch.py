"""`GymnasiumBatch`: E ordinary Gymnasium environments stepped one after the other in this process."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from amago_ray.data.goal_rule import GoalRule
from amago_ray.data.space_specs import read_action_space, read_observation_space
from amago_ray.data.spaces import ActionAdapter, ObservationAdapter, goal_rows
from amago_ray.data.specs import ACHIEVED_GOAL, ACTION_MASK, EnvSpec
from amago_ray.envs.columns import Array, ObservationColumns
from amago_ray.envs.env_batch import EnvEvent, EnvFailure, Observations, StepColumns
from amago_ray.envs.watchdog import HungError, Watchdog
from amago_ray.errors import EnvError

ACHIEVED_GOALS = "achieved_goals"
"""Entry of `info` that overrides the observation's achieved goal: all goals achieved in this row, `[A, goal_dim]`."""
SUCCESS_KEYS = ("is_success", "success")
ATTEMPT_RETURN = "attempt_return"

_MAX_FAILURES_IN_A_ROW = 8
_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 0.05, 2.0

Env = gymnasium.Env[Any, Any]
_log = logging.getLogger(__name__)


class GymnasiumBatch:
    """Wraps environments that one function makes.

    Beside the spaces (see `data.space_specs`) it reads of `info`: `action_mask`; `achieved_goals` `[A, goal_dim]`;
    `is_success` or `success`, reported as event "success" when the episode ends; `attempt_return`, reported at once. An
    attribute `goal_rule` of the unwrapped environment declares the reward rule of its goals, `horizon` its longest
    episode where no time limit is set by a wrapper.

    An environment that raises, or takes longer than `step_timeout_s` for a step or reset, is closed and made anew,
    after a pause that doubles with each failure in a row; the failure is reported by the step in which it happened,
    or, if it was in a reset, by the next one. Its traceback is logged once per kind.

    Raises:
        EnvError: the first environment cannot be made, or one failed too often in a row.
        SpaceError: its spaces are not supported.
    """

    def __init__(
        self, make: Callable[[], Env], num_envs: int, *, name: str, step_timeout_s: float | None = None
    ) -> None:
        self._make = make
        self._name = name
        self._step_timeout_s = step_timeout_s
        self._envs: list[Env | None] = [None] * num_envs
        self._watchdogs: list[Watchdog | None] = [None] * num_envs
        self._failures_in_a_row = [0] * num_envs
        self._broken: dict[int, str] = {}
        self._kinds_logged: set[str] = set()
        self.num_envs = num_envs
        self.env_names: Sequence[str] = (name,) * num_envs
        for index in range(num_envs):
            try:
                self._build(index)
            except Exception as error:
                self.close()
                raise EnvError(f"env '{name}': cannot be made: {_one_line(error)}") from error
        env = self._envs[0]
        assert env is not None
        self._space = read_observation_space(env.observation_space)
        self._observation = ObservationAdapter(self._space.leaves)
        self._action = ActionAdapter(read_action_space(env.action_space))
        self.spec = self._read_spec(env)
        self._columns = ObservationColumns(self.spec, num_envs)

    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Start a new episode in each of `indices`, with a seed each."""
        for index, seed in zip(indices.tolist(), seeds.tolist(), strict=True):
            self._broken.pop(index, None)
            try:
                env = self._envs[index]
                if env is None:
                    env = self._build(index)
                observation, info = self._call(index, partial(env.reset, seed=seed))
                self._put(index, observation, info)
            except Exception as error:
                self._fail(index, error)
        return self._columns.rows(indices)

    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Step all environments."""
        rewards = np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros((2, self.num_envs), np.bool_)
        events: list[EnvEvent] = []
        for index in range(self.num_envs):
            env = self._envs[index]
            if index in self._broken or env is None:
                continue
            action = self._env_action(actions[index])
            try:
                observation, reward, ended, cut, info = self._call(index, partial(env.step, action))
                self._put(index, observation, info)
            except Exception as error:
                self._fail(index, error)
                continue
            self._failures_in_a_row[index] = 0
            rewards[index], terminated[index], truncated[index] = reward, ended, cut
            if info:
                events += _events(index, info, bool(ended or cut))
        failures = [EnvFailure(index, self._broken[index]) for index in sorted(self._broken)]
        return StepColumns(self._columns.rows(), rewards, terminated, truncated, events, failures)

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """An RGB picture of one environment.

        Raises:
            EnvError: the environment was not made with `render_mode="rgb_array"`, or gives no picture.
        """
        env = self._envs[index]
        picture = env.render() if env is not None and env.render_mode == "rgb_array" else None
        if not isinstance(picture, np.ndarray):
            raise EnvError(f"env '{self._name}': renders nothing; give it kwargs render_mode: rgb_array")
        return picture

    def close(self) -> None:
        """Close all environments."""
        for index in range(self.num_envs):
            self._discard(index)

    def _build(self, index: int) -> Env:
        if self._step_timeout_s is not None:
            self._watchdogs[index] = Watchdog(self._step_timeout_s)
        env = self._envs[index] = self._make()
        return env

    def _discard(self, index: int) -> None:
        env, watchdog = self._envs[index], self._watchdogs[index]
        self._envs[index] = self._watchdogs[index] = None
        if watchdog is not None:
            watchdog.close()
        if env is not None:
            with suppress(Exception):
                env.close()  # type: ignore[no-untyped-call]

    def _call(self, index: int, function: Callable[[], Any]) -> Any:
        watchdog = self._watchdogs[index]
        return function() if watchdog is None else watchdog.call(function)

    def _fail(self, index: int, error: Exception) -> None:
        text = "".join(traceback.format_exception(error))
        kind = _kind(error)
        if kind not in self._kinds_logged:
            self._kinds_logged.add(kind)
            _log.error("env '%s' failed and is made anew (logged once per kind):\n%s", self._name, text)
        self._broken[index] = text
        if isinstance(error, HungError):
            # Closing it could hang as well.
            self._envs[index] = None
        self._discard(index)
        failures = self._failures_in_a_row[index] = self._failures_in_a_row[index] + 1
        if failures >= _MAX_FAILURES_IN_A_ROW:
            raise EnvError(
                f"env '{self._name}': failed {failures} times in a row, last with {_one_line(error)}"
            ) from error
        time.sleep(min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (failures - 1)))

    def _put(self, index: int, observation: Any, info: dict[str, Any]) -> None:
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
        self._columns.put(index, self._observation.rows(observation), mask, achieved)

    def _env_action(self, stored: Any) -> Any:
        action = self._action.to_space(np.asarray(stored))
        return int(action) if action.ndim == 0 and self.spec.action.kind == "discrete" else action

    def _read_spec(self, env: Env) -> EnvSpec:
        """The spec, after one reset that shows which optional entries of `info` there are."""
        try:
            _, info = self._call(0, partial(env.reset, seed=0))
        except Exception as error:
            self.close()
            raise EnvError(f"env '{self._name}': first reset raised {_one_line(error)}") from error
        space = self._space
        if space.mask_size is not None:
            self._action.check_mask_size(space.mask_size)
        elif ACTION_MASK in info:
            self._action.check_mask_size(np.asarray(info[ACTION_MASK]).size)
        has_goals = space.has_achieved_goal or (space.goal_dim > 0 and ACHIEVED_GOALS in info)
        return EnvSpec(
            name=self._name,
            observations=space.leaves,
            action=self._action.spec,
            horizon=_horizon(env),
            goal_dim=space.goal_dim if has_goals else 0,
            goal_dtype=space.goal_dtype,
            goal_rule=goal_rule(env.unwrapped, self._name, space.goal_dtype) if has_goals else None,
            has_action_mask=space.mask_size is not None or ACTION_MASK in info,
        )


def goal_rule(env: object, name: str, goal_dtype: str) -> GoalRule | None:
    """The rule that an environment declares as its attribute `goal_rule`, if it declares one.

    Raises:
        EnvError: it is not a `GoalRule`, or its marker is no value of the goals' dtype.
    """
    rule = getattr(env, "goal_rule", None)
    if rule is None:
        return None
    if not isinstance(rule, GoalRule):
        raise EnvError(f"env '{name}': goal_rule: expected a GoalRule, got {type(rule).__name__}")
    if rule.marker is not None and np.dtype(goal_dtype).kind in "iu":
        limits = np.iinfo(goal_dtype)
        if not (limits.min <= rule.marker <= limits.max and rule.marker == int(rule.marker)):
            raise EnvError(f"env '{name}': goal_rule: marker {rule.marker} is no value of goals of dtype {goal_dtype}")
    return rule


def _horizon(env: Env) -> int | None:
    """The time limit of a wrapper or of the registration, else the environment's own attribute `horizon`."""
    limits = [env.spec.max_episode_steps] if env.spec is not None and env.spec.max_episode_steps is not None else []
    inner: Env = env
    while isinstance(inner, gymnasium.Wrapper):
        if isinstance(inner, gymnasium.wrappers.TimeLimit):
            limits.append(inner._max_episode_steps)
        inner = inner.env
    own = getattr(inner, "horizon", None)
    if isinstance(own, int):
        limits.append(own)
    return min(limits, default=None)


def _events(index: int, info: dict[str, Any], ended: bool) -> list[EnvEvent]:
    events = []
    if ATTEMPT_RETURN in info:
        events.append(EnvEvent(index, ATTEMPT_RETURN, float(info[ATTEMPT_RETURN])))
    if ended:
        events += [EnvEvent(index, "success", float(info[key])) for key in SUCCESS_KEYS if key in info][:1]
    return events


def _kind(error: Exception) -> str:
    """Names a failure by its class and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__qualname__} {frames[-1].filename}:{frames[-1].lineno}" if frames else repr(error)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
