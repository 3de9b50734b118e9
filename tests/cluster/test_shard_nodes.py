"""Nodes with replay shards go: with a disk of their own what it held is lost by name, until it comes back.

Every host has a disk of its own, but in the last test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.deadly_parts import DeadlyRun
from helpers.hosts import Host, Network
from helpers.node_cluster import NodeCluster
from helpers.processes import is_alive
from helpers.stored import stored_episodes

from .conftest import Fault, assert_no_process_is_left, assert_nothing_is_left

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

SETTINGS = ["replay.num_cpus_per_shard=1", "learner.num_cpus_per_learner=1"]


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """The head has a shard and the learner, the others a shard or an env runner each."""
    network = Network(2, 1, 1, 1)
    try:
        yield network
    finally:
        network.close()


@pytest.fixture(scope="module")
def run(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeadlyRun]:
    replay = network.disk / "replay"
    run = DeadlyRun(tmp_path_factory.mktemp("shard_nodes"), network, *SETTINGS, f"replay.directory={replay}")
    run.start()
    try:
        run.wait_until_trained()
        yield run
    finally:
        run.end()


def host_of_shard(run: DeadlyRun, network: Network) -> Host:
    """A host with a shard, but the head."""
    hosts = [network.host_of(actor.pid) for actor in run.actors("ReplayShardActor")]
    return next(host for host in hosts if host is not network.head)


def test_a_host_with_a_shard_goes(run: DeadlyRun, network: Network, fault: Fault) -> None:
    run.wait_until(lambda: run.last.get("replay/episodes", 0) > 20)
    with fault("a host with a shard and its disk goes"):
        host_of_shard(run, network).stop()
        run.wait_for_warning(r"the replay shard 1 lost its files on 10\.[0-9.]+: [1-9][0-9,]* episodes of [1-9]")
        run.goes_on()
    run.wait_until(lambda: len(run.actors("ReplayShardActor")) == 2)
    run.wait_until(lambda: run.last["replay/lost_with_nodes_episodes"] > 0)


def test_it_comes_back_with_its_disk(run: DeadlyRun, network: Network, fault: Fault) -> None:
    host = next(host for host in network.hosts if not host.is_up)
    lost = run.last["replay/lost_with_nodes_episodes"]
    with fault("the host comes back with its disk: its episodes are handed over"):
        host.start(has_new_disk=False)
        run.wait_for_warning(r"the files of the replay shard 1 from 10\.[0-9.]+ are back: [1-9]")
    run.wait_until(lambda: run.last.get("replay/returned_episodes", 0) == lost)
    assert not (host.disk / "replay" / "shard_1").exists()
    run.goes_on()


def test_the_books_are_closed(run: DeadlyRun, network: Network) -> None:
    """Last: the run ends."""
    run.num_dead_runners = run.num_warnings(r"the env runner \d died")
    run.win(disks=[host.disk / "replay" for host in network.hosts])
    assert_no_process_is_left()


def test_a_cluster_that_starts_again_finds_its_shards_by_their_hosts(
    network: Network, tmp_path: Path, fault: Fault
) -> None:
    """All nodes have new ids and come in another order; one is late, and hands over what it has when it comes."""
    settings = ["replay.num_shards=3", "rollout.num_env_runners=1", f"replay.directory={network.disk / 'other'}"]
    run = DeadlyRun(tmp_path, network, *settings)
    disks = [host.disk / "other" for host in network.hosts]
    run.start()
    try:
        run.wait_until_trained()
        run.wait_until(lambda: all(entry["counts"]["stored_episodes"] for entry in shards_saved(run)))
        places = {entry["number"]: entry["host"] for entry in shards_saved(run)}
        late = next(host for host in network.hosts if host.address == places[1])
        assert len(set(places.values())) == 3
        run.kill_driver()
        for host in network.hosts:
            host.stop()
        before = {episode for disk in disks for episode in stored_episodes(disk)}
        with fault("the whole cluster is started again, without one host; the run is resumed"):
            for host in (network.hosts[0], *reversed(network.hosts[1:])):
                if host is not late:
                    host.start(has_new_disk=False)
            run.start("--resume")
            run.wait_for_warning(rf"the replay shard 1 lost its files on {late.address}: [1-9]")
            run.goes_on()
        assert run.num_warnings(r"the replay shard \d lost its files") == 1
        late.start(has_new_disk=False)
        run.wait_for_warning(r"the files of the replay shard 1 from [0-9.]+ are back: [1-9]")
        run.goes_on()
        run.stop()
        assert before <= {episode for disk in disks for episode in stored_episodes(disk)}
    finally:
        run.end()


def shards_saved(run: DeadlyRun) -> list[dict[str, Any]]:
    """What the newest checkpoint says of the shards."""
    return run.saved["state"]["shard_table"]["shards"]


def test_a_shard_on_a_shared_disk_is_opened_on_another_node(cluster: NodeCluster, tmp_path: Path, fault: Fault) -> None:
    run = DeadlyRun(tmp_path, cluster, *SETTINGS)
    run.start()
    try:
        run.wait_until_trained()
        node = cluster.node_of(
            next(a.pid for a in run.actors("ReplayShardActor") if cluster.node_of(a.pid) is not cluster.nodes[0])
        )
        there = [actor for actor in run.actors("EnvRunnerActor") if cluster.node_of(actor.pid) is node]
        gone = [actor.pid for actor in run.actors("ReplayShardActor") if cluster.node_of(actor.pid) is node]
        with fault("a node with a shard is removed, its files are on a shared disk"):
            cluster.remove(node)
            run.wait_until(lambda: not any(is_alive(pid) for pid in gone))
            run.goes_on()
        run.wait_for_warning(r"the replay shard \d died and was started again: it goes on from what is on its disk")
        assert run.last["replay/lost_with_nodes_episodes"] == 0
        run.num_dead_runners = len(there)
        run.win()
        assert_nothing_is_left(cluster, run)
    finally:
        run.end()
        cluster.add(3)
