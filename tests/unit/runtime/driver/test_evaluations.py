"""Evaluations get their result whatever happens to the evaluator and to the weights."""

from __future__ import annotations

from typing import Any

import pytest

from amago_ray.errors import EnvError, TrainingError
from amago_ray.runtime.driver.evaluations import Evaluations
from amago_ray.runtime.protocol.endings import Ending
from amago_ray.training.ports import Counters

DIED = Ending("died", error=RuntimeError("killed"))
LOST = Ending("returned", value=None)
DONE = Ending("returned", value=(7, ["episode"], b"policy"))


class Evaluator:
    """An evaluator as Ray shows it; a call's reference is what it was called with."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.evaluate = self

    def remote(self, number: int, weights: str) -> tuple[int, int, str]:
        return self.number, number, weights


class Scene:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.num_evaluators = 0
        self.num_weights = 0
        self.num_buried = 0
        self.evaluations = Evaluations(self.start, self.weights, self.bury, lambda: self.now_s)

    def start(self) -> tuple[Any, object]:
        self.num_evaluators += 1
        return Evaluator(self.num_evaluators), f"made {self.num_evaluators}"

    def bury(self) -> None:
        self.num_buried += 1

    def weights(self) -> str:
        self.num_weights += 1
        return f"weights {self.num_weights}"

    @property
    def running(self) -> list[Any]:
        return list(self.evaluations.running)


def test_a_result_tells_when_it_was_asked_for_and_what_was_evaluated() -> None:
    scene = Scene()
    scene.evaluations.ask(3, Counters(100, 5, 9))
    assert scene.num_evaluators == 0, "the evaluator is started when evaluations may begin"
    scene.evaluations.begin()
    assert scene.running == [(1, 3, "weights 1")]
    scene.now_s += 2.5
    result, warning = scene.evaluations.ended(scene.running[0], DONE)
    assert warning is None
    assert (result.number, result.counters, result.time_s) == (3, Counters(100, 7, 9), 2.5)
    assert (result.episodes, result.policy) == (["episode"], b"policy")
    assert scene.running == []


def test_one_whose_weights_were_lost_asks_again() -> None:
    scene = Scene()
    scene.evaluations.ask(3, Counters())
    scene.evaluations.begin()
    result, warning = scene.evaluations.ended(scene.running[0], LOST)
    assert result is None
    assert "the weights of evaluation 3 were lost" in warning
    scene.evaluations.begin()
    assert scene.running == [(1, 3, "weights 2")]
    assert (scene.evaluations.num_repeated, scene.evaluations.num_restarts) == (1, 0)
    assert scene.num_evaluators == 1


def test_a_dead_evaluator_is_started_again_and_told_once() -> None:
    scene = Scene()
    scene.evaluations.ask(0, Counters())
    scene.evaluations.ask(1, Counters())
    scene.evaluations.begin()
    warnings = [scene.evaluations.ended(reference, DIED)[1] for reference in scene.running]
    assert warnings == ["the evaluator died and is started again: RuntimeError: killed", None]
    assert scene.num_buried == 1, "and its silence is nobody's"
    scene.evaluations.begin()
    assert [(evaluator, number) for evaluator, number, _ in scene.running] == [(2, 0), (2, 1)]
    assert (scene.evaluations.num_repeated, scene.evaluations.num_restarts) == (2, 1)


def test_an_evaluator_that_dies_again_and_again_waits_between() -> None:
    scene = Scene()
    scene.evaluations.ask(0, Counters())
    for _ in range(2):
        scene.evaluations.begin()
        scene.evaluations.ended(scene.running[0], DIED)
    scene.evaluations.begin()
    assert scene.running == []
    scene.now_s += 0.25
    scene.evaluations.begin()
    assert len(scene.running) == 1


def test_an_evaluator_that_cannot_be_made_ends_the_run_with_its_reason() -> None:
    scene = Scene()
    scene.evaluations.ask(0, Counters())
    not_made = Ending("not_made", error=OSError("no licence"))
    for _ in range(2):
        scene.evaluations.begin()
        scene.evaluations.ended(scene.running[0], not_made)
        scene.now_s += 10
    scene.evaluations.begin()
    with pytest.raises(TrainingError, match="evaluator cannot be made: OSError: no licence"):
        scene.evaluations.ended(scene.running[0], not_made)


def test_what_an_evaluation_raises_ends_the_run() -> None:
    scene = Scene()
    scene.evaluations.ask(0, Counters())
    scene.evaluations.begin()
    with pytest.raises(TrainingError, match="evaluator failed: ValueError: broken"):
        scene.evaluations.ended(scene.running[0], Ending("raised", error=ValueError("broken")))


def test_episodes_that_do_not_end_give_the_evaluation_up_and_leave_the_evaluator() -> None:
    scene = Scene()
    scene.evaluations.ask(3, Counters(100, 5, 9))
    scene.evaluations.begin()
    scene.now_s += 2.5
    result, warning = scene.evaluations.ended(scene.running[0], Ending("raised", error=EnvError("no episode ended")))
    assert warning is None
    assert result.time_s == 2.5
    assert (result.number, result.counters, result.given_up) == (3, Counters(100, 5, 9), "no episode ended")
    assert result.episodes == ()
    scene.evaluations.ask(4, Counters())
    scene.evaluations.begin()
    assert scene.num_evaluators == 1
