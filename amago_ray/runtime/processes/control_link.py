"""`ControlLink`: an env runner's talk with the control actor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.exceptions import RayError

from amago_ray.runtime.protocol.actors import get, wait_any
from amago_ray.runtime.protocol.messages import NotYet, RunnerBeat, RunnerOrders

_LONGEST_REST_S = 1.0
_RELAY_TIMEOUT_S = 5.0
# Both answer at once, when they live; a node that was out of reach for a while may have lost an answer for good.
_CONTROL_TIMEOUT_S = 30.0
_SHORTEST_PAUSE_S = 0.1


class ControlLink:
    """Sends beats, one at a time and never sooner than the last answer allows, and hands out the orders they bring.

    They go to the control actor, or to the relay that it names, and to the control actor again where that relay is dead
    or does not answer. One that even that does not answer is sent again. Which beats arrived then is not known; they
    carry totals.
    """

    def __init__(
        self,
        control: Any,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        relay_timeout_s: float = _RELAY_TIMEOUT_S,
        control_timeout_s: float = _CONTROL_TIMEOUT_S,
    ) -> None:
        self._control = self._actor = control
        self._clock = clock
        self._sleep = sleep
        self._relay_timeout_s = relay_timeout_s
        self._control_timeout_s = control_timeout_s
        self._pending: Any = None
        self._beaten_at_s = -float("inf")
        self._soonest_s = 0.0

    def is_due(self, after_s: float) -> bool:
        """Whether to beat now: nothing is under way, and `after_s` have passed since the last beat, or more if told."""
        return self._pending is None and self._due_in_s(after_s) <= 0

    def beat(self, beat: RunnerBeat) -> None:
        """Send a beat."""
        self._beaten_at_s = self._clock()
        self._pending = self._actor.beat_runner.remote(beat)

    def orders(self) -> RunnerOrders | None:
        """What a beat has brought, if it has by now.

        Raises:
            ray.exceptions.RayError: the control actor is gone.
        """
        answer = self._answer(0.0)
        return None if isinstance(answer, NotYet) else answer

    def rest(self, after_s: float) -> None:
        """Do nothing until there are orders or the next beat is due as in `is_due`, but not for long."""
        if self._pending is not None:
            wait_any([self._pending], _LONGEST_REST_S)
        else:
            self._sleep(min(max(self._due_in_s(after_s), 0.0), _LONGEST_REST_S))

    def finish(self, beat: RunnerBeat) -> None:
        """Send the last beat, and wait until it has been taken in.

        Raises:
            ray.exceptions.RayError: the control actor is gone.
        """
        self.beat(beat)
        while not isinstance(answer := self._answer(_LONGEST_REST_S), RunnerOrders):
            if isinstance(answer, NotYet):
                self._sleep(max(self._soonest_s, _SHORTEST_PAUSE_S))
            if self._pending is None:
                self.beat(beat)

    def _answer(self, timeout_s: float) -> RunnerOrders | NotYet | None:
        if self._pending is None:
            return None
        is_relayed = self._actor is not self._control
        if not wait_any([self._pending], timeout_s):
            longest_s = self._relay_timeout_s if is_relayed else self._control_timeout_s
            if self._clock() - self._beaten_at_s > longest_s:
                self._pending, self._actor = None, self._control
            return None
        reference, self._pending = self._pending, None
        try:
            answer: RunnerOrders | NotYet = get(reference)
        except RayError:
            if not is_relayed:
                raise
            self._actor = self._control
            return None
        self._soonest_s = answer.beat_in_s
        if isinstance(answer, RunnerOrders) and answer.relay:
            self._actor = answer.relay[0]
        return answer

    def _due_in_s(self, after_s: float) -> float:
        return self._beaten_at_s + max(self._soonest_s, after_s) - self._clock()
