"""When a run evaluates, saves and ends."""

from __future__ import annotations

from typing import Any

import pytest

from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.training import CheckpointConfig, EvaluationConfig, StopConfig
from amago_ray.telemetry.console import Progress
from amago_ray.training.ports import Counters
from amago_ray.training.schedule import Schedule
from amago_ray.training.state import TrainerState


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def make_schedule(clock: Clock | None = None, *, by_steps: bool = False, **sections: Any) -> Schedule:
    return Schedule(Config(env=EnvConfig(id="fake"), **sections), by_steps=by_steps, clock=clock or Clock())


def state_at(env_steps: int = 0, learner_steps: int = 0, **fields: Any) -> TrainerState:
    return TrainerState(**{"next_evaluation": 300, "counters": Counters(env_steps, learner_steps, 0), **fields})


@pytest.mark.parametrize(
    ("interval_s", "expected"),
    [(8.0, [False, True, False, True, False, True]), (10.0, [False, False, True, False, False, True])],
)
def test_over_ray_checkpoints_come_by_the_clock(interval_s: float, expected: list[bool]) -> None:
    clock = Clock()
    schedule = make_schedule(clock, checkpoint=CheckpointConfig(interval_s=interval_s))
    due = []
    for _ in range(6):
        clock.now_s += 4.0
        due.append(schedule.checkpoint_is_due(10**6))
        if due[-1]:
            schedule.note_checkpoint(10**6)
    assert due == expected


@pytest.mark.parametrize(("by_steps", "interval", "expected"), [(True, None, 1000), (True, 30, 30), (False, 30, 30)])
def test_checkpoints_come_by_updates_where_these_are_set_or_needed(
    by_steps: bool, interval: int | None, expected: int
) -> None:
    checkpoint = CheckpointConfig(interval_s=1e-9, interval_learner_steps=interval)
    schedule = make_schedule(by_steps=by_steps, checkpoint=checkpoint)
    schedule.note_checkpoint(50)
    assert not schedule.checkpoint_is_due(50 + expected - 1)
    assert schedule.checkpoint_is_due(50 + expected)


@pytest.mark.parametrize("at_start", [False, True])
@pytest.mark.parametrize("num_episodes", [0, 3])
def test_a_fresh_run_evaluates_first_where_that_is_asked_for(num_episodes: int, at_start: bool) -> None:
    schedule = make_schedule(evaluation=EvaluationConfig(num_episodes=num_episodes, at_start=at_start))
    assert schedule.evaluates_first() == (num_episodes == 3 and at_start)


def test_evaluations_come_at_multiples_of_their_interval_one_at_a_time() -> None:
    schedule = make_schedule(evaluation=EvaluationConfig(interval_env_steps=300))
    assert not schedule.evaluation_is_due(state_at(299))
    assert schedule.evaluation_is_due(state_at(300))
    assert not schedule.evaluation_is_due(state_at(300, is_evaluating=True))
    assert [schedule.next_evaluation(env_steps) for env_steps in (0, 299, 300, 950)] == [300, 300, 600, 1200]
    assert not make_schedule(evaluation=EvaluationConfig(num_episodes=0)).evaluation_is_due(state_at(300))


def test_the_last_evaluation_is_of_weights_that_none_has_seen() -> None:
    schedule = make_schedule(stop=StopConfig(eval_return=1.0))
    assert schedule.last_evaluation_is_due(state_at(9, 5, after_steps=4))
    assert not schedule.last_evaluation_is_due(state_at(9, 5, after_steps=5))
    assert not schedule.last_evaluation_is_due(state_at(9, 0)), "nothing was trained"
    assert not make_schedule(evaluation=EvaluationConfig(num_episodes=0)).last_evaluation_is_due(state_at(9, 5))
    assert not schedule.last_evaluation_is_due(state_at(9, 5, after_steps=4, after={"eval/return_mean": 1.0}))


def test_progress_is_that_of_the_nearest_criterion() -> None:
    clock = Clock()
    schedule = make_schedule(clock, stop=StopConfig(env_steps=1000, time_s=10.0))
    clock.now_s += 2.0
    assert schedule.progress(Counters(100), {}) == Progress(0.2, 8.0)
    assert schedule.progress(Counters(500), {"time/env_steps_per_s": 50.0}) == Progress(0.5, 10.0)
    assert make_schedule(stop=StopConfig(eval_return=1.0)).progress(Counters(500), {}) == Progress()


@pytest.mark.parametrize(
    ("stop", "state", "expected"),
    [
        (StopConfig(env_steps=2000), state_at(1999), None),
        (StopConfig(env_steps=2000), state_at(2000), "reached 2,000 env steps"),
        (StopConfig(env_steps=2000), state_at(2016), "ended at 2,016 env steps (asked: 2,000)"),
        (StopConfig(learner_steps=1), state_at(9, 1), "reached 1 learner step"),
        (StopConfig(learner_steps=1), state_at(9, 20), "ended at 20 learner steps (asked: 1)"),
        (StopConfig(eval_return=0.5), state_at(after={"eval/return_mean": 0.5}), "evaluation reached the goal"),
    ],
)
def test_the_reason_tells_where_the_run_stands(stop: StopConfig, state: TrainerState, expected: str | None) -> None:
    assert make_schedule(stop=stop).reason_to_end(state) == expected


def test_time_is_reached_within_a_second() -> None:
    clock = Clock()
    schedule = make_schedule(clock, stop=StopConfig(time_s=60.0))
    reasons = []
    for now_s in (159.9, 160.0, 160.2, 161.0, 175.0):
        clock.now_s = now_s
        reasons.append(schedule.reason_to_end(state_at()))
    assert reasons == [None, "reached 60 s", "reached 60 s", "ended at 61 s (asked: 60)", "ended at 75 s (asked: 60)"]


def test_a_checkpoint_that_failed_is_tried_again_soon() -> None:
    clock = Clock()
    schedule = make_schedule(clock, checkpoint=CheckpointConfig(interval_s=300.0))
    clock.now_s += 300.0
    assert schedule.checkpoint_is_due(7)
    schedule.note_failed_checkpoint(7)
    clock.now_s += 29.0
    assert not schedule.checkpoint_is_due(7)
    clock.now_s += 1.0
    assert schedule.checkpoint_is_due(7)
    schedule.note_checkpoint(7)
    clock.now_s += 299.0
    assert not schedule.checkpoint_is_due(7)


def test_a_deterministic_backend_tries_again_when_the_next_one_is_due() -> None:
    clock = Clock()
    schedule = make_schedule(clock, by_steps=True, checkpoint=CheckpointConfig(interval_learner_steps=30))
    schedule.note_failed_checkpoint(30)
    clock.now_s += 1e6
    assert not schedule.checkpoint_is_due(59)
    assert schedule.checkpoint_is_due(60)
