"""`Trainer`: the loop of a run over a backend. It supervises, evaluates, checkpoints and reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from amago_ray.config import Config
from amago_ray.config.load import dump_yaml
from amago_ray.data.files import POLICY_FILE
from amago_ray.data.spec_json import spec_to_json
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import AmagoRayError, CheckpointError, TrainingError, error_line
from amago_ray.telemetry.console import ConsoleReporter, RunOutcome
from amago_ray.telemetry.loggers import LoggerGroup
from amago_ray.training.checkpoints import CONFIG_FILE, SPEC_FILE, Checkpoint, Checkpoints
from amago_ray.training.ports import Backend, Capture, CaptureError, Counters, EvaluationResult, Report
from amago_ray.training.reporting import Reporter, evaluation_metrics, no_episode_ended
from amago_ray.training.run_directory import RunDirectory
from amago_ray.training.schedule import Schedule
from amago_ray.training.state import TrainerState

_LONG_EPISODE = 5_000
"""Steps after which an episode without a known horizon is long enough to be spoken of."""


@dataclass(frozen=True)
class StepReport:
    """What a step of the trainer tells: totals, the newest value of every metric, and why the run ended with it.

    reason: None while the run goes on.
    """

    counters: Counters
    metrics: Mapping[str, float]
    reason: str | None


class Trainer:
    """Runs a backend until a stop criterion is met; never touches episode data, and alone writes the run directory.

    `start`, then `step` until it names a reason, `save` in between, and `stop` whatever happened: `run` is that.

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
        self._checkpoints = Checkpoints(directory.checkpoints, config.checkpoint.keep)
        self._schedule = Schedule(config, by_steps=by_steps)
        self._reporter = Reporter(directory, console, loggers, self._schedule, _patience(config, spec))
        self._state = TrainerState.fresh(config)
        self._reason: str | None = None
        self._failure: str | None = None
        self._is_interrupted = False
        self._checkpoint_path: Path | None = None
        self._saved_mark: tuple[Counters, int, bool] | None = None
        self._unwritten: Capture | None = None
        """The newest capture that could not be written."""
        self._num_unsaved = 0
        self._is_saving_failing = False

    @property
    def is_interrupted(self) -> bool:
        """Whether someone asked to stop: nothing is done then but to save."""
        return self._is_interrupted

    @property
    def counters(self) -> Counters:
        """Totals of the run as last reported."""
        return self._state.counters

    def request_stop(self, reason: str) -> None:
        """Checkpoint and end at the next opportunity; safe to call from a signal handler."""
        self._is_interrupted = True
        self._end(reason)
        self._backend.interrupt()

    def run(self, checkpoint: Checkpoint | None = None) -> RunOutcome:
        """Train, from scratch or from a checkpoint, until a stop criterion, `request_stop` or an error.

        Raises:
            CheckpointError: the checkpoint does not fit.
            TrainingError: training cannot go on.
        """
        try:
            with self._noting_failure():
                self.start(checkpoint)
                while self._reason is None:
                    self.step()
        finally:
            self.stop()
        assert self._reason is not None
        return RunOutcome(
            reason=self._reason,
            time_s=self._schedule.elapsed_s,
            run_directory=self._directory.path,
            before=self._state.before,
            after=self._state.after,
            checkpoint=self._checkpoint_path,
        )

    def start(self, checkpoint: Checkpoint | None = None) -> None:
        """Start the working parts, from scratch or from a checkpoint, whose run may have reached its end before.

        Raises:
            CheckpointError: the checkpoint does not fit.
        """
        with self._noting_failure():
            self._schedule.begin()
            self._reporter.write_status("starting")
            self._backend.start()
            if checkpoint is not None:
                self._restore(checkpoint)
            elif self._schedule.evaluates_first():
                self._request_evaluation()
            self._schedule.note_checkpoint(self._state.counters.learner_steps)

    def step(self) -> StepReport:
        """Train until the next whole report. The step that names a reason is the last: it evaluates and saves the end.

        Raises:
            TrainingError: training cannot go on.
        """
        with self._noting_failure():
            try:
                while self._advance().is_interim and self._reason is None:
                    pass
                if self._reason is None:
                    self._do_what_is_due()
                if self._reason is not None:
                    self._conclude()
            except TrainingError as error:
                raise TrainingError(f"{error}; {self._way_back}") from error
            except CheckpointError:
                raise
            except AmagoRayError as error:
                # What was learned is sound.
                if self._state.counters.learner_steps and self._saved_mark != self._state.mark:
                    self._save_if_possible()
                raise type(error)(f"{error}; {self._way_back}") from error
        return StepReport(self._state.counters, self._reporter.metrics, self._reason)

    def save(self) -> Path:
        """Write a checkpoint of everything; returns its directory.

        Raises:
            CheckpointError: it cannot be written, or (CaptureError) its content cannot be had now; earlier ones stay.
        """
        return self._write(self._backend.capture())

    def _write(self, capture: Capture) -> Path:
        self._unwritten = capture
        self._checkpoint_path = self._checkpoints.save(
            capture.counters.learner_steps,
            {**capture.files, **self._common_files()},
            self._state.metadata(capture.counters, capture.state),
        )
        self._unwritten, self._is_saving_failing = None, False
        self._schedule.note_checkpoint(capture.counters.learner_steps)
        self._saved_mark = self._state.mark
        return self._checkpoint_path

    def stop(self) -> None:
        """Say in the status how the run ended, and release everything; each part, whatever the others raise."""
        with ExitStack() as stack:
            # Last in, first out.
            stack.callback(self._reporter.close)
            stack.callback(self._backend.stop)
            if self._failure is None:
                self._reporter.write_status("ended", self._reason)
            else:
                self._reporter.write_status("failed", self._failure)

    def _end(self, reason: str | None) -> None:
        self._reason = self._reason or reason

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """What is raised here is how the run ended."""
        try:
            yield
        except BaseException as error:
            self._failure = self._failure or error_line(error)
            if isinstance(error, KeyboardInterrupt):
                # The second signal: whatever still waits for an answer gives up.
                self._backend.interrupt()
            raise

    def _advance(self) -> Report:
        """Let the backend work until its next report, and see whether the run should end."""
        report = self._backend.advance(self._config.report.interval_s)
        self._state.counters = report.counters
        self._state.window.add(report.episodes)
        evaluated: dict[str, float] = {}
        for result in report.evaluations:
            evaluated |= self._take_evaluation(result)
        if self._num_unsaved:
            evaluated["checkpoint/num_failed"] = float(self._num_unsaved)
        self._reporter.report(report, self._state, evaluated)
        if report.stop_requested:
            self.request_stop("stopped on request")
        self._end(self._schedule.reason_to_end(self._state))
        return report

    def _do_what_is_due(self) -> None:
        if self._schedule.evaluation_is_due(self._state):
            self._state.next_evaluation = self._schedule.next_evaluation(self._state.counters.env_steps)
            self._request_evaluation()
        if self._schedule.checkpoint_is_due(self._state.counters.learner_steps):
            self._save_if_possible()

    def _conclude(self) -> None:
        """Evaluate and save what training ended with."""
        if not self._is_interrupted:
            # The last checkpoint holds the weights that are evaluated last.
            self._backend.finish()
            self._advance()
            self._reason = self._schedule.reason_to_end(self._state) or self._reason
            self._await_evaluation()
            if self._schedule.last_evaluation_is_due(self._state):
                self._request_evaluation()
                self._await_evaluation()
        if self._state.counters.env_steps and not self._state.counters.episodes:
            self._reporter.warn(no_episode_ended(self._state.counters.env_steps, self._reporter.num_lost_episodes))
        if self._saved_mark != self._state.mark:
            try:
                self.save()
            except CaptureError as error:
                self._reporter.warn(f"no checkpoint: {error}")
                if self._unwritten is not None:
                    self._write(self._unwritten)

    def _save_if_possible(self) -> None:
        """Save, or say once why not; it is tried again soon."""
        try:
            self.save()
        except CheckpointError as error:
            self._num_unsaved += 1
            self._schedule.note_failed_checkpoint(self._state.counters.learner_steps)
            if not self._is_saving_failing:
                self._reporter.warn(f"no checkpoint: {error}; it is tried again")
            self._is_saving_failing = True

    def _request_evaluation(self) -> None:
        self._backend.request_evaluation(self._state.begin_evaluation())

    def _await_evaluation(self) -> None:
        while self._state.is_evaluating and not self._is_interrupted:
            self._advance()

    def _take_evaluation(self, result: EvaluationResult) -> dict[str, float]:
        if result.given_up is not None:
            self._reporter.warn(f"an evaluation was given up: {result.given_up}")
            self._state.is_evaluating = False
            self._state.num_given_up += 1
            return {"eval/num_given_up": float(self._state.num_given_up)}
        metrics = evaluation_metrics(result)
        is_before = result.number == 0 and self._config.evaluation.at_start
        best = self._state.best
        if self._state.take_evaluation(result, metrics, is_before=is_before) and result.policy is not None:
            try:
                self._checkpoints.save_best(
                    result.counters.learner_steps,
                    {POLICY_FILE: result.policy, **self._common_files()},
                    {"env_steps": result.counters.env_steps, "learner_steps": result.counters.learner_steps, **metrics},
                )
            except CheckpointError as error:
                # A later one that is no better is kept then.
                self._state.best = best
                self._reporter.warn(f"the best weights are not kept: {error}")
        return metrics

    def _common_files(self) -> dict[str, bytes]:
        """What `load_policy` needs beside the weights."""
        return {
            CONFIG_FILE: dump_yaml(self._config).encode(),
            SPEC_FILE: spec_to_json(self._spec).encode(),
        }

    @property
    def _way_back(self) -> str:
        """What is left to go on from when training cannot."""
        if self._checkpoint_path is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self._checkpoint_path}, from which --resume goes on"

    def _restore(self, checkpoint: Checkpoint) -> None:
        self._state = TrainerState.of(checkpoint)
        self._checkpoint_path = checkpoint.path
        if self._state.is_evaluating:
            # Its result was not in the checkpoint yet.
            self._state.is_evaluating = False
            if self._config.evaluation.num_episodes:
                self._state.num_evaluations -= 1
                self._request_evaluation()
        self._saved_mark = self._state.mark
        self._end(self._schedule.reason_to_end(self._state))


def _patience(config: Config, spec: EnvSpec) -> int:
    """Env steps in which every environment could have ended an episode."""
    num_envs = config.rollout.most_env_runners * config.rollout.num_envs_per_env_runner
    return num_envs * max(_LONG_EPISODE, 2 * (spec.horizon or 0))
