"""Restarts: due times, budgets, and the original reason where it is not worth trying again."""

from __future__ import annotations

from typing import Any

import pytest

from amago_ray.config.supervision import SupervisionConfig
from amago_ray.errors import CheckpointError, TrainingError
from amago_ray.runtime.driver.pulse_watch import PulseWatch
from amago_ray.runtime.driver.supervisor import HEALTHY_AFTER_S, Started, Supervisor
from amago_ray.runtime.protocol.endings import Ending
from amago_ray.runtime.protocol.pulse import Pulse

DIED = Ending("died", error=RuntimeError("killed"))
NOT_MADE = Ending("not_made", error=OSError("no licence for this node"))


class Scene:
    """A supervisor whose clock stands still, over one actor whose starts are counted."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.num_starts = 0
        self.buried: list[str] = []
        self.pulses = PulseWatch(SupervisionConfig(), 5.0, lambda: self.now_s)
        self.supervisor = Supervisor(lambda: self.now_s, self.pulses)
        self.supervisor.start("env runner 0", self.start, lambda: self.buried.append(f"run {self.num_starts}"))

    def start(self) -> Started:
        self.num_starts += 1
        return Started(f"made {self.num_starts}", f"run {self.num_starts}")

    def end(self, ending: Ending) -> str:
        (run,) = self.supervisor.running
        return self.supervisor.ended(run, ending) or ""

    def wait_for_restart(self) -> float:
        """Let time pass until the actor is started again; the seconds that it took."""
        pause_s = self.supervisor.next_due_s()
        self.now_s += pause_s
        self.supervisor.start_due()
        assert len(self.supervisor.running) == 1
        return pause_s


def test_a_dead_actor_is_started_again_and_named() -> None:
    scene = Scene()
    assert scene.supervisor.names == ["env runner 0"]
    assert scene.supervisor.next_due_s() == float("inf")
    assert scene.end(DIED) == "the env runner 0 died and is started again: RuntimeError: killed"
    assert scene.supervisor.running == {}
    assert scene.wait_for_restart() == 0
    assert scene.supervisor.running == {"run 2": Started("made 2", "run 2")}
    assert scene.buried == ["run 1"]


def test_restarts_and_losses_are_counted_by_role() -> None:
    scene = Scene()
    scene.supervisor.start("learner", lambda: Started("made", "learner runs"))
    at_stake = {"rollout/lost_partial_episodes": 4, "rollout/lost_unacknowledged_episodes": 0}
    scene.pulses.look({"env runner 0": Pulse(1, 1, "here", "stepping", 0.0, at_stake=at_stake)})
    warning = scene.supervisor.ended("run 1", DIED)
    assert warning == "the env runner 0 died and is started again: RuntimeError: killed (4 lost partial episodes)"
    scene.supervisor.ended("learner runs", DIED)
    scene.supervisor.start_due()
    # The new one has not acted yet.
    assert scene.supervisor.ended("run 2", DIED).endswith("RuntimeError: killed")
    assert scene.supervisor.num_restarts == {"env_runner": 2, "learner": 1}
    assert scene.supervisor.lost["rollout/lost_partial_episodes"] == 4


def test_pauses_grow_and_nothing_is_started_before_its_time() -> None:
    scene = Scene()
    pauses_s = []
    for number in range(10):
        warning = scene.end(DIED)
        if number > 0:
            assert f"is started again in {scene.supervisor.next_due_s():g} s: " in warning
            scene.supervisor.start_due()
            assert scene.supervisor.running == {}
        pauses_s.append(scene.wait_for_restart())
    assert pauses_s == [0, 0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    with pytest.raises(TrainingError, match="env runner 0 died 10 times in a row, at last of: RuntimeError: killed"):
        scene.end(DIED)


def test_of_several_the_first_that_is_due_is_waited_for() -> None:
    scene = Scene()
    scene.supervisor.start("learner", lambda: Started("made", "learner runs"))
    for _ in range(2):
        (run,) = (run for run in scene.supervisor.running if run != "learner runs")
        scene.supervisor.ended(run, DIED)
        scene.now_s += scene.supervisor.next_due_s()
        scene.supervisor.start_due()
    (run,) = (run for run in scene.supervisor.running if run != "learner runs")
    scene.supervisor.ended(run, DIED)
    assert scene.supervisor.next_due_s() == 0.5
    scene.supervisor.ended("learner runs", DIED)
    assert scene.supervisor.next_due_s() == 0
    scene.supervisor.start_due()
    assert scene.supervisor.names == ["learner"], "the other one still waits"


def test_an_actor_that_has_lived_for_long_is_as_good_as_new() -> None:
    scene = Scene()
    for _ in range(30):
        scene.end(DIED)
        assert scene.wait_for_restart() == 0
        scene.now_s += HEALTHY_AFTER_S


def test_an_actor_that_cannot_be_made_ends_the_run_with_its_reason_after_three_tries() -> None:
    scene = Scene()
    for _ in range(2):
        assert "cannot be made and is started again" in scene.end(NOT_MADE)
        scene.wait_for_restart()
    with pytest.raises(TrainingError, match="env runner 0 cannot be made: OSError: no licence for this node"):
        scene.end(NOT_MADE)
    assert scene.num_starts == 3


def test_tries_to_make_an_actor_count_anew_once_it_was_made() -> None:
    scene = Scene()
    for ending in (NOT_MADE, NOT_MADE, DIED, NOT_MADE, NOT_MADE):
        scene.end(ending)
        scene.wait_for_restart()
    with pytest.raises(TrainingError):
        scene.end(NOT_MADE)


def test_an_error_of_ours_stays_what_it_is() -> None:
    scene = Scene()
    error = CheckpointError("checkpoints/step_5: expected 8 heads, got 4")
    for _ in range(2):
        scene.end(Ending("not_made", error=error))
        scene.wait_for_restart()
    with pytest.raises(CheckpointError) as caught:
        scene.end(Ending("not_made", error=error))
    assert caught.value is error


def test_what_an_actor_raises_ends_the_run() -> None:
    with pytest.raises(TrainingError, match="env runner 0 failed: ValueError: broken"):
        Scene().end(Ending("raised", error=ValueError("broken")))
    with pytest.raises(TrainingError, match="ended before training did"):
        Scene().end(Ending("returned"))


def test_one_that_ends_as_it_should_is_not_started_again() -> None:
    scene = Scene()
    (run,) = scene.supervisor.running
    assert scene.supervisor.forget(run) == "env runner 0"
    assert scene.supervisor.next_due_s() == float("inf")


def test_one_that_is_to_be_replaced_is_started_again_when_it_returns_and_at_no_cost() -> None:
    scene = Scene()
    for _ in range(30):
        scene.supervisor.replace("env runner 0")
        assert scene.end(Ending("returned")) == ""
        assert scene.wait_for_restart() == 0
    with pytest.raises(TrainingError, match="ended before training did"):
        scene.end(Ending("returned"))


@pytest.mark.parametrize("kind", ["died", "not_made"])
def test_the_end_of_a_node_that_was_announced_costs_nothing(kind: Any) -> None:
    scene = Scene()
    for _ in range(30):
        warning = scene.end(Ending(kind, error=RuntimeError("gone"), is_preempted=True))
        assert warning == "the env runner 0 died with its node, which was taken away, and is started again: " + (
            "RuntimeError: gone"
        )
        assert scene.wait_for_restart() == 0


@pytest.mark.parametrize("ending", [Ending("returned"), DIED, NOT_MADE])
def test_one_that_is_released_is_not_started_again(ending: Ending) -> None:
    scene = Scene()
    scene.supervisor.release("env runner 0")
    warning = scene.end(ending)
    assert warning == ("the env runner 0 died when it was to leave: RuntimeError: killed" if ending is DIED else "")
    assert scene.supervisor.next_due_s() == float("inf")
    assert scene.supervisor.names == []


def test_one_that_is_released_while_it_waits_to_be_started_again_is_not() -> None:
    scene = Scene()
    scene.end(DIED)
    scene.supervisor.release("env runner 0")
    scene.supervisor.start_due()
    assert scene.num_starts == 1
