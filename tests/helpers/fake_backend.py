"""A backend that trains nothing: counters grow, evaluations and captures are answered as scripted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amago_ray.data.episode import PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.data.files import POLICY_FILE, TRAINING_STATE_FILE
from amago_ray.training.checkpoints import Checkpoint
from amago_ray.training.ports import Capture, Counters, EvaluationResult, Report


def stats(counter: int, episode_return: float = 1.0, *, success: float | None = None, steps: int = 0) -> EpisodeStats:
    return EpisodeStats(
        "fake", episode_return, 5, counter, PolicyVersion(0, steps), success, {"attempt_return": episode_return}
    )


class FakeBackend:
    """Each report: `env_steps` and `learner_steps` more, one episode that returns the number of the report.

    Evaluations score `score_of(learner_steps)` and arrive `evaluation_delay` reports after they were asked for; where
    it is 0, before anything else goes on, as in a local run. It is killed in the first call past `crash_at` env steps.
    """

    def __init__(
        self,
        *,
        env_steps: int = 100,
        learner_steps: int = 10,
        score_of: Callable[[int], float] = lambda learner_steps: 0.0,
        evaluation_delay: int = 0,
        on_advance: Callable[[FakeBackend], None] = lambda backend: None,
        crash_at: int | None = None,
        metrics: dict[str, float] | None = None,
        warnings: list[str] | None = None,
    ) -> None:
        self.counters = Counters()
        self.calls: list[Any] = []
        self.started_from: Checkpoint | None = None
        self.is_stopped = False
        self.is_finished = False
        self.is_interrupted = False
        self.stop_requested = False
        self._env_steps, self._learner_steps = env_steps, learner_steps
        self._score_of = score_of
        self._evaluation_delay = evaluation_delay
        self.on_advance = on_advance
        self._crash_at = crash_at
        self._metrics = metrics or {}
        self._warnings = warnings or []
        self._pending: list[list[Any]] = []
        self._num_reports = 0

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        self.started_from = checkpoint
        if checkpoint is not None:
            self.counters = Counters(
                *(checkpoint.metadata[name] for name in ("env_steps", "learner_steps", "episodes"))
            )
            self._num_reports = checkpoint.metadata["state"]["reports"]

    def start(self) -> None:
        """Nothing is to be begun."""

    def advance(self, timeout_s: float) -> Report:
        if self._crash_at is not None and self.counters.env_steps >= self._crash_at:
            raise KeyboardInterrupt
        if self._pending and not self._evaluation_delay:
            arrived, self._pending = [result for _, result in self._pending], []
            return Report(self.counters, evaluations=arrived)
        before = self.counters
        if self.is_finished:
            arrived, self._pending = [result for _, result in self._pending], []
            return Report(before, evaluations=arrived, is_interim=not arrived)
        self._num_reports += 1
        self.counters = Counters(
            before.env_steps + self._env_steps, before.learner_steps + self._learner_steps, before.episodes + 1
        )
        self.calls.append(("advance", self.counters.env_steps))
        self.on_advance(self)
        arrived = [result for delay, result in self._pending if delay <= 1]
        self._pending = [[delay - 1, result] for delay, result in self._pending if delay > 1]
        return Report(
            self.counters,
            [stats(before.episodes, float(self._num_reports), success=1.0, steps=before.learner_steps)],
            self._metrics,
            [{"acting": 0.3, "governor": 0.7}, {"learner": 0.9}],
            arrived,
            self._warnings,
            self.stop_requested,
        )

    def request_evaluation(self, number: int) -> None:
        self.calls.append(("evaluate", number, self.counters.learner_steps))
        score = self._score_of(self.counters.learner_steps)
        episodes = [stats(k, score, success=score) for k in range(4)]
        policy = f"weights of {self.counters.learner_steps}".encode()
        self._pending.append([self._evaluation_delay, EvaluationResult(number, self.counters, episodes, 0.5, policy)])

    def capture(self) -> Capture:
        self.calls.append(("capture", self.counters.learner_steps))
        files = {POLICY_FILE: b"weights", TRAINING_STATE_FILE: b"state"}
        return Capture(self.counters, files, {"reports": self._num_reports})

    def finish(self) -> None:
        self.is_finished = True

    def interrupt(self) -> None:
        self.is_interrupted = True

    def stop(self) -> None:
        self.is_stopped = True

    def of_kind(self, kind: str) -> list[Any]:
        return [call for call in self.calls if call[0] == kind]
