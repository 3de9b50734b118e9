"""Env runners of a run become more and fewer while it goes on; nodes have labels, come, and are drained."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from helpers.deadly_parts import DeadlyRun
from helpers.node_cluster import Node, NodeCluster
from helpers.processes import is_alive

from .conftest import Fault, assert_nothing_is_left

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SPOT = {"market": "spot"}


@pytest.fixture(scope="module")
def nodes() -> Iterator[NodeCluster]:
    """The head has room for shards and learner, another one for two env runners, and is of the sort to take some."""
    cluster = NodeCluster(3)
    try:
        cluster.add(2, SPOT)
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def run(nodes: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeadlyRun]:
    run = DeadlyRun(
        tmp_path_factory.mktemp("elastic"),
        nodes,
        "rollout.num_env_runners=1",
        "rollout.max_env_runners=3",
        "replay.num_cpus_per_shard=1",
        f"cluster.labels.env_runner={SPOT}",
        "cluster.labels.learner={market: '!spot'}",
        "cluster.labels.replay_shard={market: '!spot'}",
    )
    run.start()
    try:
        run.wait_until_trained()
        yield run
    finally:
        run.end()


def scale(run: DeadlyRun, num_env_runners: int) -> subprocess.CompletedProcess[str]:
    """What a user types in another terminal."""
    return subprocess.run(
        [sys.executable, "-m", "amago_ray.cli", "scale", str(run.path), "--env-runners", str(num_env_runners)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def nodes_of(nodes: NodeCluster, run: DeadlyRun, kind: str) -> list[Node]:
    return [nodes.node_of(actor.pid) for actor in run.actors(kind)]


def test_processes_live_where_their_labels_are(run: DeadlyRun, nodes: NodeCluster) -> None:
    head, spot = nodes.nodes
    assert nodes_of(nodes, run, "EnvRunnerActor") == [spot]
    for kind in ("ControlActor", "LearnerActor", "ReplayShardActor"):
        assert set(nodes_of(nodes, run, kind)) == {head}, kind


def test_more_are_asked_for_and_start_as_there_is_room(run: DeadlyRun, nodes: NodeCluster) -> None:
    assert scale(run, 3).stdout == "1 → 3 env runners\n"
    run.wait_until(lambda: run.last["rollout/num_env_runners"] == 2)
    assert run.last["rollout/wanted_env_runners"] == 3
    node = nodes.add(2, SPOT)
    run.wait_until(lambda: run.last["rollout/num_env_runners"] == 3)
    assert node in nodes_of(nodes, run, "EnvRunnerActor")
    run.goes_on()


def test_what_the_run_may_not_have_is_refused_in_one_line(run: DeadlyRun) -> None:
    done = scale(run, 4)
    assert done.returncode == 2
    assert done.stderr == (
        "error: env runners: expected from 1 to 3 (rollout.min_env_runners to max_env_runners of the run), got 4\n"
    )


def test_the_number_is_kept_when_the_control_actor_starts_again(run: DeadlyRun, fault: Fault) -> None:
    run.wait_until_replaced(run.kill("ControlActor"))
    run.wait_for_warning("the control actor died and was started again")
    run.goes_on()
    assert run.last["rollout/wanted_env_runners"] == 3
    assert len(run.actors("EnvRunnerActor")) == 3


def test_a_node_that_is_drained_is_left_and_its_runners_start_elsewhere(
    run: DeadlyRun, nodes: NodeCluster, fault: Fault
) -> None:
    nodes.add(2, SPOT)
    kept, drained = nodes.nodes[1:3]
    pids = [actor.pid for actor in run.actors("EnvRunnerActor") if nodes.node_of(actor.pid) is drained]
    with fault("a node with env runners is drained: they start elsewhere"):
        nodes.drain(drained)
        run.wait_for_warning(r"the node \S+ is to be taken away: its env runners \(\d\) leave it")
        run.wait_until(lambda: not any(is_alive(pid) for pid in pids))
        run.wait_until(lambda: len(run.actors("EnvRunnerActor")) == 3)
    nodes.remove(drained)
    run.wait_until(lambda: run.last["rollout/num_env_runners"] == 3)
    assert kept in nodes_of(nodes, run, "EnvRunnerActor")
    assert not run.num_warnings(r"the env runner \d died")
    run.goes_on()


def test_fewer_are_asked_for_and_hand_over_what_they_have(run: DeadlyRun) -> None:
    assert scale(run, 1).stdout == "3 → 1 env runners\n"
    run.wait_until(lambda: len(run.actors("EnvRunnerActor")) == 1)
    run.wait_until(lambda: run.last["rollout/num_env_runners"] == 1)
    assert run.last["rollout/abandoned_episodes"] > 0, "of the runners that left"
    assert not run.num_warnings(r"the env runner \d died")
    run.goes_on()


def test_the_books_are_closed_and_nothing_is_left(run: DeadlyRun, nodes: NodeCluster) -> None:
    """Last: the run ends; none of those that left had anything unacknowledged."""
    run.win()
    assert_nothing_is_left(nodes, run)
