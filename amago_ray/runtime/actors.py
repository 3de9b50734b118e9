"""Starting actors and asking them: the few calls of Ray that the rest of `runtime` is written with."""

from __future__ import annotations

from typing import Any

import ray


def start_actor(kind: type, *args: Any, **options: Any) -> Any:
    """The handle of a new actor of the plain class `kind`; `options` are Ray's actor options."""
    return ray.remote(kind).options(**options).remote(*args)


def get(reference: Any, timeout_s: float | None = None) -> Any:
    """The value of a reference.

    Raises: ray.exceptions.RayError if what makes it failed; GetTimeoutError after `timeout_s`.
    """
    return ray.get(reference, timeout=timeout_s)


def is_ready(reference: Any) -> bool:
    """Whether `get` would answer at once."""
    return bool(ray.wait([reference], timeout=0)[0])


def find_actor(name: str) -> Any:
    """The handle of the actor of this name in the run's namespace.

    Raises: ValueError if there is none.
    """
    return ray.get_actor(name)


def cluster_resources() -> dict[str, float]:
    """The cluster's resources by name."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return resources


def alive_nodes() -> list[str]:
    """Ids of the nodes that are up, in a stable order."""
    return sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])  # type: ignore[no-untyped-call]
