"""From settings to environments: built-in ones, Gymnasium ids, `module:attr`, native vector ones, and mixtures."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from amago_ray.config.env import EnvConfig
from amago_ray.config.module_attr import load_module
from amago_ray.data.specs import EnvSpec
from amago_ray.envs.env_batch import EnvBatch
from amago_ray.envs.limits import LimitedEnvBatch
from amago_ray.envs.mixture import MixtureBatch, allot, mixture_spec
from amago_ray.envs.registry import BUILT_INS, register_envs
from amago_ray.errors import EnvError


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
    except Exception:
        for part in parts:
            part.close()
        raise


def make_spec(envs: Sequence[EnvConfig]) -> EnvSpec:
    """What `make_env_batch` would show and take, read from one environment of each config.

    Raises:
        EnvError: as `make_env_batch`.
        SpaceError: as `make_env_batch`.
    """
    specs = []
    for config in envs:
        batch = _make_one(config, 1)
        specs.append(batch.spec)
        batch.close()
    return mixture_spec(specs) if len(specs) > 1 else specs[0]


def _make_one(config: EnvConfig, num_envs: int) -> EnvBatch:
    name = config.name or config.id
    batch: EnvBatch
    limit = None
    if config.id in BUILT_INS:
        kwargs = {key: value for key, value in config.kwargs.items() if key != "render_mode"}
        batch = _call(config, partial(BUILT_INS[config.id].load(), num_envs, **kwargs))  # type: ignore[arg-type]
        batch.env_names = (name,) * num_envs
        limit = config.max_episode_steps
    elif config.vector_entry_point:
        from amago_ray.envs.vector_batch import VectorBatch

        vector = _call(config, _vector_maker(config, num_envs))
        batch = VectorBatch(vector, name=name, autoreset_mode=config.autoreset_mode)
        limit = config.max_episode_steps
    else:
        from amago_ray.envs.gymnasium_batch import GymnasiumBatch

        batch = GymnasiumBatch(_maker(config), num_envs, name=name, step_timeout_s=config.step_timeout_s)
    if limit is not None or config.truncation_is_termination:
        return LimitedEnvBatch(
            batch, max_episode_steps=limit, truncation_is_termination=config.truncation_is_termination
        )
    return batch


def _maker(config: EnvConfig) -> Callable[[], Any]:
    """A function that makes one Gymnasium environment."""
    import gymnasium

    found = _resolve(config)
    limit = config.max_episode_steps
    if isinstance(found, str):
        return partial(gymnasium.make, found, max_episode_steps=limit, disable_env_checker=True, **config.kwargs)
    factory = found

    def make() -> Any:
        env = factory(**config.kwargs)
        if not isinstance(env, gymnasium.Env):
            raise EnvError(f"expected a gymnasium.Env from '{config.id}', got {type(env).__name__}")
        return env if limit is None else gymnasium.wrappers.TimeLimit(env, limit)

    return make


def _vector_maker(config: EnvConfig, num_envs: int) -> Callable[[], Any]:
    """A function that makes one native vector environment of `num_envs` environments."""
    import gymnasium

    found = _resolve(config)
    if isinstance(found, str):
        return partial(gymnasium.make_vec, found, num_envs, vectorization_mode="vector_entry_point", **config.kwargs)
    factory = found

    def make() -> Any:
        env = factory(num_envs=num_envs, **config.kwargs)
        if not isinstance(env, gymnasium.vector.VectorEnv):
            raise EnvError(f"expected a gymnasium.vector.VectorEnv from '{config.id}', got {type(env).__name__}")
        return env

    return make


def _resolve(config: EnvConfig) -> str | Callable[..., Any]:
    """The Gymnasium id, or the class or factory, that the config's id names; its module is imported."""
    from gymnasium.envs.registration import registry

    register_envs()
    module_name, colon, rest = config.id.rpartition(":")
    if not colon:
        if config.id not in registry:
            raise EnvError(f"env '{config.id}': no such environment{_suggestion(config.id, registry)}")
        return config.id
    module = load_module(f"env '{config.id}'", module_name, EnvError)
    target: Any = module
    for part in rest.split("."):
        target = getattr(target, part, None)
    if callable(target):
        return target  # type: ignore[no-any-return]
    if rest in registry:
        return rest
    offered = [name for name, value in vars(module).items() if callable(value)]
    raise EnvError(
        f"env '{config.id}': '{module_name}' has no class or function '{rest}' and registers no such id"
        f"{_suggestion(rest, offered)}"
    )


def _call(config: EnvConfig, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except EnvError:
        raise
    except Exception as error:
        raise EnvError(f"env '{config.id}': cannot be made: {_one_line(error)}") from error


def _suggestion(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else " (see `amago-ray envs`)"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
