"""A run over Ray whose replay others fill up, delete and damage: it goes on, and its books close."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.ledger import UNSAID, check_counts
from helpers.small_disk import fill, make_room, small_disk
from helpers.small_run import SMALL
from helpers.watched_run import WatchedRun

from amago_ray.replay.layout import find_segments, find_shards

pytestmark = pytest.mark.timeout(300)

SETTINGS = [
    "rollout.num_env_runners=2",
    "replay.num_shards=2",
    "replay.samples_per_insert=2",
    "replay.segment_bytes=50000",
    "evaluation.interval_env_steps=100000000",
    "stop.env_steps=100000000",
    "report.loggers=[console,jsonl]",
]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with small_disk(tmp_path_factory.mktemp("small") / "disk", 64 * 1024**2) as path:
        yield path


@pytest.fixture(scope="module")
def harmed(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedRun]:
    settings = [*SMALL, *SETTINGS, f"replay.directory={disk}"]
    run = WatchedRun(tmp_path_factory.mktemp("harmed"), settings, name="small")
    run.start()
    try:
        run.wait_until_trained()
        yield run
    finally:
        run.end()


def segments(disk: Path) -> list[Path]:
    """Of the first shard, oldest first."""
    (directory,) = {path for path in disk.rglob("shard_0") if path in find_shards(path.parent)}
    return find_segments(directory)


def test_a_full_disk_pauses_acting_until_there_is_room(harmed: WatchedRun, disk: Path) -> None:
    fill(disk)
    harmed.wait_for_warning(r"\S+shard_\d: disk full: acting pauses until there is room")
    harmed.wait_until(lambda: harmed.last["replay/full_shards"] == 2)
    # Both runners wait with all the groups that may be unacknowledged.
    before = harmed.wait_until(lambda: len({report.get("env_steps") for report in harmed.reports[-4:]}) == 1)
    assert before
    make_room(disk)
    harmed.wait_for_warning(r"\S+shard_\d: there is room again: acting goes on")
    harmed.grows("env_steps", "learner_steps", "replay/inserted_timesteps")
    assert harmed.num_warnings(r"\S+shard_0: disk full") == harmed.num_warnings(r"\S+shard_0: there is room again") == 1
    assert harmed.num_warnings(r"the env runner") == 0, "nobody was taken for dead"


def test_what_is_deleted_and_damaged_is_lost_by_name(harmed: WatchedRun, disk: Path) -> None:
    oldest, second = harmed.wait_until(lambda: (found := segments(disk))[2:] and found[:2])
    oldest.unlink()
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 1
    second.write_bytes(content)
    harmed.kill("ReplayShardActor")
    harmed.kill("ReplayShardActor")
    harmed.wait_until(lambda: harmed.last["replay/deleted_episodes"] > 0)
    harmed.wait_until(lambda: harmed.last["replay/damaged_episodes"] > 0)
    harmed.wait_for_warning(r"\S+shard_0: segment 0 is deleted: \d+ episodes with \d+ transitions are lost")
    harmed.wait_for_warning(r"\S+shard_0: segment 1 is damaged: \d+ episodes with \d+ transitions are lost")
    harmed.grows("env_steps", "learner_steps", "replay/inserted_timesteps")


def test_the_books_close(harmed: WatchedRun) -> None:
    harmed.stop()
    last = harmed.last
    check_counts(harmed.reports)
    gone = sum(last[f"replay/{cause}_episodes"] for cause in ("evicted", "deleted", "damaged"))
    assert last["replay/inserted_episodes"] == last["replay/episodes"] + gone
    # Interrupted, runners do not come to say what was acknowledged last.
    assert 0 <= last["replay/inserted_episodes"] - last["rollout/stored_episodes"] <= 2 * UNSAID
