"""A shard's host is cut off for so long that another process takes its place, over the same files on a shared disk.

The former process lives on, and may write nothing that is acknowledged, nor anything that is in its successor's way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.deadly_parts import DeadlyRun
from helpers.hosts import Network
from helpers.processes import is_alive

from .conftest import Fault, assert_no_process_is_left

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


@pytest.fixture
def network() -> Iterator[Network]:
    """The head has a shard and the learner, the others a shard or an env runner each; Ray sees deaths in seconds."""
    health = {"period_ms": 1000, "timeout_ms": 2000, "failure_threshold": 5, "initial_delay_ms": 0}
    network = Network(
        2, 1, 1, 1, environment={f"RAY_health_check_{name}": str(value) for name, value in health.items()}
    )
    try:
        yield network
    finally:
        network.close()


def test_an_old_copy_that_lives_on_is_fenced(network: Network, tmp_path: Path, fault: Fault) -> None:
    run = DeadlyRun(tmp_path, network, "replay.num_cpus_per_shard=1")
    run.start()
    try:
        run.wait_until_trained()
        old = next(actor for actor in run.actors("ReplayShardActor") if network.host_of(actor.pid) is not network.head)
        host = network.host_of(old.pid)
        with fault("a shard's host is cut off for good as Ray sees it: its files are opened elsewhere"):
            host.cut()
            run.wait_for_warning(r"the replay shard 1 died and was started again on 10[0-9.]+: it goes on")
            run.goes_on()
        assert is_alive(old.pid), "there are two of them"
        host.heal()
        run.wait_until(lambda: not is_alive(old.pid))
        run.goes_on()
        assert run.last["replay/lost_with_nodes_episodes"] == 0
        run.num_dead_runners = run.num_warnings(r"the env runner \d died")
        run.win()
        assert_no_process_is_left()
    finally:
        run.end()
