"""Several learners: each supervised by itself, all started again together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amago_ray.config.supervision import SupervisionConfig
from amago_ray.errors import TrainingError
from amago_ray.runtime.driver.learners import Learners
from amago_ray.runtime.driver.pulse_watch import PulseWatch
from amago_ray.runtime.driver.supervisor import Supervisor
from amago_ray.runtime.protocol.endings import Ending, LostPeerError
from amago_ray.runtime.protocol.shard_table import ShardTable

DIED = Ending("died", error=TrainingError("killed"))
LEFT = Ending("died", error=LostPeerError("the learners have lost one of them"))


class Call:
    def __init__(self, name: str) -> None:
        self._name = name

    def remote(self, *arguments: Any) -> str:
        return self._name + "".join(f" at {argument}" for argument in arguments)


class Handle:
    def __init__(self, name: str) -> None:
        self.make, self.run = Call(f"make {name}"), Call(f"run {name}")
        self.open_rendezvous = Call(f"door {name}")


class Actors:
    """Starts handles that are called by their rank and by how often there were learners."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.num_starts = 0

    def start_learners(
        self, control: Any, table: ShardTable, files: Mapping[str, bytes] | None, num_gpus: float
    ) -> list[Handle]:
        self.num_starts += 1
        return [Handle(f"{rank}:{self.num_starts}") for rank in range(self._size)]


class Scene:
    def __init__(self, num_learners: int) -> None:
        self.actors = Actors(num_learners)
        self.now_s = 0.0
        self.supervisor = Supervisor(lambda: self.now_s, PulseWatch(SupervisionConfig(), 5.0, lambda: self.now_s))
        Learners(self.actors, self.supervisor, num_learners, None).start(None, ShardTable, 0.0)

    @property
    def running(self) -> dict[str, str]:
        return dict(zip(self.supervisor.names, self.supervisor.running, strict=True))

    def end(self, name: str, ending: Ending) -> str:
        return self.supervisor.ended(self.running[name], ending)


def test_one_learner_meets_nobody() -> None:
    scene = Scene(1)
    (started,) = scene.supervisor.running.values()
    assert scene.supervisor.names == ["learner"]
    assert started == ("make 0:1", "run 0:1")
    assert scene.end("learner", DIED) == "the learner died and is started again: killed"
    scene.supervisor.start_due()
    assert scene.running == {"learner": "run 0:2"}


def test_several_meet_where_the_first_is() -> None:
    scene = Scene(2)
    assert scene.actors.num_starts == 1
    assert scene.supervisor.names == ["learner 0", "learner 1"]
    assert list(scene.supervisor.running.values()) == [
        ("make 0:1 at door 0:1", "run 0:1"),
        ("make 1:1 at door 0:1", "run 1:1"),
    ]


def test_when_one_dies_all_are_new() -> None:
    scene = Scene(3)
    assert scene.end("learner 1", DIED) == "the learner 1 died and is started again: killed"
    scene.supervisor.start_due()
    assert scene.running["learner 1"] == "run 1:2"
    # What was ended for it is told one by one, and its place is taken by what was started already.
    for name in ("learner 0", "learner 2"):
        scene.end(name, LEFT)
        scene.supervisor.start_due()
    assert scene.actors.num_starts == 2
    assert sorted(scene.running.values()) == ["run 0:2", "run 1:2", "run 2:2"]


def test_several_that_die_at_once_are_started_again_once() -> None:
    scene = Scene(2)
    for name in ("learner 0", "learner 1"):
        scene.end(name, DIED)
    scene.supervisor.start_due()
    assert scene.actors.num_starts == 2
    assert sorted(scene.running.values()) == ["run 0:2", "run 1:2"]


def test_one_that_dies_while_others_are_new_makes_all_new_again() -> None:
    scene = Scene(2)
    scene.end("learner 1", DIED)
    scene.supervisor.start_due()
    scene.end("learner 0", LEFT)
    scene.end("learner 1", DIED)
    scene.supervisor.start_due()
    assert scene.running == {"learner 0": "run 0:2"}, "its partner's second start has to wait"
    scene.now_s = 1.0
    scene.supervisor.start_due()
    scene.end("learner 0", LEFT)
    scene.now_s = 2.0
    scene.supervisor.start_due()
    assert sorted(scene.running.values()) == ["run 0:3", "run 1:3"]
