"""A control actor that is late loses nothing; one that stays silent is ended, and is filled again when it is back."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from amago_ray.config.supervision import SupervisionConfig
from amago_ray.errors import TrainingError
from amago_ray.runtime.driver.control_keeper import ControlKeeper
from amago_ray.runtime.driver.patience import Patience
from amago_ray.runtime.protocol.endings import Ending
from amago_ray.runtime.protocol.ledger import LedgerState
from amago_ray.runtime.protocol.messages import ControlState


class Scene:
    """A keeper over an actor whose answers arrive when it is said; a reference is the number of its call."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.arrived: dict[object, Any] = {}
        self.num_asked = 0
        self.killed: list[tuple[str, bool]] = []
        settings = SupervisionConfig(late_after_s=30.0, dead_after_s=120.0)
        actors: Any = SimpleNamespace(start_control=lambda: self.handle, kill=self.kill)
        self.handle = SimpleNamespace(collect=SimpleNamespace(remote=self.ask))
        self.keeper = ControlKeeper(
            actors,
            settings,
            Patience(lambda: self.now_s),
            lambda: self.now_s,
            wait_any=self.wait,
            get=self.get,
            ending=lambda reference: Ending("returned", value=True),
        )
        self.keeper.start(LedgerState())

    def ask(self) -> int:
        self.num_asked += 1
        return self.num_asked

    def wait(self, references: Sequence[Any], timeout_s: float) -> Sequence[Any]:
        return [reference for reference in references if reference in self.arrived]

    def get(self, reference: object, timeout_s: float) -> Any:
        value = self.arrived.pop(reference)
        if isinstance(value, Exception):
            raise value
        return value

    def kill(self, part: str, *, for_good: bool) -> None:
        self.killed.append((part, for_good))

    def pass_time(self, time_s: float) -> list[str]:
        """Ask and look every two seconds; the warnings."""
        warnings = []
        for _ in range(int(time_s / 2)):
            self.now_s += 2
            self.keeper.collect(2.0)
            if (warning := self.keeper.look()) is not None:
                warnings.append(warning)
        return warnings


def test_a_late_answer_is_taken_later() -> None:
    scene = Scene()
    assert scene.pass_time(20) == []
    assert scene.num_asked == 1, "what it gathered goes with the first answer"
    assert scene.keeper.is_silent
    report = SimpleNamespace(ledger=LedgerState({"env_runner": {"env_steps": 7}}))
    scene.arrived[1] = report
    assert scene.keeper.collect(2.0) is report
    assert scene.keeper.ledger is report.ledger, "with which a successor is filled"
    assert not scene.keeper.is_silent


def test_silence_is_said_once_and_then_ended() -> None:
    scene = Scene()
    assert scene.pass_time(118) == ["the control actor has been silent for 30 s"]
    assert scene.killed == []
    assert scene.pass_time(2) == ["the control actor has been silent for 120 s: it is killed and started again"]
    assert scene.killed == [("control", False)]
    assert scene.keeper.num_kills == 1
    # The call is sent again to its successor, which has to be filled first.
    scene.arrived[1] = None
    assert scene.keeper.collect(2.0) is None
    assert scene.pass_time(20) == []


def test_the_drivers_own_silence_does_not_count() -> None:
    scene = Scene()
    scene.keeper.collect(2.0)
    scene.now_s += 10_000
    assert scene.keeper.look() is None


def test_one_whose_filling_takes_long_counts_as_filled() -> None:
    scene = Scene()
    calls = SimpleNamespace(remote=scene.ask)
    scene.handle.fill = SimpleNamespace(remote=lambda state: "filling")
    scene.handle.watch = calls
    scene.arrived["filling"] = ray.exceptions.GetTimeoutError("late")
    scene.keeper.watch()
    assert scene.keeper.answer(ControlState(LedgerState())) is None, "it is filled for the first time"
    assert scene.keeper.is_filled, "or nobody would tell it that training ends"
    scene.arrived["filling"] = ray.exceptions.GetTimeoutError("late")
    warning = scene.keeper.answer(ControlState(LedgerState()))
    assert warning == "the control actor died and was started again: it goes on from the last report"
    assert scene.keeper.num_restarts == 1


def test_one_that_is_gone_for_good_ends_the_run() -> None:
    scene = Scene()
    scene.arrived[1] = ray.exceptions.RaySystemError("no more")
    with pytest.raises(TrainingError, match=r"the control actor failed: .*no more"):
        scene.keeper.collect(2.0)
