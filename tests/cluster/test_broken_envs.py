"""An environment raises, hangs, exits, segfaults or leaks while a run goes on, which loses its running episodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.deadly_parts import DeadlyRun, command, is_done
from helpers.memory_limit import limited_memory
from helpers.node_cluster import NodeCluster

from .conftest import Fault, assert_nothing_is_left

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

LEAK_BYTES = 300_000_000


@pytest.fixture(scope="module")
def run(cluster: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeadlyRun]:
    run = DeadlyRun(tmp_path_factory.mktemp("envs"), cluster, "env.step_timeout_s=2")
    run.start()
    try:
        run.wait_until_trained()
        yield run
    finally:
        run.end()


@pytest.mark.parametrize("deed", ["fail", "exit", "hang"])
def test_one_that_is_made_anew(run: DeadlyRun, fault: Fault, deed: str) -> None:
    """Its runner and all other environments go on."""
    runners = run.actors("EnvRunnerActor")
    dropped = run.last["rollout/dropped_episodes"]
    warned = run.num_warnings(r"env runner \d: environment failed and was rebuilt")
    what = {"fail": "raises", "exit": "calls sys.exit", "hang": "hangs (step_timeout_s=2)"}[deed]
    with fault(f"environment: {what}"):
        command(run.commands, "env", deed)
        run.wait_until(lambda: run.last["rollout/dropped_episodes"] == dropped + 1)
        run.goes_on()
    run.wait_until(lambda: run.num_warnings(r"env runner \d: environment failed and was rebuilt") == warned + 1)
    assert run.actors("EnvRunnerActor") == runners


@pytest.mark.parametrize("deed", ["segfault", "exit_now", "deadlock"])
def test_one_that_takes_its_runner_along(run: DeadlyRun, fault: Fault, deed: str) -> None:
    what = {
        "segfault": "segfaults",
        "exit_now": "ends its process",
        "deadlock": "hangs in native code (step_timeout_s=2)",
    }[deed]
    with fault(f"environment: {what}"):
        run.dies_of("env", "EnvRunnerActor", count=2, deed=deed)
    run.num_silent_runners += 1
    run.wait_until(lambda: run.num_warnings(r"the env runner \d died and is started again") == run.num_silent_runners)


def test_one_that_leaks(run: DeadlyRun, fault: Fault) -> None:
    """The kernel kills its runner, and what it held is free again."""
    runners = [actor.pid for actor in run.actors("EnvRunnerActor")]
    with limited_memory(runners, LEAK_BYTES), fault("environment: leaks until the kernel kills its runner"):
        run.dies_of("env", "EnvRunnerActor", count=2, deed="leak")
    run.num_silent_runners += 1
    run.wait_until(lambda: run.num_warnings(r"the env runner \d died and is started again") == run.num_silent_runners)


def test_the_books_are_closed_and_nothing_is_left(run: DeadlyRun, cluster: NodeCluster) -> None:
    """Last: the run ends."""
    assert is_done(run.commands, "env")
    run.win()
    assert_nothing_is_left(cluster, run)
