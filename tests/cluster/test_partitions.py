"""Hosts of a run are cut off from the others for a while, in the middle of everything: nobody is told, nothing is lost.

All hosts have one disk, so that it is seen that those cut off and those who take their place never write in one file.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from helpers.deadly_parts import DeadlyRun
from helpers.hosts import Network
from helpers.stored import stored_episodes

from .conftest import Fault, assert_no_process_is_left

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


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
    run = DeadlyRun(tmp_path_factory.mktemp("partitions"), network, "replay.num_cpus_per_shard=1")
    run.start()
    try:
        run.wait_until_trained()
        yield run
    finally:
        run.end()


def newest_of_runners(run: DeadlyRun) -> dict[int, tuple[int, int]]:
    """The newest episode that is stored of each env runner: its incarnation and counter."""
    newest: dict[int, tuple[int, int]] = {}
    for _, runner, incarnation, counter in stored_episodes(run.replay):
        newest[runner] = max(newest.get(runner, (0, 0)), (incarnation, counter))
    return newest


def shard_sizes(run: DeadlyRun) -> dict[str, int]:
    """Bytes of each shard's directory."""
    return {shard.name: sum(path.stat().st_size for path in shard.glob("segment_*")) for shard in run.replay.iterdir()}


def work_again(run: DeadlyRun, network: Network, episodes: dict[int, tuple[int, int]], sizes: dict[str, int]) -> bool:
    """Whether every env runner and shard has stored more; a host that was taken for dead is started again."""
    for host in network.hosts:
        host.restart()
    newest, now = newest_of_runners(run), shard_sizes(run)
    return all(newest[runner] > each for runner, each in episodes.items()) and all(
        now[shard] > size for shard, size in sizes.items()
    )


@pytest.mark.parametrize("kind", ["EnvRunnerActor", "ReplayShardActor"])
@pytest.mark.parametrize("seconds", [20, 40])
def test_a_host_is_cut_off(run: DeadlyRun, network: Network, fault: Fault, kind: str, seconds: int) -> None:
    hosts = [network.host_of(actor.pid) for actor in run.actors(kind)]
    host = next(host for host in hosts if host is not network.head)
    host.cut()
    deadline_s = time.monotonic() + seconds
    run.wait_until(lambda: time.monotonic() > deadline_s)
    host.heal()
    what = {"EnvRunnerActor": "an env runner's", "ReplayShardActor": "a shard's"}[kind]
    with fault(f"{what} host: cut off for {seconds} s, from the healing on"):
        # What was on its way when it was cut off arrives first.
        run.goes_on()
        episodes, sizes = newest_of_runners(run), shard_sizes(run)
        # Every one of them works again, or another one in its place.
        run.wait_until(lambda: work_again(run, network, episodes, sizes))


def test_the_books_are_closed_and_nothing_is_left(run: DeadlyRun) -> None:
    """Last: the run ends."""
    run.num_silent_runners = run.num_warnings(r"the env runner \d died")
    run.win()
    assert_no_process_is_left()
