"""A disk without room: nothing half-written, said once, and the same group fits when there is room."""

import shutil

import pytest
from helpers.episodes import make_episode
from helpers.full_disk import full_disk
from helpers.small_disk import fill, make_room, small_disk

from amago_ray.config.replay import ReplayConfig
from amago_ray.errors import DiskFullError
from amago_ray.relabel import NoRelabeler
from amago_ray.replay import ReplayShard


def episode(counter, length=100):
    return make_episode(length, counter=counter, grid=1000)


def open_shard(directory, incarnation=0, **settings):
    config = ReplayConfig(**settings)
    return ReplayShard(
        config, directory=directory, context_length=100, relabeler=NoRelabeler(), incarnation=incarnation
    )


def test_a_full_disk_is_said_when_it_begins_and_when_it_ends(tmp_path):
    shard = open_shard(tmp_path)
    shard.add([episode(0)])
    for _ in range(2):
        with full_disk(), pytest.raises(DiskFullError):
            shard.add([episode(1)])
    report = shard.report()
    assert report.is_full
    assert report.warnings == (f"{tmp_path}: disk full: acting pauses until there is room",)
    assert (report.stored_episodes, report.inserted_episodes) == (1, 1)
    shard.add([episode(1)])
    report = shard.report()
    assert not report.is_full
    assert report.warnings_after(1) == (f"{tmp_path}: there is room again: acting goes on",)
    assert (report.stored_episodes, report.inserted_episodes, report.num_duplicates) == (2, 2, 0)


def fill_shard(shard, first):
    """Adds until the disk is full, or enough; returns which episode did not fit."""
    for counter in range(first, 60):
        try:
            shard.add([episode(counter)])
        except DiskFullError:
            return counter
    return 60


def test_what_is_over_capacity_makes_room_first(tmp_path):
    """As much fits on the disk as may be stored: not one group more, before another one goes."""
    with small_disk(tmp_path / "disk", 256 * 1024) as disk:
        first = open_shard(disk / "shard_0", segment_bytes=1)
        fits = fill_shard(first, 0)
        first.close()
        shutil.rmtree(disk / "shard_0")
        shard = open_shard(disk / "shard_1", segment_bytes=1, capacity_timesteps=100 * fits)
        assert fits < 40
        assert fill_shard(shard, 0) == 60
        assert shard.report().evicted_episodes > 20
        assert shard.report().num_warnings == 0
        shard.close()


def test_a_shard_is_reopened_on_a_full_disk_and_goes_on_when_there_is_room(tmp_path):
    with small_disk(tmp_path / "disk", 256 * 1024) as disk:
        shard = open_shard(disk / "shard_0")
        for stored in range(4):
            shard.add([episode(stored)])
        fill(disk)
        shard.close()
        shard = open_shard(disk / "shard_0", incarnation=1)
        assert shard.report().stored_episodes == 4
        assert fill_shard(shard, 4) == 4
        assert shard.report().is_full
        make_room(disk)
        assert shard.add([episode(4)]).num_episodes == 1
        assert not shard.report().is_full
        assert shard.report().num_warnings == 2
        shard.close()
