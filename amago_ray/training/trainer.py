"""`Trainer`: the loop of a run over a backend. It supervises, evaluates, checkpoints and reports."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.data.spec_json import spec_to_json
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import CheckpointError, RunDirectoryError, TrainingError
from amago_ray.telemetry.bottleneck import Verdict, verdict
from amago_ray.telemetry.console import ConsoleReporter, Progress, RunOutcome
from amago_ray.telemetry.loggers import LoggerGroup
from amago_ray.telemetry.metrics import EpisodeWindow, episode_metrics
from amago_ray.training.checkpoints import CONFIG_FILE, POLICY_FILE, SPEC_FILE, Checkpoint, Checkpoints
from amago_ray.training.ports import Backend, Counters, EvaluationResult, Report
from amago_ray.training.run_directory import RunDirectory

_LOCAL_CHECKPOINT_INTERVAL = 1000


class Trainer:
    """Runs a backend until a stop criterion is met; never touches episode data, and alone writes the run directory.

    by_steps: checkpoint by updates instead of seconds, as a deterministic backend needs.
    """

    def __init__(
        self,
        config: Config,
        backend: Backend,
        directory: RunDirectory,
        spec: EnvSpec,
        console: ConsoleReporter | None,
        loggers: LoggerGroup,
        *,
        by_steps: bool,
    ) -> None:
        self._config = config
        self._backend = backend
        self._directory = directory
        self._spec = spec
        self._console = console
        self._loggers = loggers
        self._checkpoints = Checkpoints(directory.checkpoints, config.checkpoint.keep)
        self._checkpoint_steps = config.checkpoint.interval_learner_steps or (
            _LOCAL_CHECKPOINT_INTERVAL if by_steps else None
        )
        self._window: EpisodeWindow[EpisodeStats] = EpisodeWindow()
        self._last_checkpoint = (0.0, 0)
        self._status: dict[str, Any] = {}
        self._limit: Verdict | None = None
        self._counters = Counters()
        self._shown: dict[str, float] = {}
        self._before: dict[str, float] = {}
        self._after: dict[str, float] = {}
        self._after_steps = -1
        self._best: tuple[float, ...] | None = None
        self._num_evaluations = 0
        self._evaluating = False
        self._next_evaluation = 0
        self._stop_reason: str | None = None
        self._is_interrupted = False
        self._checkpoint_path: Path | None = None
        self._saved_at: tuple[Counters, int, bool] | None = None

    @property
    def is_interrupted(self) -> bool:
        """Whether someone asked to stop: nothing is done then but to save."""
        return self._is_interrupted

    def request_stop(self, reason: str) -> None:
        """Checkpoint and end at the next opportunity; safe to call from a signal handler."""
        self._is_interrupted = True
        self._end(reason)

    def _end(self, reason: str) -> None:
        self._stop_reason = self._stop_reason or reason

    def run(self, checkpoint: Checkpoint | None = None) -> RunOutcome:
        """Train, from scratch or from a checkpoint, until a stop criterion, `request_stop` or an error.

        Raises: CheckpointError if the checkpoint does not fit; TrainingError if training cannot go on.
        """
        began = time.monotonic()
        try:
            self._directory.write_status({"state": "starting"})
            self._start(checkpoint, began)
            # A resumed run may have reached its end before.
            if self._stop_reason is None:
                try:
                    self._train(began)
                except TrainingError as error:
                    raise TrainingError(f"{error}; {self._way_back}") from error
            self._directory.write_status({"state": "ended", "reason": self._stop_reason, **self._status})
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            # A status that cannot be written must not hide why the run failed.
            with suppress(RunDirectoryError):
                self._directory.write_status({"state": "failed", "reason": reason, **self._status})
            raise
        finally:
            with ExitStack() as stack:
                # Last in, first out; each is called, whatever the others raise.
                if self._console is not None:
                    stack.callback(self._console.close)
                stack.callback(self._loggers.close)
                stack.callback(self._backend.stop)
        assert self._stop_reason is not None
        return RunOutcome(
            reason=self._stop_reason,
            time_s=time.monotonic() - began,
            run_directory=self._directory.path,
            before=self._before,
            after=self._after,
            checkpoint=self._checkpoint_path,
        )

    def _start(self, checkpoint: Checkpoint | None, began: float) -> None:
        self._backend.start(checkpoint)
        if checkpoint is not None:
            self._restore(checkpoint)
            self._check_criteria(began)
            return
        self._next_evaluation = self._config.evaluation.interval_env_steps
        if self._config.evaluation.num_episodes and self._config.evaluation.at_start:
            self._request_evaluation()

    def _train(self, began: float) -> None:
        self._last_checkpoint = (time.monotonic(), self._counters.learner_steps)
        while self._stop_reason is None:
            self._take(self._backend.advance(self._config.report.interval_s), began)
            if self._stop_reason is None:
                self._schedule()
        if self._wants_last_evaluation():
            # The last checkpoint holds the weights that are evaluated last.
            self._backend.finish()
            self._await_evaluation(began)
            self._request_evaluation()
            self._await_evaluation(began)
        if self._saved_at != self._progress_mark:
            self._save_checkpoint()

    def _schedule(self) -> None:
        """Begin an evaluation or save a checkpoint if it is time."""
        evaluation = self._config.evaluation
        if evaluation.num_episodes and not self._evaluating and self._counters.env_steps >= self._next_evaluation:
            self._next_evaluation = (
                self._counters.env_steps // evaluation.interval_env_steps + 1
            ) * evaluation.interval_env_steps
            self._request_evaluation()
        saved_at, saved_steps = self._last_checkpoint
        if self._checkpoint_steps is not None:
            due = self._counters.learner_steps - saved_steps >= self._checkpoint_steps
        else:
            due = time.monotonic() - saved_at >= self._config.checkpoint.interval_s
        if due:
            self._save_checkpoint()

    def _request_evaluation(self) -> None:
        self._evaluating = True
        self._backend.request_evaluation(self._num_evaluations)
        self._num_evaluations += 1

    def _await_evaluation(self, began: float) -> None:
        while self._evaluating:
            self._take(self._backend.advance(self._config.report.interval_s), began)

    def _wants_last_evaluation(self) -> bool:
        is_stale = self._after_steps < self._counters.learner_steps
        is_wanted = self._config.evaluation.num_episodes > 0 and not self._is_interrupted
        return is_wanted and is_stale and not self._reached_by_eval()

    def _take(self, report: Report, began: float) -> None:
        """Turn a report into metrics, and see whether the run should end."""
        self._counters = report.counters
        self._window.add(report.episodes)
        metrics: dict[str, float] = {**report.metrics, **self._window.metrics("rollout")}
        metrics |= {
            "learner_steps": float(report.counters.learner_steps),
            "episodes": float(report.counters.episodes),
        }
        lags = [_lag(report.counters, episode.policy_version) for episode in report.episodes]
        known = [lag for lag in lags if lag is not None]
        if known:
            metrics["time/policy_lag"] = sum(known) / len(known)
        for result in report.evaluations:
            self._evaluating = False
            metrics |= self._take_evaluation(result)
        if report.sides:
            self._limit = verdict(report.sides)
            metrics |= self._limit.metrics()
        written = self._loggers.log(report.counters.env_steps, metrics)
        self._shown |= {**written, "env_steps": float(report.counters.env_steps)}
        progress = self._progress(began)
        if self._console is not None:
            for warning in report.warnings:
                self._console.message(f"warning: {warning}")
            self._console.report(self._shown, progress, self._limit)
        self._status = {
            "metrics": self._shown,
            "fraction": progress.fraction,
            "time_left_s": progress.time_left_s,
            "bottleneck": None if self._limit is None else str(self._limit),
        }
        self._directory.write_status({"state": "running", **self._status})
        if report.stop_requested:
            self.request_stop("stopped on request")
        self._check_criteria(began)

    def _take_evaluation(self, result: EvaluationResult) -> dict[str, float]:
        metrics = episode_metrics(result.episodes, "eval")
        metrics["eval/learner_steps"] = float(result.counters.learner_steps)
        metrics["eval/env_steps"] = float(result.counters.env_steps)
        metrics["time/evaluation_s"] = result.time_s
        if result.number == 0 and self._config.evaluation.at_start:
            self._before = metrics
        self._after, self._after_steps = metrics, result.counters.learner_steps
        score = (metrics.get("eval/success_rate", 0.0), metrics["eval/return_mean"])
        if result.policy is not None and (self._best is None or score >= self._best):
            self._best = score
            self._checkpoints.save_best(
                result.counters.learner_steps,
                {POLICY_FILE: result.policy, **self._common_files()},
                {"env_steps": result.counters.env_steps, "learner_steps": result.counters.learner_steps, **metrics},
            )
        return metrics

    def _check_criteria(self, began: float) -> None:
        stop, counters = self._config.stop, self._counters
        if stop.env_steps is not None and counters.env_steps >= stop.env_steps:
            self._end(f"reached {stop.env_steps:,} env steps")
        if stop.learner_steps is not None and counters.learner_steps >= stop.learner_steps:
            self._end(f"reached {stop.learner_steps:,} learner steps")
        if stop.time_s is not None and time.monotonic() - began >= stop.time_s:
            self._end(f"reached {stop.time_s:g} s")
        if self._reached_by_eval():
            self._end("evaluation reached the goal")

    def _reached_by_eval(self) -> bool:
        stop = self._config.stop
        goals = (
            (stop.eval_success_rate, self._after.get("eval/success_rate")),
            (stop.eval_return, self._after.get("eval/return_mean")),
        )
        return any(goal is not None and value is not None and value >= goal for goal, value in goals)

    def _progress(self, began: float) -> Progress:
        """The nearest of the criteria that can be foreseen."""
        stop, counters = self._config.stop, self._counters
        elapsed = time.monotonic() - began
        candidates: list[tuple[float, float | None]] = []
        for goal, value, rate in (
            (stop.env_steps, counters.env_steps, self._shown.get("time/env_steps_per_s")),
            (stop.learner_steps, counters.learner_steps, self._shown.get("time/learner_steps_per_s")),
            (stop.time_s, elapsed, 1.0),
        ):
            if goal is not None:
                left = max(goal - value, 0.0)
                candidates.append((min(value / goal, 1.0), left / rate if rate else None))
        if not candidates:
            return Progress()
        fraction, left_s = max(candidates, key=lambda candidate: candidate[0])
        return Progress(fraction, left_s)

    def _common_files(self) -> dict[str, bytes]:
        """What `load_policy` needs beside the weights."""
        return {
            CONFIG_FILE: (self._directory.path / CONFIG_FILE).read_bytes(),
            SPEC_FILE: spec_to_json(self._spec).encode(),
        }

    def _save_checkpoint(self) -> None:
        capture = self._backend.capture()
        state = {
            "env_steps": capture.counters.env_steps,
            "learner_steps": capture.counters.learner_steps,
            "episodes": capture.counters.episodes,
            "state": capture.state,
            "trainer": {
                "next_evaluation": self._next_evaluation,
                "num_evaluations": self._num_evaluations,
                "evaluating": self._evaluating,
                "before": self._before,
                "after": self._after,
                "after_steps": self._after_steps,
                "best": self._best,
                "window": [_plain(episode) for episode in self._window.episodes],
            },
        }
        files = {**capture.files, **self._common_files()}
        self._checkpoint_path = self._checkpoints.save(capture.counters.learner_steps, files, state)
        self._last_checkpoint = (time.monotonic(), capture.counters.learner_steps)
        self._saved_at = self._progress_mark

    @property
    def _way_back(self) -> str:
        """What is left to go on from when training cannot."""
        if self._checkpoint_path is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self._checkpoint_path}, from which --resume goes on"

    @property
    def _progress_mark(self) -> tuple[Counters, int, bool]:
        """Changes whenever there is something new to save."""
        return self._counters, self._num_evaluations, self._evaluating

    def _restore(self, checkpoint: Checkpoint) -> None:
        try:
            state: Mapping[str, Any] = checkpoint.metadata["trainer"]
            self._counters = Counters(
                *(int(checkpoint.metadata[name]) for name in ("env_steps", "learner_steps", "episodes"))
            )
            self._next_evaluation = state["next_evaluation"]
            self._num_evaluations = state["num_evaluations"]
            self._before, self._after = dict(state["before"]), dict(state["after"])
            self._after_steps = state["after_steps"]
            self._best = None if state["best"] is None else tuple(state["best"])
            self._window.add(_episode(episode) for episode in state["window"])
            was_evaluating = state["evaluating"]
        except KeyError as error:
            raise CheckpointError(f"{checkpoint.path}: its metadata lacks {error}") from error
        self._checkpoint_path = checkpoint.path
        if was_evaluating and self._config.evaluation.num_episodes:
            # Its result was not in the checkpoint yet.
            self._num_evaluations -= 1
            self._request_evaluation()
        self._saved_at = self._progress_mark


def _lag(counters: Counters, version: PolicyVersion) -> float | None:
    """Updates made since the weights that ended an episode; None for untrained weights of no learner."""
    return None if version.learner_steps < 0 else float(max(counters.learner_steps - version.learner_steps, 0))


def _plain(episode: EpisodeStats) -> dict[str, Any]:
    return {
        "env_name": episode.env_name,
        "episode_return": episode.episode_return,
        "length": episode.length,
        "counter": episode.counter,
        "policy_version": list(episode.policy_version),
        "success": episode.success,
        "events": dict(episode.events),
    }


def _episode(plain: Mapping[str, Any]) -> EpisodeStats:
    return EpisodeStats(**{**plain, "policy_version": PolicyVersion(*plain["policy_version"])})
