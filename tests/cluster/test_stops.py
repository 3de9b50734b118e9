"""Every process of a run on a cluster stands still for half a minute, one after the other, and goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from helpers.deadly_parts import DeadlyRun
from helpers.node_cluster import NodeCluster

from .conftest import Fault, assert_nothing_is_left

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

STOPPED_S = 30.0


@pytest.fixture(scope="module")
def run(cluster: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeadlyRun]:
    run = DeadlyRun(tmp_path_factory.mktemp("stops"), cluster)
    run.start()
    try:
        run.wait_until_trained()
        run.wait_until(lambda: run.last.get("eval/env_steps"))
        yield run
    finally:
        run.end()


def stand_still(run: DeadlyRun, pid: int) -> None:
    """Stop a process for half a minute. Whoever takes it for dead meanwhile may kill it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        deadline_s = time.monotonic() + STOPPED_S
        run.wait_until(lambda: time.monotonic() > deadline_s)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    "kind", ["EnvRunnerActor", "ReplayShardActor", "LearnerActor", "ControlActor", "EvaluatorActor"]
)
def test_an_actor(run: DeadlyRun, fault: Fault, kind: str) -> None:
    pid = run.actors(kind)[0].pid
    count = len(run.actors(kind))
    stand_still(run, pid)
    with fault(f"{kind.removesuffix('Actor')}: SIGSTOP for 30 s, from its end on"):
        run.goes_on()
    run.wait_until(lambda: len(run.actors(kind)) == count)
    if kind == "EnvRunnerActor" and pid not in {actor.pid for actor in run.actors(kind)}:
        run.num_silent_runners += 1


def test_the_driver(run: DeadlyRun, fault: Fault) -> None:
    """Training goes on without it."""
    before = len(run.reports)
    stand_still(run, run.process.pid)
    with fault("driver: SIGSTOP for 30 s, from its end on"):
        run.goes_on()
    assert len(run.reports) > before


def test_the_books_are_closed_and_nothing_is_left(run: DeadlyRun, cluster: NodeCluster) -> None:
    """Last: the run ends."""
    run.win()
    assert_nothing_is_left(cluster, run)
