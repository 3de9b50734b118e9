"""The disk of replay, or of the run directory, has no room for a while: the run says so and goes on when there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.deadly_parts import DeadlyRun
from helpers.node_cluster import NodeCluster
from helpers.small_disk import fill, make_room, small_disk

from .conftest import Fault, assert_no_process_is_left

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SIZE = 64 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", SIZE) as disk:
        yield disk


def trained(run: DeadlyRun) -> Iterator[DeadlyRun]:
    run.start()
    try:
        run.wait_until_trained()
        yield run
    finally:
        run.end()


@pytest.fixture
def stored_there(cluster: NodeCluster, tmp_path: Path, disk: Path) -> Iterator[DeadlyRun]:
    """A run whose replay is on the small disk."""
    yield from trained(DeadlyRun(tmp_path, cluster, f"replay.directory={disk / 'replay'}", replay=disk / "replay"))


@pytest.fixture
def written_there(cluster: NodeCluster, tmp_path: Path, disk: Path) -> Iterator[DeadlyRun]:
    """A run whose directory is on the small disk, and whose replay is not."""
    replay = tmp_path / "replay"
    yield from trained(
        DeadlyRun(tmp_path, cluster, f"replay.directory={replay}", replay=replay, runs_dir=disk / "runs")
    )


def test_replay_without_room(stored_there: DeadlyRun, disk: Path, fault: Fault) -> None:
    """Acting pauses, and what is not stored yet waits."""
    run = stored_there
    fill(disk)
    run.wait_for_warning(r".*shard_\d: disk full: acting pauses until there is room")
    stands_still(run)
    with fault("disk of replay: full, from the room on"):
        make_room(disk)
        run.goes_on()
    run.wait_for_warning(r".*shard_\d: there is room again: acting goes on")
    run.win()
    assert_no_process_is_left()


def test_a_run_directory_without_room(written_there: DeadlyRun, disk: Path, fault: Fault) -> None:
    """Training goes on; what could not be written is said, and written when there is room."""
    run = written_there
    saved = run.saved["learner_steps"]
    fill(disk)
    run.wait_for_warning(r"no checkpoint: .*No space left on device")
    size = sum(path.stat().st_size for path in run.replay.rglob("segment_*"))
    run.wait_until(lambda: sum(path.stat().st_size for path in run.replay.rglob("segment_*")) > size)
    with fault("disk of the run directory: full, from the room on"):
        make_room(disk)
        run.wait_until(lambda: run.saved["learner_steps"] > saved)
        run.goes_on()
    run.win()
    assert_no_process_is_left()


def test_resuming_without_room_is_one_line(written_there: DeadlyRun, disk: Path) -> None:
    run = written_there
    run.stop()
    run.num_silent_runners += 2
    before = len(run.output)
    fill(disk)
    run.start("--resume")
    code = run.process.wait(timeout=120)
    printed = run.output[before:]
    assert code == 2, printed
    assert printed.count("No space left on device") == 1, printed
    assert "Traceback" not in printed, printed
    make_room(disk)
    run.start("--resume")
    run.goes_on()
    run.win()
    assert_no_process_is_left()


def stands_still(run: DeadlyRun) -> None:
    """Wait until some reports have shown that no env step is made."""
    run.wait_until(lambda: len({report["env_steps"] for report in run.reports[-6:]}) == 1)
