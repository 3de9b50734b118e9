"""Shards die, alone and with their nodes: who is started again where, what is lost by name, and what comes back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.local_runs import tiny_config
from ray.exceptions import ActorUnavailableError

from amago_ray.config.supervision import SupervisionConfig
from amago_ray.errors import DataError, TrainingError
from amago_ray.replay.reports import ShardReport
from amago_ray.runtime.cluster.placement import Node, place_shards
from amago_ray.runtime.driver.pulse_watch import PulseWatch
from amago_ray.runtime.driver.shards import Shards
from amago_ray.runtime.processes.returned_files import ReturnedFiles
from amago_ray.runtime.protocol.endings import Ending
from amago_ray.runtime.protocol.shard_table import ShardTable, read_table

A, B = Node("a", "host_a", num_cpus=4), Node("b", "host_b", num_cpus=4)
DIED = Ending("died", error=TrainingError("its process died"))


class Actor:
    """Calls are told apart by what they return."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[str] = []

    def __getattr__(self, method: str) -> Any:
        if method.startswith("__"):
            raise AttributeError(method)
        return Method(self, method)


class Method:
    def __init__(self, actor: Actor, method: str) -> None:
        self._actor, self._method = actor, method

    def remote(self, *arguments: Any) -> str:
        self._actor.calls.append(self._method)
        return f"{self._actor.name} {self._method} {len(self._actor.calls)}"


class Scene:
    """Two shards on two nodes, and a clock."""

    def __init__(self, tmp_path: Path, before: ShardTable | None = None, counts: Any = None) -> None:
        config = tiny_config(tmp_path, replay={"num_shards": 2})
        self.now_s = 0.0
        self.nodes = [A, B]
        self.draining: set[str] = set()
        self.control = Actor("control")
        self.started: list[tuple[int, str, float]] = []
        self.asked: list[tuple[str, list[tuple[int, int]]]] = []
        self.ends: dict[Any, Ending] = {}
        self.shards = Shards(
            config,
            self,  # type: ignore[arg-type]
            self._nodes,
            PulseWatch(SupervisionConfig(), 1.0, lambda: self.now_s),
            lambda: self.draining,
            clock=lambda: self.now_s,
            ending=lambda reference: self.ends[reference],
        )
        before = before or ShardTable()
        places = place_shards(2, self.nodes, spread=True, before=before.hosts)
        self.shards.start(places, self.control, before, counts or {})

    def _nodes(self) -> list[Node]:
        if not self.nodes:
            raise TrainingError("cluster.labels.replay_shard: no such node")
        return self.nodes

    def start_shard(self, number: int, node_id: str, control: Any, num_cpus: float) -> tuple[int, Actor]:
        self.started.append((number, node_id, num_cpus))
        incarnation = len(self.started)
        return incarnation, Actor(f"shard {number}:{incarnation}")

    def return_files(self, node_id: str, wanted: Mapping[tuple[int, int], Any]) -> str:
        self.asked.append((node_id, sorted(wanted)))
        return f"return {len(self.asked)}"

    def hear(self, pattern: str, end: Ending) -> list[str]:
        """A call whose reference has this in it has ended."""
        (reference,) = [each for each in self.shards.watches if pattern in each]
        self.ends[reference] = end
        return self.shards.answer(reference)

    def open(self, number: int, epoch: int, reports: Mapping[int, ShardReport] | None = None) -> list[str]:
        """The newest process of a shard has opened its files."""
        incarnation = self.shards.table.entries[number].incarnation
        warnings = self.hear(f"shard {number}:{incarnation} open", Ending("returned", value=epoch))
        return [*warnings, *self.shards.settle(reports or {})]


