"""Starting actors, asking them, and how their calls end: the few calls of Ray that `runtime` is written with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import ActorUnschedulableError, RayActorError, RayTaskError

from amago_ray.errors import TrainingError
from amago_ray.runtime.endings import Ending

WATCH = "watch"
"""A group of an actor's threads of its own, for calls that never answer."""


def start_actor(kind: type, *args: Any, **options: Any) -> Any:
    """The handle of a new actor of the plain class `kind`; `options` are Ray's.

    Raises: TrainingError if an actor of its name exists.
    """
    try:
        return ray.remote(**options)(kind).remote(*args)
    except ray.exceptions.ActorAlreadyExistsError as error:
        raise TrainingError(
            f'the cluster has an actor "{options["name"]}" already: is this run being trained?'
        ) from error


def get(reference: Any, timeout_s: float | None = None) -> Any:
    """The value of a reference.

    Raises: ray.exceptions.RayError if what makes it failed; GetTimeoutError after `timeout_s`.
    """
    return ray.get(reference, timeout=timeout_s)


def is_ready(reference: Any) -> bool:
    """Whether `get` would answer at once."""
    return bool(ray.wait([reference], timeout=0)[0])


def wait_any(references: Sequence[Any], timeout_s: float) -> list[Any]:
    """Wait until the first of the references is ready, and return all that are."""
    if not references:
        return []
    references = list(references)
    if not ray.wait(references, num_returns=1, timeout=timeout_s)[0]:
        return []
    ready: list[Any] = ray.wait(references, num_returns=len(references), timeout=0)[0]
    return ready


def made(actor: Any) -> Any:
    """A reference that is ready when the actor has been made, or could not be."""
    return actor.__ray_ready__.remote()


def ending(reference: Any, made: Any = None) -> Ending:
    """How an actor's call ended whose reference is ready; `made` is that of its making, if Ray does not restart it."""
    try:
        return Ending("returned", value=get(reference))
    except RayTaskError as error:
        # First: an actor that raised because another one is gone matches RayActorError, too.
        return Ending("died" if isinstance(error.cause, _GONE) else "raised", error=_cause(error))
    except _GONE as error:
        is_made = not getattr(error, "actor_init_failed", False) and (made is None or was_made(made))
        return Ending("died" if is_made else "not_made", error=_cause(error))


_GONE = (RayActorError, ActorUnschedulableError)


def was_made(made: Any) -> bool:
    """Whether the actor with this reference to its making has been made by now."""
    try:
        return is_ready(made) and get(made) is not None
    except _GONE:
        return False


def _cause(error: Exception) -> Exception:
    """What an actor raised, or died of, without Ray's wrapping where it can be unwrapped."""
    while True:
        inner: object = None
        if isinstance(error, RayTaskError):
            inner = error.cause
        elif isinstance(error, RayActorError) and error.actor_init_failed and error.args:
            inner = error.args[0]
        if not isinstance(inner, Exception):
            return error
        error = inner


def find_actor(name: str) -> Any:
    """The handle of the actor of this name in the run's namespace.

    Raises: ValueError if there is none.
    """
    return ray.get_actor(name)
