"""Pulses say what a process does and since when, whatever becomes of the one before."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

from amago_ray.config.load import load_config
from amago_ray.runtime.protocol.pulse import Pulse, PulseThread, pulse_interval_s


class Scene:
    """A process whose clock stands still and whose pulses arrive when it is said."""

    def __init__(self, **options: Any) -> None:
        self.now_s = 10.0
        self.given: list[Pulse] = []
        self.arrived = True
        self.pulses = PulseThread(
            self.give, 3600.0, "here", is_done=lambda reference: self.arrived, clock=lambda: self.now_s, **options
        )

    def give(self, pulse: Pulse) -> int:
        self.given.append(pulse)
        return len(self.given)


def test_a_pulse_tells_the_work_and_its_age() -> None:
    scene = Scene(hung=lambda: "an env", at_stake=lambda: {"episodes": 3})
    scene.pulses.works("at update 7")
    scene.now_s += 4
    scene.pulses.beat()
    with scene.pulses.working("storing"):
        scene.now_s += 2
        scene.pulses.beat()
    scene.now_s += 9
    scene.pulses.beat()
    assert [(each.number, each.doing, each.busy_s) for each in scene.given] == [
        (1, "at update 7", 4),
        (2, "storing", 2),
        (3, "waiting for requests", 0),
    ]
    assert {(each.host, each.hung, each.at_stake["episodes"]) for each in scene.given} == {("here", "an env", 3)}


def test_pulses_that_do_not_arrive_do_not_pile_up() -> None:
    scene = Scene()
    scene.arrived = False
    for _ in range(5):
        scene.pulses.beat()
    assert len(scene.given) == 1
    scene.arrived = True
    scene.pulses.beat()
    assert [each.number for each in scene.given] == [1, 2]


def test_one_that_is_lost_on_its_way_does_not_end_them() -> None:
    scene = Scene()
    scene.arrived = False
    scene.pulses.beat()
    scene.now_s += 31
    scene.pulses.beat()
    scene.pulses.beat()
    assert [each.number for each in scene.given] == [1, 2]


def test_the_thread_gives_the_first_at_once() -> None:
    given = threading.Event()
    PulseThread(lambda pulse: given.set(), 3600.0, "here").start()
    assert given.wait(60)


def test_all_processes_together_give_a_bounded_number() -> None:
    config = load_config("quickstart", [])
    assert pulse_interval_s(config) == config.supervision.pulse_interval_s
    many = dataclasses.replace(config, rollout=dataclasses.replace(config.rollout, num_env_runners=10_000))
    assert 10_000 / pulse_interval_s(many) <= 50
