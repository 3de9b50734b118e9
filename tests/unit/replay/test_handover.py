"""What another directory of a shard holds is handed over, newest first, and no episode is stored twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.episodes import make_episode

from amago_ray.config.replay import ReplayConfig
from amago_ray.errors import DataError, ReplacedError
from amago_ray.relabel.relabeler import NoRelabeler
from amago_ray.replay import ReplayShard
from amago_ray.replay.handover import find_files, hand_over
from amago_ray.replay.owner import Claim

CLAIM = Claim(7, "new")


def open_shard(directory: Path, *, incarnation: int, capacity: int = 10_000) -> ReplayShard:
    return ReplayShard(
        ReplayConfig(capacity_timesteps=capacity),
        directory=directory,
        context_length=100,
        relabeler=NoRelabeler(),
        claim=CLAIM,
        shard=1,
        incarnation=incarnation,
    )


def add(shard: ReplayShard, *counters: int) -> None:
    for counter in counters:
        shard.add([make_episode(10, counter=counter, grid=1000)])


def counters(shard: ReplayShard) -> set[int]:
    return set(shard.sample(500).episode_ids[:, 3].tolist())


@pytest.fixture
def former(tmp_path: Path) -> ReplayShard:
    """A shard of six episodes, whose process lives on; it has a segment for each."""
    shard = open_shard(tmp_path / "there" / "shard_1", incarnation=3, capacity=160)
    add(shard, *range(6))
    return shard


def give(tmp_path: Path, shard: ReplayShard) -> tuple[int, int]:
    return hand_over(tmp_path / "there" / "shard_1", CLAIM, shard=1, incarnation=9, take=shard.take_back)


def test_all_but_what_is_stored_already_is_taken_and_the_directory_goes(tmp_path: Path, former: ReplayShard) -> None:
    shard = open_shard(tmp_path / "here" / "shard_1", incarnation=5)
    add(shard, 5, 6)
    assert give(tmp_path, shard) == (5, 6)
    assert counters(shard) == set(range(7))
    assert not (tmp_path / "there" / "shard_1").exists()
    report = shard.report()
    assert (report.stored_episodes, report.inserted_episodes) == (7, 7)
    assert (report.returned_episodes, report.returned_transitions) == (5, 50)
    with pytest.raises(DataError):
        add(former, 7)


def test_the_newest_are_taken_as_far_as_there_is_room(tmp_path: Path, former: ReplayShard) -> None:
    shard = open_shard(tmp_path / "here" / "shard_1", incarnation=5, capacity=40)
    add(shard, 6, 7)
    assert give(tmp_path, shard) == (2, 6)
    assert counters(shard) == {4, 5, 6, 7}
    assert shard.report().evicted_episodes == 0, "nothing newer makes room"


def test_broken_off_it_can_be_done_again_and_the_former_process_writes_no_longer(
    tmp_path: Path, former: ReplayShard
) -> None:
    shard = open_shard(tmp_path / "here" / "shard_1", incarnation=5)
    groups = 0

    def breaks(group: bytes) -> int:
        nonlocal groups
        groups += 1
        if groups > 2:
            raise ConnectionError("the shard is gone")
        return shard.take_back(group)

    with pytest.raises(ConnectionError):
        hand_over(tmp_path / "there" / "shard_1", CLAIM, shard=1, incarnation=8, take=breaks)
    with pytest.raises(ReplacedError):
        add(former, 7)
    assert give(tmp_path, shard) == (4, 6)
    assert counters(shard) == set(range(6))


def test_files_that_their_shard_goes_on_with_meanwhile_stay(tmp_path: Path, former: ReplayShard) -> None:
    shard = open_shard(tmp_path / "here" / "shard_1", incarnation=5)
    successors = []

    def take(group: bytes) -> int:
        successors.append(open_shard(tmp_path / "there" / "shard_1", incarnation=10 + len(successors)))
        return shard.take_back(group)

    with pytest.raises(ReplacedError):
        hand_over(tmp_path / "there" / "shard_1", CLAIM, shard=1, incarnation=9, take=take)
    assert counters(successors[-1]) == set(range(6))


def test_only_wanted_files_of_the_run_are_found(tmp_path: Path, former: ReplayShard) -> None:
    wanted: Any = {(1, 3): None, (1, 4): None, (0, 3): None}
    assert find_files(tmp_path / "there", CLAIM.run_id, wanted) == [(1, 3)]
    assert find_files(tmp_path / "there", CLAIM.run_id, {(1, 4): None}) == [], "of another epoch"
    assert find_files(tmp_path / "there", 8, wanted) == [], "of another run"
    assert find_files(tmp_path / "nowhere", CLAIM.run_id, wanted) == []
