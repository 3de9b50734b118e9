"""Env runners that come and go, with scripted actors and a clock that is set."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from amago_ray.config.rollout import RolloutConfig
from amago_ray.config.supervision import SupervisionConfig
from amago_ray.errors import TrainingError
from amago_ray.runtime.driver.pulse_watch import PulseWatch
from amago_ray.runtime.driver.runners import Runners
from amago_ray.runtime.driver.supervisor import Supervisor
from amago_ray.runtime.protocol.endings import Ending

RETURNED = Ending("returned")
DIED = Ending("died", error=RuntimeError("killed"))
PREEMPTED = Ending("died", error=RuntimeError("node has died"), is_preempted=True)


class Call:
    """A method of a scripted actor: each call is kept, and returns a reference."""

    def __init__(self, name: str, calls: list[tuple[Any, ...]]) -> None:
        self._name = name
        self._calls = calls

    def remote(self, *arguments: Any) -> str:
        self._calls.append((self._name, *arguments))
        return self._name


class Actor:
    """Has every method; those of a runner return references with its name and incarnation."""

    def __init__(self, prefix: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._prefix = prefix

    def __getattr__(self, name: str) -> Call:
        return Call(f"{self._prefix}{name}", self.calls)


class Cluster:
    """Stands in for the actors of a run and for the cluster: places and makes runners when told to."""

    def __init__(self, num_places: int) -> None:
        self.num_places = num_places
        self.draining: Collection[str] = ()
        self.there: dict[int, int] = {}
        """Incarnations of the runners that have a process, or wait for one."""
        self._nodes: dict[str, tuple[str, str]] = {}
        self._num_started = 0

    def start_runner(self, number: int, control: Any, table: Any) -> tuple[int, Actor]:
        assert number not in self.there
        self._num_started += 1
        self.there[number] = self._num_started
        return self._num_started, Actor(f"{number}:{self._num_started} ")

    def kill(self, part: str, *, for_good: bool) -> None:
        assert for_good
        number = int(part.removeprefix("env_runner_"))
        incarnation = self.there.pop(number, None)
        self._nodes.pop(f"{number}:{incarnation}", None)

    def answer(self, reference: str) -> tuple[Any, ...]:
        process, _, method = reference.partition(" ")
        if process not in self._nodes and len(self._nodes) < self.num_places:
            # Each node has room for one.
            free = next(each for each in "abcdefgh" if each not in {node for node, _ in self._nodes.values()})
            self._nodes[process] = (free, f"host_{free}")
        if process not in self._nodes:
            return ()
        return (self._nodes[process],) if method == "whereabouts" else (None,)


class Scene:
    def __init__(self, num_places: int, **settings: int) -> None:
        self.now_s = 100.0
        self.cluster = Cluster(num_places)
        self.control = Actor()
        pulses = PulseWatch(SupervisionConfig(), 5.0, lambda: self.now_s)
        self.supervisor = Supervisor(lambda: self.now_s, pulses)
        self.runners = Runners(
            RolloutConfig(**settings),
            self.cluster,  # type: ignore[arg-type]
            self.supervisor,
            lambda: self.cluster.draining,
            lambda: self.now_s,
            self.cluster.answer,
        )
        self.runners.start(self.control, lambda: None)  # type: ignore[arg-type, return-value]
        self.warnings = self.runners.look()

    def end(self, number: int, ending: Ending) -> str | None:
        """The process of a runner ends."""
        warning = self.supervisor.ended(f"{number}:{self.cluster.there[number]} run", ending)
        self.supervisor.start_due()
        return warning

    def look_for(self, time_s: float) -> list[str]:
        """What is said in the next seconds."""
        said = []
        for _ in range(round(time_s)):
            self.now_s += 1
            said += self.runners.look()
        return said

    @property
    def told_to_leave(self) -> Mapping[int, int]:
        return [call[1] for call in self.control.calls if call[0] == "send_away"][-1]

    @property
    def gone(self) -> list[tuple[int, int]]:
        return [(call[1], call[2]) for call in self.control.calls if call[0] == "runner_gone"]


def test_more_are_started_and_fewer_leave_by_themselves() -> None:
    scene = Scene(8, num_env_runners=1, max_env_runners=5)
    assert scene.runners.scale(3) == "3 env runners are wanted from now on, 1 were before"
    assert scene.runners.num_running == 3
    assert set(scene.cluster.there) == {0, 1, 2}

    scene.runners.scale(1)
    assert scene.told_to_leave == {1: 2, 2: 3}
    assert set(scene.cluster.there) == {0, 1, 2}, "they hand over what they have finished"
    assert scene.end(2, RETURNED) is None
    assert scene.end(1, RETURNED) is None
    assert set(scene.cluster.there) == {0}
    assert scene.gone == [(2, 3), (1, 2)]
    assert scene.supervisor.names == ["env runner 0"]
    assert scene.runners.metrics() == {"rollout/num_env_runners": 1.0, "rollout/wanted_env_runners": 1.0}


def test_numbers_of_those_that_have_left_are_used_again_with_higher_incarnations() -> None:
    scene = Scene(8, num_env_runners=3, max_env_runners=5)
    scene.runners.scale(1)
    scene.end(1, RETURNED)
    scene.runners.scale(3)
    assert scene.cluster.there == {0: 1, 1: 4, 2: 3, 3: 5}, "2 has been told to leave and has not left"
    assert scene.end(2, DIED) == "the env runner 2 died when it was to leave: RuntimeError: killed"
    assert set(scene.cluster.there) == {0, 1, 3}


def test_those_that_wait_for_a_place_go_first_and_at_once() -> None:
    scene = Scene(2, num_env_runners=2, max_env_runners=5)
    scene.runners.scale(4)
    assert scene.runners.num_running == 2
    scene.end(0, DIED)
    scene.cluster.answer("3:4 whereabouts")
    scene.runners.scale(2)
    assert set(scene.cluster.there) == {1, 3}, "0, which was started again, and 2 have no place"
    assert not any(call[0] == "send_away" for call in scene.control.calls)


def test_an_order_to_leave_is_repeated_until_it_is_followed() -> None:
    scene = Scene(8, num_env_runners=2)
    scene.runners.scale(1)
    scene.control.calls.clear()
    scene.look_for(3)
    assert scene.control.calls == [("send_away", {1: 2})] * 3
    scene.end(1, RETURNED)
    scene.control.calls.clear()
    scene.look_for(3)
    assert scene.control.calls == []


def test_one_that_waits_to_be_started_again_is_not_started_when_fewer_are_wanted() -> None:
    scene = Scene(8, num_env_runners=2)
    scene.end(1, DIED)
    scene.end(1, DIED)
    assert set(scene.cluster.there) == {0}
    scene.runners.scale(1)
    scene.now_s += 60
    scene.supervisor.start_due()
    assert set(scene.cluster.there) == {0}


def test_runners_of_a_node_that_is_taken_away_are_replaced_however_often_that_happens() -> None:
    scene = Scene(8, num_env_runners=2)
    for incarnation in range(2, 40):
        node = scene.cluster.answer(f"1:{scene.cluster.there[1]} whereabouts")[0]
        scene.cluster.draining = [node[0]]
        assert scene.runners.look() == [
            f"the node {node[1]} is to be taken away: its env runners (1) leave it, and are started again elsewhere"
        ]
        assert scene.runners.look() == []
        assert scene.told_to_leave == {1: incarnation}
        # In time, or not.
        assert (scene.end(1, RETURNED if incarnation % 2 else PREEMPTED) is None) == bool(incarnation % 2)
        assert scene.cluster.there[1] == incarnation + 1
        scene.cluster.draining = []
        scene.runners.look()
    assert scene.cluster.there[0] == 1


def test_one_that_returns_without_being_told_to_ends_the_run() -> None:
    scene = Scene(8, num_env_runners=2)
    scene.runners.scale(1)
    with pytest.raises(TrainingError, match="the env runner 0 ended before training did"):
        scene.end(0, RETURNED)


def test_the_run_may_begin_with_the_fewest_and_others_join_when_there_is_room() -> None:
    scene = Scene(1, num_env_runners=4, min_env_runners=2)
    assert list(scene.runners.optional) == []
    scene.cluster.num_places = 2
    assert set(scene.runners.optional) == {f"env runner {number}" for number in range(4)}
    waiting = "2 of 4 env runners run; 2 wait until the cluster has room for them (1 CPUs and 0 GPUs each)"
    assert scene.look_for(29) == []
    assert scene.look_for(300) == [waiting]
    assert scene.look_for(300) == [waiting]
    scene.cluster.num_places = 4
    assert scene.look_for(1000) == []
    assert scene.runners.num_running == 4


def test_too_few_are_spoken_of_again_and_again_until_they_are_there() -> None:
    scene = Scene(2, num_env_runners=2)
    scene.cluster.num_places = 1
    scene.end(1, DIED)
    assert scene.look_for(29) == []
    said = "1 of 2 env runners run, at least 2 are wanted; 1 wait until the cluster has room for them"
    assert scene.look_for(90) == [f"{said} (1 CPUs and 0 GPUs each)"] * 3
    scene.cluster.num_places = 2
    assert scene.look_for(90) == []


def test_at_the_end_nobody_waits_for_those_that_wait_for_a_place() -> None:
    scene = Scene(1, num_env_runners=3, min_env_runners=1)
    scene.runners.finish()
    assert set(scene.cluster.there) == {0}
    scene.cluster.num_places = 3
    scene.runners.look()
    assert set(scene.cluster.there) == {0}
