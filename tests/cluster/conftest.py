"""Clusters of several nodes, runs on them, and a table of how long it took to recover."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from helpers.node_cluster import NodeCluster
from helpers.processes import actors
from helpers.watched_run import WatchedRun

TABLE = "AMAGO_RAY_FAULT_TABLE"
"""Names the file to which tests add a line for every fault: benchmarks/fault_table.py makes a page of it."""

Fault = Callable[[str], AbstractContextManager[None]]


@pytest.fixture(scope="session")
def fault() -> Fault:
    """`with fault("what"):` lets something happen and waits until all is well again; its time is noted."""

    @contextmanager
    def noted(what: str) -> Iterator[None]:
        began_s = time.monotonic()
        yield
        recovery_s = time.monotonic() - began_s
        if path := os.environ.get(TABLE):
            with Path(path).open("a") as table:
                table.write(json.dumps({"fault": what, "recovery_s": round(recovery_s, 1)}) + "\n")

    return noted


@pytest.fixture(scope="session")
def cluster() -> Iterator[NodeCluster]:
    """Three nodes: the head has room for a shard and the learner, the others for the rest."""
    cluster = NodeCluster(2, 3, 3)
    try:
        yield cluster
    finally:
        cluster.close()


def assert_nothing_is_left(cluster: NodeCluster, run: WatchedRun) -> None:
    """See that a run that has ended has left no process, no actor, and no file beside its directory."""
    assert_no_process_is_left()
    left = cluster.named_actors()
    assert not left, f"left behind: {left}"
    names = {path.name for path in run.path.parent.iterdir()}
    assert names <= {run.path.name, f"{run.path.name}.output", "config.yaml", "commands"}, names


def assert_no_process_is_left() -> None:
    """See that all actors of a run that has just ended go."""
    deadline_s = time.monotonic() + 30
    while (left := actors(os.getpid())) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert not left, f"left behind: {left}"
