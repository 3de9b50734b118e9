"""Two learners on two nodes train one agent; the node of one goes, and comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.deadly_parts import DeadlyRun
from helpers.node_cluster import NodeCluster
from helpers.processes import is_alive

from .conftest import Fault, assert_nothing_is_left

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

SETTINGS = [
    "learner.num_learners=2",
    "rollout.num_env_runners=1",
    "replay.num_shards=1",
    "replay.num_cpus_per_shard=0",
]
"""With nodes of one CPU each: one for the env runner, one for each learner; the shard is with the driver."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[NodeCluster]:
    cluster = NodeCluster(1, 1, 1)
    try:
        yield cluster
    finally:
        cluster.close()


def test_a_node_with_one_of_two_learners_goes_and_one_comes(tmp_path: Path, nodes: NodeCluster, fault: Fault) -> None:
    run = DeadlyRun(tmp_path, nodes, *SETTINGS)
    run.start()
    try:
        run.wait_until_trained()
        learners = run.actors("LearnerActor")
        homes = [nodes.node_of(each.pid) for each in learners]
        assert homes[0] is not homes[1]
        lost = next(home for home in homes if home is not nodes.nodes[0])
        saved = run.saved["learner_steps"]
        with fault("a node with one of two learners is removed, another one comes"):
            nodes.remove(lost)
            for each in learners:
                run.wait_until(lambda pid=each.pid: not is_alive(pid))
            # The others have no room for it.
            nodes.add(1)
            run.wait_until(lambda: len(run.actors("LearnerActor")) == 2)
            run.goes_on()
        run.wait_for_warning(r"the learner \d died and is started again")
        run.wait_until(lambda: run.last["learner_steps"] > saved)
        run.win()
        assert_nothing_is_left(nodes, run)
    finally:
        run.end()
