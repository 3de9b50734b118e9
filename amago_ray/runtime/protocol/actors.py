"""Starting actors, asking them, and how their calls end: the few calls of Ray that `runtime` is written with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
)

from amago_ray.errors import TrainingError
from amago_ray.runtime.protocol.endings import Ending, LostPeerError

ASIDE = "aside"
"""A thread of its own for calls that are answered while an actor is at work, or much later."""
WITH_ASIDE: Mapping[str, Any] = {"concurrency_groups": {ASIDE: 1}}
"""Options of actors that have such calls."""

# What is ready is on this node already.
_READY_TIMEOUT_S = 30.0


def start_actor(kind: type, *args: Any, enable_task_events: bool = False, **options: Any) -> Any:
    """The handle of a new actor of the plain class `kind`; `options` are Ray's.

    enable_task_events: Ray keeps an event of every call, for its dashboard; a run makes many.

    Raises:
        TrainingError: an actor of its name exists.
    """
    options = {"enable_task_events": enable_task_events, **options}
    try:
        return ray.remote(**options)(kind).remote(*args)
    except ray.exceptions.ActorAlreadyExistsError as error:
        raise TrainingError(
            f'the cluster has an actor "{options["name"]}" already: is this run being trained?'
        ) from error


def start_task(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """A reference to what a function returns that runs somewhere else; `options` are Ray's."""
    return ray.remote(**options)(function).remote(*args)


def get(reference: Any, timeout_s: float | None = None) -> Any:
    """The value of a reference. timeout_s: None or infinite for no limit.

    Raises:
        ray.exceptions.RayError: what makes it failed.
        ray.exceptions.GetTimeoutError: it was not there after `timeout_s`.
    """
    return ray.get(reference, timeout=None if timeout_s == math.inf else timeout_s)


def get_unless_lost(reference: Any, timeout_s: float) -> Any:
    """The value of a reference that another process owns; None where it is lost with that one, or does not come."""
    try:
        return get(reference, timeout_s)
    except (ObjectLostError, GetTimeoutError):
        return None


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


def ending(reference: Any, made: Any = None) -> Ending:
    """How an actor's call ended whose reference is ready; `made` is that of the call that had to make the actor."""
    if made is not None and (error := _failure(made)) is not None:
        return Ending("not_made", error=_cause(error), is_preempted=_is_preempted(error))
    error = _failure(reference)
    if error is None:
        return Ending("returned", value=get(reference, _READY_TIMEOUT_S))
    # What an actor raised because another one is gone matches RayActorError, too.
    cause = error.cause if isinstance(error, RayTaskError) else error
    is_preempted = _is_preempted(error)
    return Ending("died" if isinstance(cause, _GONE) else "raised", error=_cause(error), is_preempted=is_preempted)


def _is_preempted(error: Exception) -> bool:
    return isinstance(error, RayActorError) and error.preempted


def outcome(reference: Any) -> Ending | None:
    """How a call ended; None while it is under way."""
    return ending(reference) if is_ready(reference) else None


_GONE = (RayActorError, ActorUnschedulableError, NodeDiedError, LostPeerError)


def is_unavailable(error: Exception | None) -> bool:
    """Whether an actor could not be reached, and may live all the same."""
    return isinstance(error, ActorUnavailableError)


def is_gone(error: RayError) -> bool:
    """Whether a call failed since its actor's process or node is gone, or what it answered."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, (*_GONE, ObjectLostError))


def answer(reference: Any) -> tuple[Any, ...]:
    """What a reference has brought, as the only item; nothing where it has not come yet, or failed."""
    return (get(reference, _READY_TIMEOUT_S),) if was_made(reference) else ()


def was_made(made: Any) -> bool:
    """Whether the actor with this reference to its making has been made by now."""
    return is_ready(made) and _failure(made) is None


def _failure(reference: Any) -> Exception | None:
    """What getting a reference raises."""
    try:
        get(reference, _READY_TIMEOUT_S)
    except RayError as error:
        return error
    return None


def _cause(error: Exception) -> Exception:
    """What an actor raised, in a call or when it was made, without Ray's wrapping where it can be unwrapped."""
    while True:
        inner: object = None
        if isinstance(error, RayTaskError):
            inner = error.cause
        elif isinstance(error, RayActorError) and error.actor_init_failed and error.args:
            inner = error.args[0]
        if not isinstance(inner, Exception):
            return error
        error = inner


def find_actor(name: str, namespace: str | None = None) -> Any:
    """The handle of the actor of this name; None takes the namespace of this process.

    Raises:
        ValueError: there is none.
    """
    return ray.get_actor(name, namespace)


def this_node() -> str:
    """The id of the node that this process is on."""
    node: str = ray.get_runtime_context().get_node_id()
    return node
