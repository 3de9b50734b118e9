"""`Schedule`: when a run evaluates, saves a checkpoint, and ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from amago_ray.config import Config
from amago_ray.telemetry.console import Progress
from amago_ray.training.ports import Counters
from amago_ray.training.state import TrainerState

_LOCAL_CHECKPOINT_INTERVAL = 1000
_RETRY_S = 30.0
"""After which a checkpoint that failed is tried again, where checkpoints are not due by steps alone."""


class Schedule:
    """Says what is due, from the settings, the run's state and the time of this session.

    by_steps: checkpoints are due by updates instead of seconds, as a deterministic backend needs.
    """

    def __init__(self, config: Config, *, by_steps: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._evaluation = config.evaluation
        self._checkpoint = config.checkpoint
        self._stop = config.stop
        self._checkpoint_steps = config.checkpoint.interval_learner_steps or (
            _LOCAL_CHECKPOINT_INTERVAL if by_steps else None
        )
        self._by_steps = by_steps
        self._retry_at_s: float | None = None
        self._clock = clock
        self._began = clock()
        self._saved_at, self._saved_steps = self._began, 0

    def begin(self) -> None:
        """The session begins: its time runs from here."""
        self._began = self._clock()

    @property
    def elapsed_s(self) -> float:
        """Time of this session."""
        return self._clock() - self._began

    def evaluates_first(self) -> bool:
        """Whether a fresh run evaluates before it trains."""
        return self._evaluation.num_episodes > 0 and self._evaluation.at_start

    def evaluation_is_due(self, state: TrainerState) -> bool:
        """Whether to evaluate now; never while an evaluation is under way."""
        is_wanted = self._evaluation.num_episodes > 0 and not state.is_evaluating
        return is_wanted and state.counters.env_steps >= state.next_evaluation

    def next_evaluation(self, env_steps: int) -> int:
        """The first multiple of the interval that lies ahead."""
        interval = self._evaluation.interval_env_steps
        return (env_steps // interval + 1) * interval

    def last_evaluation_is_due(self, state: TrainerState) -> bool:
        """Whether a run that ends still has trained weights that no evaluation has seen."""
        is_stale = max(state.after_steps, 0) < state.counters.learner_steps
        return self._evaluation.num_episodes > 0 and is_stale and not self._reached_by_evaluation(state)

    def checkpoint_is_due(self, learner_steps: int) -> bool:
        """Whether to save now."""
        if self._retry_at_s is not None:
            return self._clock() >= self._retry_at_s
        if self._checkpoint_steps is not None:
            return learner_steps - self._saved_steps >= self._checkpoint_steps
        return self._clock() - self._saved_at >= self._checkpoint.interval_s

    def note_checkpoint(self, learner_steps: int) -> None:
        """The next checkpoint is due an interval after this one; training's begin counts as one."""
        self._saved_at, self._saved_steps = self._clock(), learner_steps
        self._retry_at_s = None

    def note_failed_checkpoint(self, learner_steps: int) -> None:
        """It is tried again soon, or as a deterministic backend needs, when the next one is due."""
        self.note_checkpoint(learner_steps)
        if not self._by_steps:
            self._retry_at_s = self._clock() + min(_RETRY_S, self._checkpoint.interval_s)

    def reason_to_end(self, state: TrainerState) -> str | None:
        """Which stop criterion is met, and where the run stands; None: none yet."""
        stop, counters = self._stop, state.counters
        if stop.env_steps is not None and counters.env_steps >= stop.env_steps:
            return _reached(stop.env_steps, counters.env_steps, "env step")
        if stop.learner_steps is not None and counters.learner_steps >= stop.learner_steps:
            return _reached(stop.learner_steps, counters.learner_steps, "learner step")
        if stop.time_s is not None and self.elapsed_s >= stop.time_s:
            # Nothing ends at a point of time: within a second, it was reached.
            is_late = self.elapsed_s >= stop.time_s + 1
            return (
                f"ended at {self.elapsed_s:.0f} s (asked: {stop.time_s:g})" if is_late else f"reached {stop.time_s:g} s"
            )
        if self._reached_by_evaluation(state):
            return "evaluation reached the goal"
        return None

    def progress(self, counters: Counters, metrics: Mapping[str, float]) -> Progress:
        """The nearest of the criteria that can be foreseen, by the rates in `metrics`."""
        stop = self._stop
        candidates: list[tuple[float, float | None]] = []
        for goal, value, rate in (
            (stop.env_steps, counters.env_steps, metrics.get("time/env_steps_per_s")),
            (stop.learner_steps, counters.learner_steps, metrics.get("time/learner_steps_per_s")),
            (stop.time_s, self.elapsed_s, 1.0),
        ):
            if goal is not None:
                left = max(goal - value, 0.0)
                candidates.append((min(value / goal, 1.0), left / rate if rate else None))
        if not candidates:
            return Progress()
        fraction, left_s = max(candidates, key=lambda candidate: candidate[0])
        return Progress(fraction, left_s)

    def _reached_by_evaluation(self, state: TrainerState) -> bool:
        goals = (
            (self._stop.eval_success_rate, state.after.get("eval/success_rate")),
            (self._stop.eval_return, state.after.get("eval/return_mean")),
        )
        return any(goal is not None and value is not None and value >= goal for goal, value in goals)


def _reached(asked: int, found: int, unit: str) -> str:
    unit = unit if found == 1 else f"{unit}s"
    return f"reached {asked:,} {unit}" if found == asked else f"ended at {found:,} {unit} (asked: {asked:,})"
