"""`Evaluations`: those that were asked for, until each has its result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amago_ray.errors import EnvError
from amago_ray.runtime.driver.supervisor import RestartBudget, Started
from amago_ray.runtime.protocol.endings import Ending
from amago_ray.training.ports import Counters, EvaluationResult

_NAME = "evaluator"


@dataclass(frozen=True)
class _Wanted:
    number: int
    counters: Counters
    weights: Any
    """Reference to the weights to evaluate."""


@dataclass(frozen=True)
class _Running:
    wanted: _Wanted
    began_s: float
    made: object


class Evaluations:
    """Hands evaluations to an evaluator, which is started for the first one and started again when it dies.

    One whose evaluator died, or whose weights were lost with the control actor, is asked for again, with the weights
    that are newest then.
    """

    def __init__(
        self,
        start_evaluator: Callable[[], tuple[Any, object]],
        newest_weights: Callable[[], Any],
        bury: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """start_evaluator: its handle, and the reference of its making. bury: called when one died."""
        self._start_evaluator = start_evaluator
        self._newest_weights = newest_weights
        self._bury = bury
        self._clock = clock
        self._budget = RestartBudget()
        self._evaluator: tuple[Any, object] | None = None
        self._due_at_s = 0.0
        self._wanted: list[_Wanted] = []
        self._running: dict[object, _Running] = {}
        self.num_restarts = 0
        """How often an evaluator died or could not be made and was started again."""
        self.num_repeated = 0
        """Evaluations that had to be asked for again."""

    def ask(self, number: int, counters: Counters) -> None:
        """Evaluate the newest weights, or the first if there are none yet."""
        self._wanted.append(_Wanted(number, counters, self._newest_weights()))

    def begin(self) -> None:
        """Hand over what is wanted, if the evaluator is there or may be started."""
        if not self._wanted:
            return
        if self._evaluator is None:
            now_s = self._clock()
            if now_s < self._due_at_s:
                return
            self._budget.started(now_s)
            self._evaluator = self._start_evaluator()
        evaluator, made = self._evaluator
        for wanted in self._wanted:
            reference = evaluator.evaluate.remote(wanted.number, wanted.weights)
            self._running[reference] = _Running(wanted, self._clock(), made)
        self._wanted.clear()

    @property
    def running(self) -> Mapping[object, Started]:
        """The evaluations that run."""
        return {reference: Started(running.made, reference) for reference, running in self._running.items()}

    def ended(self, reference: object, ending: Ending) -> tuple[EvaluationResult | None, str | None]:
        """An evaluation ended: its result if it has one, and a warning if there is something to warn of.

        Raises:
            AmagoRayError: the evaluator failed, or cannot be made or kept alive.
        """
        running = self._running.pop(reference)
        wanted = running.wanted
        if ending.kind == "returned" and ending.value is not None:
            learner_steps, episodes, policy = ending.value
            counters = Counters(wanted.counters.env_steps, learner_steps, wanted.counters.episodes)
            time_s = self._clock() - running.began_s
            return EvaluationResult(wanted.number, counters, episodes, time_s, policy), None
        if isinstance(ending.error, EnvError) and ending.kind == "raised":
            time_s = self._clock() - running.began_s
            return EvaluationResult(wanted.number, wanted.counters, (), time_s, given_up=str(ending.error)), None
        if ending.kind == "raised":
            raise ending.failure(f"the {_NAME} failed")
        self.num_repeated += 1
        if ending.kind == "returned":
            self.ask(wanted.number, wanted.counters)
            return None, f"the weights of evaluation {wanted.number} were lost: it begins again with the newest"
        warning = None
        if self._evaluator is not None and running.made is self._evaluator[1]:
            # Of several evaluations that end with one evaluator, the first says so.
            self._bury()
            self._due_at_s = self._budget.failed(_NAME, ending, self._clock())
            self._evaluator = None
            self.num_restarts += 1
            what = "died" if ending.kind == "died" else "cannot be made"
            warning = f"the {_NAME} {what} and is started again: {ending.line}"
        self.ask(wanted.number, wanted.counters)
        return None, warning