def report(stored: int, inserted: int) -> ShardReport:
    zeros = {field.name: 0 for field in dataclasses.fields(ShardReport) if field.name != "warnings"}
    return ShardReport(
        **{
            **zeros,
            "stored_episodes": stored,
            "stored_transitions": 10 * stored,
            "inserted_episodes": inserted,
            "inserted_transitions": 10 * inserted,
            "evicted_episodes": inserted - stored,
        }
    )


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path)
    assert [place[:2] for place in scene.started] == [(0, "a"), (1, "b")]
    assert set(scene.shards.unmade) == {"replay shard 0", "replay shard 1"}
    assert scene.open(0, 1) == scene.open(1, 2) == []
    assert not scene.shards.unmade
    scene.shards.settle({0: report(5, 5), 1: report(7, 9)})
    return scene


def test_a_process_that_dies_is_started_again_on_its_node_and_goes_on(scene: Scene) -> None:
    version = scene.shards.table.version
    assert scene.hear("shard 1:2 watch", DIED) == []
    assert scene.shards.next_due_s() == 0
    assert scene.shards.start_due() == []
    assert scene.started[2:] == [(1, "b", 0.0)], "it reserves nothing, so that it finds room at once"
    entry = scene.shards.table.entries[1]
    assert (entry.incarnation, entry.is_open) == (3, False)
    assert scene.shards.table.version > version
    assert scene.control.calls[-1] == "set_table"
    (warning,) = scene.open(1, 2)
    assert "the replay shard 1 died and was started again: it goes on from what is on its disk" in warning
    assert scene.shards.table.entries[1].is_open
    assert entry.actor.calls[-1] == "report", "asked when the control actor knows its files"
    assert not scene.shards.table.left_behind
    assert scene.shards.num_restarts == 1


def test_a_shard_that_dies_again_and_again_waits_longer_and_ends_the_run_with_the_reason(scene: Scene) -> None:
    pauses = []
    for incarnation in (2, *range(3, 12)):
        scene.hear(f"shard 1:{incarnation} watch", DIED)
        pauses.append(scene.shards.next_due_s())
        scene.now_s += pauses[-1]
        scene.shards.start_due()
    with pytest.raises(TrainingError, match="replay shard 1 died 10 times in a row, at last of: its process died"):
        scene.hear("shard 1:12 watch", DIED)
    assert pauses[:4] == [0, 0.25, 0.5, 1.0]


def test_what_was_on_a_node_that_is_gone_is_lost_by_name_and_the_shard_begins_anew_elsewhere(scene: Scene) -> None:
    scene.nodes = [A]
    scene.hear("shard 1:2 watch", DIED)
    scene.shards.start_due()
    assert scene.started[-1] == (1, "a", 0.0)
    # Its last report, which came after its death was noticed.
    (warning,) = scene.open(1, 3, {0: report(5, 5), 1: report(8, 10)})
    assert "lost its files on host_b: 8 episodes of 80 transitions; it begins anew on host_a" in warning
    (left,) = scene.shards.table.left_behind
    assert (left.number, left.epoch, left.host, left.counts.stored_episodes) == (1, 2, "host_b", 8)
    assert left.counts.inserted_episodes == 10


def test_what_is_left_for_older_files_is_lost_by_name_too(scene: Scene) -> None:
    scene.nodes = [A]
    scene.hear("shard 1:2 watch", DIED)
    scene.shards.start_due()
    scene.open(1, 3, {0: report(5, 5), 1: report(7, 9)})
    scene.shards.settle({1: report(4, 4)})
    scene.nodes = [Node("b again", "host_b", num_cpus=4)]
    scene.hear("shard 1:3 watch", DIED)
    scene.now_s += 10
    scene.shards.start_due()
    (warning,) = scene.open(1, 2)
    assert "lost its files on host_a: 4 episodes of 40 transitions; it begins anew on host_b" in warning
    assert [(left.epoch, left.counts.stored_episodes) for left in scene.shards.table.left_behind] == [(3, 4)]
    assert scene.hear("return 1", Ending("returned", value=[ReturnedFiles(1, 2, error="the shard died")])) == []


def test_files_on_a_shared_disk_are_gone_on_with_elsewhere(scene: Scene) -> None:
    scene.nodes = [A]
    scene.hear("shard 1:2 watch", DIED)
    scene.shards.start_due()
    (warning,) = scene.open(1, 2)
    assert "died and was started again on host_a: it goes on" in warning
    assert not scene.shards.table.left_behind


