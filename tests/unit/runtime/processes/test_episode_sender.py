"""Episodes reach replay, whichever shards are replaced on the way."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.episodes import make_episode
from ray.exceptions import ActorUnavailableError

from amago_ray.errors import DataError, ReplacedError, TrainingError
from amago_ray.runtime.processes.episode_sender import EpisodeSender
from amago_ray.runtime.protocol.endings import Ending
from amago_ray.runtime.protocol.shard_table import ShardTable

DIED = Ending("died", error=TrainingError("its process died"))
STORED = Ending("returned", value=True)
FULL = Ending("returned", value=False)


class Shard:
    """A shard that answers what it is told to; nothing at first."""

    def __init__(self) -> None:
        self.calls: list[list[Ending | None]] = []
        self.groups: list[bytes] = []
        self.add = self

    def remote(self, group: bytes) -> list[Ending | None]:
        self.groups.append(group)
        self.calls.append([None])
        return self.calls[-1]

    def answer(self, end: Ending) -> None:
        """The last call has ended."""
        self.calls[-1][0] = end


class Scene:
    """A sender of groups of two episodes, two of them unacknowledged, to two shards."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.shards = [Shard(), Shard()]
        self.table = ShardTable()
        for number, shard in enumerate(self.shards):
            self.table = self.table.started(number, "host", "node", number, shard)
        self.sender = EpisodeSender(
            self.table,
            first_shard=3,
            episodes_per_add=2,
            max_unacknowledged_adds=2,
            lost_after_s=120.0,
            clock=lambda: self.now_s,
            outcome=lambda reference: reference[0],
        )

    def put(self, number: int) -> None:
        self.sender.put([make_episode(3, counter=counter) for counter in range(number)])

    def replace(self, number: int) -> Shard:
        self.shards[number] = Shard()
        self.table = self.table.started(number, "host", "node", 10 + self.table.version, self.shards[number])
        self.sender.update(self.table)
        return self.shards[number]


def test_groups_go_to_the_shards_in_turn_and_count_when_they_are_acknowledged() -> None:
    scene = Scene()
    scene.put(5)
    scene.sender.send()
    assert [len(shard.calls) for shard in scene.shards] == [1, 1], "the fifth waits for a group of its own"
    scene.shards[1].answer(STORED)
    scene.sender.send(force=True)
    assert [len(shard.calls) for shard in scene.shards] == [1, 2]
    assert (scene.sender.num_stored, scene.sender.is_done) == (2, False)
    for shard in scene.shards:
        shard.answer(STORED)
    scene.sender.send(force=True)
    assert (scene.sender.num_stored, scene.sender.is_done) == (5, True)


def test_it_is_full_when_another_group_has_no_room() -> None:
    scene = Scene()
    scene.put(4)
    scene.sender.send()
    assert not scene.sender.is_full, "acting goes on until the next group is complete"
    scene.put(2)
    assert scene.sender.is_full
    scene.sender.send()
    assert sum(len(shard.calls) for shard in scene.shards) == 2
    scene.shards[0].answer(STORED)
    scene.sender.send()
    assert not scene.sender.is_full
    assert sum(len(shard.calls) for shard in scene.shards) == 3


@pytest.mark.parametrize("end", [DIED, Ending("raised", error=ReplacedError("an older copy"))])
def test_what_a_dead_or_replaced_shard_has_not_acknowledged_goes_to_its_successor(end: Ending) -> None:
    scene = Scene()
    scene.put(2)
    scene.sender.send()
    former = scene.shards[1]
    former.answer(end)
    for _ in range(3):
        scene.now_s += 100
        scene.sender.send(force=True)
    assert len(former.calls) == 1, "nobody else is there yet"
    successor = scene.replace(1)
    assert successor.groups == former.groups
    successor.answer(STORED)
    scene.sender.send(force=True)
    assert scene.sender.is_done
    assert scene.sender.num_stored == 2


def test_a_successor_is_called_though_the_former_has_not_answered_and_what_was_acknowledged_is_not_sent_again() -> None:
    scene = Scene()
    scene.put(4)
    scene.sender.send()
    scene.shards[0].answer(STORED)
    assert scene.replace(0).groups == []
    silent = scene.shards[1]
    assert scene.replace(1).groups == silent.groups
    silent.answer(STORED)
    scene.sender.send(force=True)
    assert scene.sender.num_stored == 2, "the former shard's word does not count any more"
    assert scene.sender.table_version == scene.table.version


def test_a_shard_that_cannot_be_reached_is_called_again_after_a_pause() -> None:
    scene = Scene()
    scene.put(2)
    scene.sender.send()
    scene.shards[1].answer(Ending("died", error=ActorUnavailableError("no route", None)))
    scene.sender.send(force=True)
    assert len(scene.shards[1].calls) == 1
    scene.now_s += 1
    scene.sender.send(force=True)
    assert len(scene.shards[1].calls) == 2


def test_a_silent_shard_keeps_no_episodes_from_the_others() -> None:
    scene = Scene()
    silent, other = scene.shards[1], scene.shards[0]
    for _ in range(6):
        scene.put(2)
        scene.sender.send()
        if other.calls:
            other.answer(STORED)
    assert (len(silent.calls), len(other.calls)) == (1, 5)
    assert not scene.sender.is_full


def test_what_a_shard_cannot_store_is_raised() -> None:
    scene = Scene()
    scene.put(2)
    scene.sender.send()
    error: Any = DataError("add: another schema")
    scene.shards[1].answer(Ending("raised", error=error))
    with pytest.raises(DataError, match="another schema"):
        scene.sender.send(force=True)


def test_what_a_full_disk_refuses_is_kept_and_sent_again_after_a_while() -> None:
    scene = Scene()
    scene.put(6)
    scene.sender.send()
    scene.shards[1].answer(FULL)
    scene.sender.send()
    assert scene.sender.is_full, "no more should come"
    assert not scene.sender.is_refused, "the other shard may still answer"
    scene.shards[0].answer(FULL)
    scene.sender.send()
    assert scene.sender.is_refused
    assert [len(shard.calls) for shard in scene.shards] == [1, 1]
    scene.now_s += 100
    scene.sender.send()
    assert [len(shard.calls) for shard in scene.shards] == [2, 2]
    assert all(shard.groups[0].equals(shard.groups[1]) for shard in scene.shards)
    for _ in range(2):
        for shard in scene.shards:
            shard.answer(STORED)
        scene.sender.send(force=True)
    assert (scene.sender.num_stored, scene.sender.is_done, scene.sender.is_refused) == (6, True, False)


def test_a_full_shard_that_dies_is_waited_for_again() -> None:
    scene = Scene()
    scene.put(2)
    scene.sender.send()
    scene.shards[1].answer(FULL)
    scene.sender.send(force=True)
    assert scene.sender.is_refused
    scene.now_s += 100
    scene.sender.send(force=True)
    scene.shards[1].answer(DIED)
    scene.sender.send(force=True)
    assert not scene.sender.is_refused, "its successor may have room"


def test_a_group_whose_acknowledgement_is_lost_goes_to_the_same_shard_again_and_counts_once() -> None:
    scene = Scene()
    scene.put(2)
    scene.sender.send()
    shard = scene.shards[1]
    scene.now_s = 119.0
    scene.sender.send(force=True)
    assert len(shard.calls) == 1
    scene.now_s = 121.0
    scene.sender.send(force=True)
    assert len(shard.calls) == 2
    assert shard.groups[0] == shard.groups[1]
    shard.answer(STORED)
    scene.sender.send(force=True)
    assert scene.sender.num_stored == 2
    assert scene.sender.is_done
