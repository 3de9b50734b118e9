"""The table of shards: processes that follow each other, files that are left behind and found again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helpers.one_line import one_line

from amago_ray.errors import CheckpointError
from amago_ray.replay.reports import ShardCounts
from amago_ray.runtime.protocol.shard_table import LeftBehind, ShardTable, read_table

HELD = ShardCounts(inserted_episodes=10, inserted_transitions=100, stored_episodes=6, stored_transitions=60)


def two_shards() -> ShardTable:
    table = ShardTable()
    for number in range(2):
        table = table.started(number, f"host_{number}", f"node_{number}", 7 + number, f"actor_{number}")
    for number in range(2):
        table = table.opened(number, 7 + number, None)
    return table


def test_every_change_is_a_newer_version() -> None:
    table = ShardTable()
    versions = [table.version]
    for change in (
        lambda table: table.started(0, "host", "node", 1, "actor"),
        lambda table: table.opened(0, 1, None),
        lambda table: table.started(0, "host", "node", 2, "actor"),
        lambda table: table.opened(0, 2, HELD),
    ):
        before, table = table, change(table)
        versions.append(table.version)
        assert before.version == versions[-2], "who has an older one keeps it as it was"
    assert versions == sorted(set(versions))


def test_a_process_that_goes_on_with_the_same_files_leaves_nothing_behind() -> None:
    table = two_shards().started(1, "host_1", "node_1", 9, "another")
    assert table.actors == ["actor_0", "another"]
    assert (table.entries[1].is_open, table.entries[1].epoch) == (False, 8)
    table = table.opened(1, 8, HELD)
    assert (table.entries[1].is_open, table.entries[1].epoch, table.left_behind) == (True, 8, ())


def test_the_same_files_on_another_node_are_a_shared_directory() -> None:
    table = two_shards().started(1, "host_0", "node_0", 9, "another")
    assert table.hosts == {0: "host_0", 1: "host_1"}, "where its files are, until they are opened elsewhere"
    table = table.opened(1, 8, HELD)
    assert (table.hosts, table.left_behind) == ({0: "host_0", 1: "host_0"}, ())


def test_other_files_mean_that_the_former_are_left_behind_until_they_are_found_again() -> None:
    table = two_shards().started(1, "host_0", "node_0", 9, "another").opened(1, 9, HELD)
    assert table.left_behind == (LeftBehind(1, 8, "host_1", HELD),)
    assert table.hosts == {0: "host_0", 1: "host_0"}
    again = table.started(1, "host_1", "node_3", 10, "a third").opened(1, 8, ShardCounts(stored_episodes=2))
    assert again.left_behind == (LeftBehind(1, 9, "host_0", ShardCounts(stored_episodes=2)),)


def test_files_that_were_handed_over_stay_counted_as_back() -> None:
    table = two_shards().started(1, "host_0", "node_0", 9, "another").opened(1, 9, HELD)
    back = table.returned(1, 8)
    assert [each.is_back for each in (*table.left_behind, *back.left_behind)] == [False, True]
    assert back.version > table.version
    assert read_table({"shard_table": back.plain({})}, 2)[0].left_behind == back.left_behind


def test_a_checkpoint_keeps_it() -> None:
    table = two_shards().started(1, "host_0", "node_0", 9, "another").opened(1, 9, HELD)
    counts = {0: HELD, 1: ShardCounts(inserted_episodes=1, stored_episodes=1)}
    state = json.loads(json.dumps({"shard_table": table.plain(counts)}))
    found, found_counts = read_table(state, 2)
    assert found_counts == counts
    assert found.left_behind == table.left_behind
    assert {number: (each.epoch, each.files_host) for number, each in found.entries.items()} == {
        0: (7, "host_0"),
        1: (9, "host_0"),
    }
    assert not any(each.is_open for each in found.entries.values())
    assert set(read_table(state, 1)[0].entries) == {0}, "of a run that has fewer shards now"


def test_of_earlier_versions_it_is_known_where_the_files_are() -> None:
    found, counts = read_table({"shard_hosts": {"0": "host_0", "1": "host_1"}}, 2)
    assert (found.hosts, counts) == ({0: "host_0", 1: "host_1"}, {})
    table = found.started(0, "host_2", "node", 1, "actor").opened(0, 1, None)
    assert table.left_behind == (), "what they held is not known"
    assert read_table({}, 2) == (ShardTable(), {})


@pytest.mark.parametrize(
    "state",
    [
        {"shard_table": 3},
        {"shard_table": {"shards": [{}]}},
        {"shard_table": {"shards": [{"number": 0, "epoch": "x", "host": "a", "counts": {}}]}},
        {"shard_table": {"left_behind": [{"number": 0, "epoch": 1, "host": "a", "counts": {"a": 1}}]}},
    ],
)
def test_a_state_that_says_something_else_is_refused_in_one_line(state: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="expected the table of replay shards") as error:
        read_table(state, 1)
    one_line(error)
