"""From the id of an environment in the settings to what makes it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from amago_ray.config.module_attr import load_module
from amago_ray.envs.foreign import run_foreign
from amago_ray.envs.registry import register_envs
from amago_ray.envs.returned import describe
from amago_ray.errors import EnvError


def find_env(env_id: str) -> str | Callable[..., Any]:
    """The registered id, or the class or factory, that an id names; the module before its colon is imported.

    Raises:
        EnvError: there is none; the message suggests close ones.
    """
    from gymnasium.envs.registration import registry

    register_envs()
    module_name, colon, rest = env_id.rpartition(":")
    if not colon:
        if env_id in registry:
            return env_id
        raise EnvError(f"env '{env_id}': no such environment{_suggestion(env_id, _ids(registry, env_id))}")
    module = run_foreign(partial(load_module, f"env '{env_id}'", module_name, EnvError))
    target: Any = module
    for part in rest.split("."):
        target = getattr(target, part, None)
    if callable(target):
        return target  # type: ignore[no-any-return]
    if rest in registry:
        return rest
    if target is not None:
        raise EnvError(f"env '{env_id}': expected a class or a function that makes one, got {describe(target)}")
    offered = [name for name, value in vars(module).items() if callable(value)]
    where = "; in Ray's workers '__main__' is another program: use a module" if module_name == "__main__" else ""
    raise EnvError(
        f"env '{env_id}': '{module_name}' has no class or function '{rest}' and registers no such id"
        f"{where or _suggestion(rest, offered)}"
    )


def _ids(registry: Iterable[str], env_id: str) -> list[str]:
    """The registered ids, and `module:attr` where a dot stands in the colon's place."""
    module, dot, attribute = env_id.rpartition(".")
    return [*registry, *([f"{module}:{attribute}"] if dot and attribute.isidentifier() else [])]


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else " (see `amago-ray envs`)"
