"""A run that goes on, from another process: what it can be told there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from amago_ray.errors import TrainingError
from amago_ray.replay.owner import Claim
from amago_ray.runtime.cluster.ray_connection import NAMESPACE, QUIET
from amago_ray.runtime.cluster.reachability import require_cluster, require_joined
from amago_ray.runtime.driver.run_actors import actor_name
from amago_ray.runtime.protocol.actors import ending, find_actor
from amago_ray.runtime.protocol.endings import short_line
from amago_ray.training.run_directory import RunDirectory

_ANSWER_TIMEOUT_S = 60.0


def whereabouts(address: str, name: str, claim: Claim) -> Mapping[str, str]:
    """What a run's metadata keeps, so that other processes find it: its Ray, and its control actor there."""
    return {"address": address, "control": actor_name(name, claim.run_id, "control")}


def scale(run: str | Path, num_env_runners: int) -> int:
    """Let a run that goes on have so many env runners; returns how many it had wanted before.

    Raises:
        AmagoRayError: it does not go on, cannot be reached, or may not have so many.
    """
    directory = RunDirectory.open(run)
    with _control_of(directory) as control:
        reference = control.scale.remote(num_env_runners)
        if not ray.wait([reference], timeout=_ANSWER_TIMEOUT_S)[0]:
            raise TrainingError(f"{directory.path}: the run did not answer within {_ANSWER_TIMEOUT_S:g} s")
        end = ending(reference)
        if end.kind != "returned":
            raise end.failure(f"{directory.path}: the run did not answer")
        before: int = end.value
        return before


@contextmanager
def _control_of(directory: RunDirectory) -> Iterator[Any]:
    """The control actor of a run; its Ray is joined for as long."""
    state = directory.read_status().get("state", "not begun")
    if state not in ("starting", "running"):
        raise TrainingError(f"{directory.path}: expected a run that goes on, got one that has {state}")
    place = directory.metadata.get("ray")
    if not place:
        raise TrainingError(f"{directory.path}: expected a run over Ray, got one in a single process (--local)")
    has_joined = ray.is_initialized()
    if has_joined:
        require_joined(place["address"], ray.get_runtime_context().gcs_address)
    else:
        require_cluster(place["address"])
        try:
            ray.init(address=place["address"], namespace=NAMESPACE, **QUIET)
        except Exception as error:
            raise TrainingError(f'Ray cannot be joined at "{place["address"]}": {short_line(error)}') from error
    try:
        try:
            control = find_actor(place["control"], NAMESPACE)
        except ValueError as error:
            raise TrainingError(f"{directory.path}: the run has no control actor: {short_line(error)}") from error
        yield control
    finally:
        if not has_joined:
            ray.shutdown()
