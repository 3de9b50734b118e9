"""Nodes of a cluster go, at once and with all their processes, and come, while a run goes on.

Every node has room for one process that trains, so that it is known who goes with it. To Ray all nodes are one host:
what a shard has stored is there for its successor.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.deadly_parts import DeadlyRun
from helpers.node_cluster import NodeCluster
from helpers.processes import is_alive
from helpers.stored import stored_episodes

from .conftest import Fault, assert_nothing_is_left

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[NodeCluster]:
    """As many as the run has processes that train: two shards, a learner, two env runners."""
    cluster = NodeCluster(1, 1, 1, 1, 1)
    try:
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def run(nodes: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeadlyRun]:
    run = DeadlyRun(tmp_path_factory.mktemp("nodes"), nodes, "replay.num_cpus_per_shard=1")
    run.start()
    try:
        run.wait_until_trained()
        yield run
    finally:
        run.end()


def lose(run: DeadlyRun, nodes: NodeCluster, kind: str) -> int:
    """Remove the node, other than the head, of an actor of a class; returns the process that went."""
    pids = [actor.pid for actor in run.actors(kind)]
    pid = next(pid for pid in pids if nodes.node_of(pid) is not nodes.nodes[0])
    nodes.remove(nodes.node_of(pid))
    run.wait_until(lambda: not is_alive(pid))
    return pid


def test_a_node_with_an_env_runner_goes_and_one_comes(run: DeadlyRun, nodes: NodeCluster, fault: Fault) -> None:
    with fault("a node with an env runner is removed: the other runners go on"):
        lose(run, nodes, "EnvRunnerActor")
        run.num_silent_runners += 1
        run.goes_on()
    run.wait_for_warning(r"the env runner \d died and is started again")
    assert len(run.actors("EnvRunnerActor")) == 1, "there is no room for the other one"
    with fault("a node is added: the env runner that had no room starts there"):
        node = nodes.add(1)
        run.wait_until(lambda: [nodes.node_of(actor.pid) for actor in run.actors("EnvRunnerActor")][1:] == [node])
        run.goes_on()


def test_a_node_with_the_learner(run: DeadlyRun, nodes: NodeCluster, fault: Fault) -> None:
    nodes.add(1)
    saved = run.saved["learner_steps"]
    with fault("a node with the learner is removed"):
        pid = lose(run, nodes, "LearnerActor")
        run.wait_until(lambda: [actor.pid for actor in run.actors("LearnerActor") if actor.pid != pid])
        run.goes_on()
    run.wait_for_warning("the learner died and is started again")
    run.wait_until(lambda: run.last["learner_steps"] > saved)


def test_a_node_with_a_shard(run: DeadlyRun, nodes: NodeCluster, fault: Fault) -> None:
    nodes.add(1)
    before = stored_episodes(run.replay)
    with fault("a node with a shard is removed, another one has its disk"):
        pid = lose(run, nodes, "ReplayShardActor")
        run.wait_until(lambda: len([each for each in run.actors("ReplayShardActor") if each.pid != pid]) == 2)
        run.goes_on()
    assert set(before) <= set(stored_episodes(run.replay))


def test_the_books_are_closed_and_nothing_is_left(run: DeadlyRun, nodes: NodeCluster) -> None:
    """Last: the run ends."""
    run.win()
    assert_nothing_is_left(nodes, run)
