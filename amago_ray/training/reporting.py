"""`Reporter`: hands what happened to the loggers, the console and the status file."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from amago_ray.data.episode import PolicyVersion
from amago_ray.errors import RunDirectoryError
from amago_ray.telemetry.bottleneck import Verdict, verdict
from amago_ray.telemetry.console import ConsoleReporter
from amago_ray.telemetry.loggers import LoggerGroup
from amago_ray.telemetry.metrics import episode_metrics
from amago_ray.training.ports import Counters, EvaluationResult, Report
from amago_ray.training.run_directory import RunDirectory
from amago_ray.training.schedule import Schedule
from amago_ray.training.state import TrainerState

_log = logging.getLogger(__name__)

_KEPT_WARNINGS = 10


class Reporter:
    """Turns reports into metrics and shows them everywhere.

    patience: env steps without an episode's end, of all environments together, after which that is worth a warning.
    """

    def __init__(
        self,
        directory: RunDirectory,
        console: ConsoleReporter | None,
        loggers: LoggerGroup,
        schedule: Schedule,
        patience: int,
    ) -> None:
        self._directory = directory
        self._console = console
        self._loggers = loggers
        self._schedule = schedule
        self._endless = EndlessWatch(patience)
        self._limit: Verdict | None = None
        self._is_status_failing = False
        self._counters = Counters()
        self._status: dict[str, Any] = {}
        self._shown: dict[str, float] = {}
        self._warnings: deque[dict[str, Any]] = deque(maxlen=_KEPT_WARNINGS)
        """The newest, with their times."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The newest value of every metric."""
        return self._shown

    @property
    def num_lost_episodes(self) -> int:
        """Episodes that were lost to failures of their environments, as last reported."""
        return int(self._shown.get("rollout/dropped_episodes", 0))

    def report(self, report: Report, state: TrainerState, evaluated: Mapping[str, float]) -> None:
        """Show a report, and log it with what evaluations brought, unless it is an interim one."""
        is_news = not report.is_interim or report.counters != self._counters
        self._counters = report.counters
        if report.is_interim:
            self._shown |= _counts(report.counters)
        else:
            metrics = {**_metrics(report, state), **evaluated}
            if report.sides:
                self._limit = verdict(report.sides)
                metrics |= self._limit.metrics()
            self._shown |= self._loggers.log(report.counters.env_steps, metrics)
            self._warn_of_loggers()
        self._shown["env_steps"] = float(report.counters.env_steps)
        for warning in report.warnings:
            self.warn(warning)
        endless = self._endless.look(report.counters, self.num_lost_episodes)
        if endless is not None:
            self.warn(endless)
        progress = self._schedule.progress(report.counters, self._shown)
        if self._console is not None and is_news:
            was_on = self._console.failure is None
            self._console.report(self._shown, progress, self._limit)
            if was_on and self._console.failure is not None:
                why = getattr(self._console.failure, "strerror", None) or self._console.failure
                self.warn(f"the console cannot be written, the run goes on without it: {why}")
        self._status = {
            "metrics": self._shown,
            "fraction": progress.fraction,
            "time_left_s": progress.time_left_s,
            "bottleneck": None if self._limit is None else str(self._limit),
            "processes": [asdict(process) for process in report.processes],
            "warnings": list(self._warnings),
        }
        self.write_status("running")

    def warn(self, text: str) -> None:
        """Show a line that stays; without a console that works, on stderr."""
        self._warnings.append({"unix_time_s": round(time.time(), 3), "text": text})
        if self._console is not None and self._console.failure is None:
            self._console.message(f"warning: {text}")
        if self._console is None or self._console.failure is not None:
            _log.warning("%s", text)

    def write_status(self, state: str, reason: str | None = None) -> None:
        """Note in which state the run is, beside the newest metrics; where that fails, say so once."""
        why = {} if reason is None else {"reason": reason}
        try:
            self._directory.write_status({"state": state, **why, **self._status})
        except RunDirectoryError as error:
            if not self._is_status_failing:
                self.warn(str(error))
            self._is_status_failing = True
        else:
            self._is_status_failing = False

    def close(self) -> None:
        """Close loggers and console, each whatever the other raises."""
        with ExitStack() as stack:
            # Last in, first out.
            if self._console is not None:
                stack.callback(self._console.close)
            stack.callback(self._warn_of_loggers)
            stack.callback(self._loggers.close)

    def _warn_of_loggers(self) -> None:
        for warning in self._loggers.take_warnings():
            self.warn(warning)


class EndlessWatch:
    """Notices that no episode ends, so that nothing comes to be trained on; says so again after twice the time."""

    def __init__(self, patience: int) -> None:
        self._patience = self._wait = patience
        self._last_end: tuple[Counters, int] | None = None

    def look(self, counters: Counters, num_lost: int) -> str | None:
        """A warning, or None. num_lost: the episodes that were lost to failures so far."""
        if self._last_end is None or counters.episodes != self._last_end[0].episodes:
            self._last_end, self._wait = (counters, num_lost), self._patience
        num_steps = counters.env_steps - self._last_end[0].env_steps
        if num_steps < self._wait:
            return None
        self._wait = 2 * num_steps
        return no_episode_ended(num_steps, num_lost - self._last_end[1])


def no_episode_ended(env_steps: int, num_lost: int) -> str:
    """What is said of a run, or a part of it, that turned out no episode but `num_lost`, which failed."""
    if num_lost:
        return f"no episode ended in {env_steps:,} steps: {num_lost:,} were lost to failures of their environments"
    return f"no episode ended in {env_steps:,} steps: set env.max_episode_steps"


def evaluation_metrics(result: EvaluationResult) -> dict[str, float]:
    """`eval/...` of a finished evaluation."""
    return {
        **episode_metrics(result.episodes, "eval"),
        "eval/learner_steps": float(result.counters.learner_steps),
        "eval/env_steps": float(result.counters.env_steps),
        "time/evaluation_s": result.time_s,
    }


def _metrics(report: Report, state: TrainerState) -> dict[str, float]:
    metrics = {**report.metrics, **state.window.metrics("rollout"), **_counts(report.counters)}
    lags = [_lag(report.counters, episode.policy_version) for episode in report.episodes]
    known = [lag for lag in lags if lag is not None]
    if known:
        metrics["time/policy_lag"] = sum(known) / len(known)
    return metrics


def _counts(counters: Counters) -> dict[str, float]:
    return {"learner_steps": float(counters.learner_steps), "episodes": float(counters.episodes)}


def _lag(counters: Counters, version: PolicyVersion) -> float | None:
    """Updates made since the weights that ended an episode; None for untrained weights of no learner."""
    return None if version.learner_steps < 0 else float(max(counters.learner_steps - version.learner_steps, 0))
