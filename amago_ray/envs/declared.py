"""What environments declare beside their spaces' contents: the spaces themselves, horizon, goal rule, reset mode."""

from __future__ import annotations

import math
import numbers
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from amago_ray.data.goal_rule import GoalRule
from amago_ray.envs.returned import describe
from amago_ray.errors import EnvError, error_line

Space = gymnasium.Space[Any]


def declared_space(env: object, attribute: str, name: str) -> Space:
    """The space that an environment has as this attribute, from its construction on.

    Raises:
        EnvError: it has none, or something else.
    """
    try:
        space = getattr(env, attribute, None)
    except Exception as error:
        raise EnvError(f"env '{name}': {attribute}: cannot be read: {error_line(error)}") from error
    if isinstance(space, gymnasium.Space):
        return space
    if space is None:
        found = "none: it must be there when the environment is made"
    else:
        found = "a method" if callable(space) else describe(space)
        if type(space).__module__.partition(".")[0] == "gym":
            found = f"{type(space).__name__} of the package gym, which Gymnasium has replaced"
    raise EnvError(f"env '{name}': {attribute}: expected a space of Gymnasium, got {found}")


def declared_horizon(env: object, name: str) -> int | None:
    """The longest episode: of the time limits of registration and wrappers and the attribute `horizon` the shortest.

    Raises:
        EnvError: one is no positive integer.
    """
    limits = []
    spec = getattr(env, "spec", None)
    if spec is not None:
        limits.append(_steps("max_episode_steps", spec.max_episode_steps, name))
    inner: Any = env
    while isinstance(inner, gymnasium.Wrapper):
        if isinstance(inner, gymnasium.wrappers.TimeLimit):
            limits.append(_steps("max_episode_steps", inner._max_episode_steps, name))
        inner = inner.env
    inner = getattr(inner, "unwrapped", inner)
    limits.append(_steps("horizon", getattr(inner, "horizon", None), name))
    return min((limit for limit in limits if limit is not None), default=None)


def declared_goal_rule(env: object, name: str, goal_dtype: str) -> GoalRule | None:
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


def declared_autoreset_mode(env: VectorEnv[Any, Any, Any], name: str, autoreset_mode: str | None) -> AutoresetMode:
    """How a vector environment resets: what it declares, or else the setting `autoreset_mode`.

    Raises:
        EnvError: neither says so, or they differ.
    """
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


def _steps(what: str, value: Any, name: str) -> int | None:
    """A number of steps; None and infinity mean no limit, and whole floats are read as integers."""
    if value is None or value is math.inf:
        return None
    is_number = isinstance(value, numbers.Real | np.number) and not isinstance(value, bool)
    if not is_number or math.isnan(value) or math.isinf(value) or value != int(value) or value < 1:
        raise EnvError(f"env '{name}': {what}: expected a positive integer, got {describe(value)}")
    return int(value)