def test_a_node_that_comes_back_is_asked_once_and_what_it_returns_is_said(scene: Scene) -> None:
    scene.nodes = [A]
    scene.hear("shard 1:2 watch", DIED)
    scene.shards.start_due()
    scene.open(1, 3)
    assert scene.asked == [("a", [(1, 2)])], "it may be there"
    assert scene.hear("return 1", Ending("returned", value=[])) == []
    scene.nodes = [A, Node("b again", "host_c", num_cpus=4)]
    scene.shards.settle({})
    assert scene.asked[1:] == [("b again", [(1, 2)])], "whatever its address"
    failed = ReturnedFiles(1, 2, error="the shard died")
    (warning,) = scene.hear("return 2", Ending("returned", value=[failed]))
    assert "the episodes of the replay shard 1 from host_b stay there: the shard died" in warning
    scene.shards.settle({})
    assert len(scene.asked) == 2
    scene.now_s += 100
    scene.shards.settle({})
    assert scene.asked[2][0] == "a", "all once more"
    scene.hear("return 3", Ending("returned", value=[]))
    scene.shards.settle({})
    (warning,) = scene.hear("return 4", Ending("returned", value=[ReturnedFiles(1, 2, 6, 7)]))
    assert "the files of the replay shard 1 from host_b are back: 6 of 7 episodes" in warning
    assert [left.is_back for left in scene.shards.table.left_behind] == [True]
    scene.now_s += 100
    scene.shards.settle({})
    assert len(scene.asked) == 4, "nothing more is wanted"


def test_one_that_cannot_be_reached_is_asked_again_and_not_replaced(scene: Scene) -> None:
    scene.hear("shard 1:2 watch", Ending("died", error=ActorUnavailableError("no route", None)))
    assert scene.shards.start_due() == []
    scene.now_s += 1
    scene.shards.start_due()
    assert len(scene.started) == 2
    assert [each for each in scene.shards.watches if "shard 1:2 watch" in each]


def test_files_that_cannot_be_opened_on_a_node_are_not_tried_there_again(scene: Scene) -> None:
    scene.hear("shard 1:2 watch", DIED)
    scene.shards.start_due()
    (warning,) = scene.hear("shard 1:3 open", Ending("raised", error=DataError("shard_1: cannot write there")))
    assert "the replay shard 1 cannot be made on host_b: shard_1: cannot write there" in warning
    scene.now_s += 10
    scene.shards.start_due()
    assert [node for _, node, _ in scene.started[2:]] == ["b", "a"]
    scene.hear("shard 1:4 open", Ending("raised", error=DataError("nor here")))
    scene.now_s += 10
    scene.shards.start_due()
    with pytest.raises(DataError, match="nor here either"):
        scene.hear("shard 1:5 open", Ending("raised", error=DataError("nor here either")))


def test_a_shard_without_a_node_waits_and_says_so_and_none_goes_where_it_would_have_to_leave(scene: Scene) -> None:
    scene.nodes = []
    scene.hear("shard 1:2 watch", DIED)
    (warning,) = scene.shards.start_due()
    assert "the replay shard 1 waits for a node: cluster.labels.replay_shard" in warning
    scene.nodes = [A, Node("c", "host_c", num_cpus=4)]
    scene.draining = {"c"}
    scene.now_s += scene.shards.next_due_s()
    assert scene.shards.start_due() == []
    assert scene.started[-1][1] == "a"


def test_a_resumed_run_tells_by_the_files_whether_a_host_has_them(scene: Scene, tmp_path: Path) -> None:
    before, counts = read_table({"shard_table": scene.shards.state()}, 2)
    resumed = Scene(tmp_path, before, counts)
    assert resumed.open(0, 1) == []
    # Another machine has the address.
    (warning,) = resumed.open(1, 5)
    assert "the replay shard 1 lost its files on host_b: 7 episodes of 70 transitions" in warning
    assert resumed.asked == [("a", [(1, 2)])]
