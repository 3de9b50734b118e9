"""Starting Ray for a run, or joining a cluster."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import ray

from amago_ray.config import Config
from amago_ray.envs.foreign import Interrupted, kept_signal_handlers
from amago_ray.errors import TrainingError
from amago_ray.runtime.cluster.placement import alive_nodes, nodes_for, place_shards, require_room, required_cpus
from amago_ray.runtime.cluster.reachability import require_cluster, require_joined, require_temporary_directory
from amago_ray.runtime.protocol.endings import short_line

NAMESPACE = "amago_ray"
"""Where the named actors of all runs live; they carry the run's name in theirs."""

# What workers print, environments above all, stays in their logs: the driver shows a table, and warnings reach it by
# the control actor, each kind once.
QUIET: Mapping[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}

# Ray hands the number to a process that reads it as 32 bits, and waits for that process in vain if it does not fit.
_MOST_CPUS = 2**31 - 1

# Ray's own processes end within this time after it was shut down, if they end at all.
_SHUTDOWN_TIMEOUT_S = 2.0

# Says at every start that token authentication is on, which is Ray's default.
logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)


@contextmanager
def ray_connection(config: Config) -> Iterator[str]:
    """Join the cluster at `cluster.address`, or start Ray on this machine, and leave it at the end; yields the address.

    An embedded Ray gets as many logical CPUs as the run may come to reserve, also where the machine has fewer: its
    processes then share them.

    Raises:
        TrainingError: the cluster cannot be reached or is too small, or this process has joined another one.
    """
    address = config.cluster.address
    if ray.is_initialized():
        if address is not None:
            require_joined(address, ray.get_runtime_context().gcs_address)
        _require_room(config)
        yield str(ray.get_runtime_context().gcs_address)
        return
    # Nothing but this run's actors is started here: idle workers for tasks would only cost start-up time.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    reserved = required_cpus(config, config.rollout.most_env_runners)
    num_cpus = config.cluster.num_cpus or max(os.cpu_count() or 1, math.ceil(reserved))
    if address is not None:
        require_cluster(address)
    elif num_cpus > _MOST_CPUS:
        raise TrainingError(f"expected at most {_MOST_CPUS:,} CPUs, more than which Ray cannot count, got {num_cpus:,}")
    else:
        require_temporary_directory()
    before = _children()
    try:
        # Ray would have SIGTERM end this process at once, without a checkpoint.
        with kept_signal_handlers():
            if address is None:
                ray.init(
                    # Never one that `ray start` left running on this machine: that has to be asked for.
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=config.cluster.dashboard,
                    namespace=NAMESPACE,
                    **QUIET,
                )
            else:
                ray.init(address=address, namespace=NAMESPACE, **QUIET)
    except BaseException as error:
        ray.shutdown()
        if isinstance(error, SystemExit):
            # By Ray's handler of SIGTERM, before ours was back.
            raise Interrupted from error
        if not isinstance(error, Exception):
            raise
        where = "on this machine" if address is None else f'at "{address}"'
        raise TrainingError(f"Ray cannot be started {where}: {short_line(error)}") from error
    try:
        _require_room(config)
        yield str(ray.get_runtime_context().gcs_address)
    finally:
        started = [each for child in _children() - before for each in (child, *child.children(recursive=True))]
        ray.shutdown()
        _end(started)


def _children() -> set[Any]:
    """The processes that this one has started: with an embedded Ray its services are among them."""
    # Ray brings it along: it is found once Ray has been imported.
    import psutil  # type: ignore[import-untyped]

    return set(psutil.Process().children())


def _end(processes: Sequence[Any]) -> None:
    """End those that Ray has left behind, as it does when its control service died or a worker was stopped."""
    import psutil

    for process in psutil.wait_procs(processes, timeout=_SHUTDOWN_TIMEOUT_S)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _require_room(config: Config) -> None:
    nodes = alive_nodes()
    candidates = nodes_for("replay_shard", config, nodes)
    shards = place_shards(
        config.replay.num_shards,
        candidates,
        spread=config.cluster.spread,
        before={},
        num_cpus=config.replay.num_cpus_per_shard,
    )
    require_room(config, nodes, shards)
