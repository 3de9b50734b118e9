"""From settings to environments: built-in ones, Gymnasium ids, `module:attr`, native vector ones, and mixtures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from amago_ray.config.env import EnvConfig
from amago_ray.config.plain import show
from amago_ray.data.specs import EnvSpec
from amago_ray.envs.env_batch import EnvBatch
from amago_ray.envs.limits import LimitedEnvBatch
from amago_ray.envs.lookup import find_env
from amago_ray.envs.mixture import MixtureBatch, allot, mixture_spec
from amago_ray.envs.registry import BUILT_INS
from amago_ray.envs.returned import describe
from amago_ray.errors import ConfigError, EnvError, error_line

# An environment that fails so often in its first step, made anew each time, can never work.
_ATTEMPTS = 3


def make_env_batch(envs: Sequence[EnvConfig], num_envs: int) -> EnvBatch:
    """E = `num_envs` environments as one batch; of several configs each gets its share.

    Raises:
        EnvError: an environment is unknown, cannot be imported or made, or does not fit the others.
        SpaceError: a space is not supported.
    """
    if len(envs) == 1:
        return _make_one(envs[0], num_envs)
    parts: list[EnvBatch] = []
    try:
        for config, count in zip(envs, allot([config.share for config in envs], num_envs), strict=True):
            parts.append(_make_one(config, count))
        return MixtureBatch(parts)
    except BaseException:
        for part in parts:
            part.close()
        raise


def make_spec(envs: Sequence[EnvConfig]) -> EnvSpec:
    """What `make_env_batch` would show and take, read from one environment of each config, which makes one step.

    Raises:
        EnvError: as `make_env_batch`, or one fails in its first step each time.
        SpaceError: as `make_env_batch`.
    """
    specs = [_tried_spec(config) for config in envs]
    return mixture_spec(specs) if len(specs) > 1 else specs[0]


def _tried_spec(config: EnvConfig) -> EnvSpec:
    error = ""
    for seed in range(_ATTEMPTS):
        with closing(_make_one(config, 1)) as batch:
            observations = batch.reset(np.zeros(1, np.int64), np.full(1, seed))
            failures = batch.step(_some_action(batch.spec, observations.action_mask)).failures
            if not failures:
                return batch.spec
            error = failures[0].message
    raise EnvError(error)


def _some_action(spec: EnvSpec, mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.generic]:
    """A stored action `[1, ...]` that the mask `[1, mask_size]` allows."""
    action = np.zeros((1, *spec.action.shape), spec.action.dtype)
    if mask is not None:
        ends = np.cumsum(spec.action.num_categories)[:-1]
        action[:] = np.reshape([part.argmax() for part in np.split(mask[0], ends)], action.shape)
    return action


def _make_one(config: EnvConfig, num_envs: int) -> EnvBatch:
    name = config.name or config.id
    batch: EnvBatch
    kwargs, limit = _settings(config)
    if config.id in BUILT_INS:
        kwargs.pop("render_mode", None)
        batch = _make_kernel(config, num_envs, kwargs)
        batch.env_names = (name,) * num_envs
    elif config.vector_entry_point:
        from amago_ray.envs.vector_batch import VectorBatch

        batch = VectorBatch(
            _vector_maker(config, num_envs, kwargs),
            name=name,
            autoreset_mode=config.autoreset_mode,
            step_timeout_s=config.step_timeout_s,
        )
        if batch.num_envs != num_envs:
            batch.close()
            raise EnvError(f"env '{name}': num_envs: expected the {num_envs} that were asked for, got {batch.num_envs}")
    else:
        from amago_ray.envs.gymnasium_batch import GymnasiumBatch

        maker = _maker(config, kwargs, limit)
        # Cut in the environment itself, where its wrappers see it.
        batch, limit = GymnasiumBatch(maker, num_envs, name=name, step_timeout_s=config.step_timeout_s), None
    if limit is not None or config.truncation_is_termination:
        return LimitedEnvBatch(
            batch, max_episode_steps=limit, truncation_is_termination=config.truncation_is_termination
        )
    return batch


def _settings(config: EnvConfig) -> tuple[dict[str, Any], int | None]:
    """What the environment's constructor takes, and the time limit.

    `gymnasium.make` takes some settings for itself: a time limit among the kwargs of a registered id is ours.
    """
    kwargs, limit = dict(config.kwargs), config.max_episode_steps
    where = f"env '{config.id}': kwargs"
    if ":" in config.id and config.id.rpartition(":")[2] not in _registered():
        return kwargs, limit
    if not config.vector_entry_point:
        own = kwargs.pop("max_episode_steps", None)
        if own is not None and limit is not None and own != limit:
            raise EnvError(f"{where}: max_episode_steps: expected the {limit} of env.max_episode_steps, got {own}")
        if own is not None and (not isinstance(own, int) or isinstance(own, bool) or own < 1):
            raise EnvError(f"{where}: max_episode_steps: expected a positive integer, got {describe(own)}")
        limit = own if limit is None else limit
    elif kwargs.pop("vectorization_mode", _VECTOR_MODE) != _VECTOR_MODE:
        raise EnvError(
            f"{where}: vectorization_mode: expected {_VECTOR_MODE}, got {describe(config.kwargs['vectorization_mode'])}"
        )
    taken = {"id", "num_envs"} if config.vector_entry_point else {"id"}
    for name in sorted(taken & kwargs.keys()):
        raise EnvError(
            f"{where}: {name}: expected to be left out, as it is set elsewhere, got {describe(kwargs[name])}"
        )
    return kwargs, limit


_VECTOR_MODE = "vector_entry_point"


def _registered() -> Any:
    from gymnasium.envs.registration import registry

    return registry


def _make_kernel(config: EnvConfig, num_envs: int, kwargs: dict[str, Any]) -> Any:
    for setting, allowed in (("step_timeout_s", (EnvConfig.step_timeout_s, None)), ("vector_entry_point", (False,))):
        if getattr(config, setting) not in allowed:
            raise ConfigError(
                f"env '{config.id}': {setting}: expected {show(allowed[-1])}, as built-in environments step together "
                f"in the runner's own process, got {show(getattr(config, setting))}"
            )
    try:
        return BUILT_INS[config.id].load()(num_envs, **kwargs)  # type: ignore[arg-type]
    except EnvError:
        raise
    except Exception as error:
        raise EnvError(f"env '{config.id}': cannot be made: {error_line(error)}") from error


def _maker(config: EnvConfig, kwargs: dict[str, Any], limit: int | None) -> Callable[[], Any]:
    """A function that makes one Gymnasium environment."""
    import gymnasium

    found = find_env(config.id)
    if isinstance(found, str):
        return partial(gymnasium.make, found, max_episode_steps=limit, **{"disable_env_checker": True, **kwargs})
    factory = found

    def make() -> Any:
        env = factory(**kwargs)
        if not isinstance(env, gymnasium.Env):
            raise EnvError(f"env '{config.id}': expected a gymnasium.Env, got {describe(env)}")
        return env if limit is None else gymnasium.wrappers.TimeLimit(env, limit)

    return make


def _vector_maker(config: EnvConfig, num_envs: int, kwargs: dict[str, Any]) -> Callable[[], Any]:
    """A function that makes one native vector environment of `num_envs` environments."""
    import gymnasium

    found = find_env(config.id)
    if isinstance(found, str):
        return partial(gymnasium.make_vec, found, num_envs, vectorization_mode=_VECTOR_MODE, **kwargs)
    factory = found

    def make() -> Any:
        env = factory(num_envs=num_envs, **kwargs)
        if not isinstance(env, gymnasium.vector.VectorEnv):
            raise EnvError(f"env '{config.id}': expected a gymnasium.vector.VectorEnv, got {describe(env)}")
        return env

    return make
