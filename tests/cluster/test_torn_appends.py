"""A shard gets SIGKILL in the middle of writing a group of large episodes: what is torn is cut and counted."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.deadly_parts import DeadlyRun
from helpers.node_cluster import NodeCluster
from helpers.processes import open_files

from amago_ray.replay.layout import find_segments

from .conftest import Fault, assert_nothing_is_left

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

BALLAST = 30_000
"""Bytes of an observation: an episode takes 1.2 MB, a group 10."""
TRIES = 10


@pytest.fixture
def run(cluster: NodeCluster, tmp_path: Path) -> Iterator[DeadlyRun]:
    run = DeadlyRun(tmp_path, cluster, "rollout.num_env_runners=1", ballast=BALLAST, pause_s=0.001)
    run.start()
    try:
        run.wait_until_trained()
        yield run
    finally:
        run.end()


def kill_while_it_writes(pid: int) -> None:
    """Kill a shard as soon as a file of its grows."""
    directory = next(Path(path).parent for path in open_files(pid) if Path(path).name == "owner.json")
    newest = find_segments(directory)[-1]
    size = newest.stat().st_size
    while newest.stat().st_size == size:
        if not os.path.exists(f"/proc/{pid}"):
            return
        newest = find_segments(directory)[-1]
        if newest.stat().st_size < size:
            size = newest.stat().st_size
    os.kill(pid, signal.SIGKILL)


def test_a_shard_in_the_middle_of_an_append(run: DeadlyRun, cluster: NodeCluster, fault: Fault) -> None:
    num_tries = 0
    while not run.last["replay/torn_bytes"]:
        num_tries += 1
        assert num_tries <= TRIES, "one kill of them hits a write"
        died = run.num_warnings(r"the replay shard \d died")
        with fault("shard: SIGKILL in the middle of an append"):
            kill_while_it_writes(run.actors("ReplayShardActor")[0].pid)
            run.wait_until(lambda died=died: run.num_warnings(r"the replay shard \d died") > died)
            run.goes_on()
    run.win()
    assert_nothing_is_left(cluster, run)
