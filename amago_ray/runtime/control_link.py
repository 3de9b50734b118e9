"""`ControlLink`: an env runner's talk with the control actor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from amago_ray.runtime.actors import get, wait_any
from amago_ray.runtime.messages import NotYet, RunnerBeat, RunnerOrders

_LONGEST_REST_S = 1.0


class ControlLink:
    """Sends beats, one at a time and never sooner than the last answer allows, and hands out the orders they bring."""

    def __init__(self, control: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._control = control
        self._clock = clock
        self._pending: Any = None
        self._beaten_at_s = -float("inf")
        self._soonest_s = 0.0

    def is_due(self, after_s: float) -> bool:
        """Whether to beat now: nothing is under way, and `after_s` have passed since the last beat, or more if told."""
        return self._pending is None and self._due_in_s(after_s) <= 0

    def beat(self, beat: RunnerBeat) -> None:
        """Send a beat."""
        self._beaten_at_s = self._clock()
        self._pending = self._control.beat_runner.remote(beat)

    def orders(self) -> RunnerOrders | None:
        """What a beat has brought, if it has by now."""
        if self._pending is None or not wait_any([self._pending], 0.0):
            return None
        answer: RunnerOrders | NotYet = get(self._pending)
        self._pending = None
        self._soonest_s = answer.beat_in_s
        return None if isinstance(answer, NotYet) else answer

    def rest(self, after_s: float) -> None:
        """Do nothing until there are orders or the next beat is due as in `is_due`, but not for long."""
        if self._pending is not None:
            wait_any([self._pending], _LONGEST_REST_S)
        else:
            time.sleep(min(max(self._due_in_s(after_s), 0.0), _LONGEST_REST_S))

    def finish(self, beat: RunnerBeat) -> None:
        """Send the last beat, and wait until it has been taken in."""
        while isinstance(get(self._control.beat_runner.remote(beat)), NotYet):
            time.sleep(max(self._soonest_s, 0.1))

    def _due_in_s(self, after_s: float) -> float:
        return self._beaten_at_s + max(self._soonest_s, after_s) - self._clock()
