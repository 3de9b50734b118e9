"""The trainer's loop over a backend that trains nothing."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.fake_backend import FakeBackend
from helpers.one_line import one_line
from helpers.run_directories import begun
from helpers.scripted import make_spec
from rich.console import Console

from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.training import CheckpointConfig, EvaluationConfig, ReportConfig, StopConfig
from amago_ray.errors import CheckpointError, DataError, RunDirectoryError, TrainingError
from amago_ray.telemetry.console import ConsoleReporter, RunOutcome
from amago_ray.telemetry.loggers import JsonlLogger, LoggerGroup, read_metrics
from amago_ray.training.checkpoints import Checkpoint, Checkpoints
from amago_ray.training.ports import CaptureError, Counters, EvaluationResult, Report
from amago_ray.training.reporting import EndlessWatch
from amago_ray.training.run_directory import RunDirectory
from amago_ray.training.trainer import Trainer


def make_config(tmp_path: Path, **settings: Any) -> Config:
    return Config(
        **{
            "env": EnvConfig(id="fake"),
            "name": "fake",
            "runs_dir": str(tmp_path),
            "stop": StopConfig(env_steps=1000),
            "evaluation": EvaluationConfig(num_episodes=4, interval_env_steps=300),
            "checkpoint": CheckpointConfig(interval_learner_steps=30, keep=100),
            "report": ReportConfig(interval_s=0.0),
            **settings,
        }
    )


def make_trainer(
    config: Config,
    backend: FakeBackend,
    checkpoint: Checkpoint | None = None,
    *,
    by_steps: bool = True,
    console: Any = None,
) -> Trainer:
    backend.prepare(checkpoint)
    directory = begun(config, resume=checkpoint is not None)
    loggers = LoggerGroup([JsonlLogger(directory.path / "metrics.jsonl")])
    return Trainer(config, backend, directory, make_spec(), console, loggers, by_steps=by_steps)


def run(config: Config, backend: FakeBackend, *, resume: bool = False, by_steps: bool = True) -> RunOutcome:
    checkpoint = checkpoints_of(config).load() if resume else None
    return make_trainer(config, backend, checkpoint, by_steps=by_steps).run(checkpoint)


def reports(config: Config) -> list[dict[str, float]]:
    return [
        {name: value for name, value in report.items() if name != "unix_time_s"}
        for report in read_metrics(Path(config.runs_dir) / config.name / "metrics.jsonl")
    ]


def checkpoints_of(config: Config) -> Checkpoints:
    return Checkpoints(Path(config.runs_dir) / config.name / "checkpoints", keep=1)


# --- when it stops --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "reason", "env_steps"),
    [
        (StopConfig(env_steps=250), "ended at 300 env steps (asked: 250)", 300),
        (StopConfig(learner_steps=50), "reached 50 learner steps", 500),
        (StopConfig(env_steps=10_000, learner_steps=20), "reached 20 learner steps", 200),
        (StopConfig(time_s=1e-9), "reached 1e-09 s", 100),
    ],
    ids=["env steps", "learner steps", "the first of several", "time"],
)
def test_it_stops_when_a_criterion_is_met(tmp_path: Path, stop: StopConfig, reason: str, env_steps: int) -> None:
    config = make_config(tmp_path, stop=stop, evaluation=EvaluationConfig(num_episodes=0))
    backend = FakeBackend()
    outcome = run(config, backend)
    assert outcome.reason == reason
    assert backend.counters.env_steps == env_steps
    assert backend.is_stopped
    assert checkpoints_of(config).load().metadata["env_steps"] == env_steps


@pytest.mark.parametrize("stop", [StopConfig(eval_success_rate=0.6), StopConfig(eval_return=0.6)], ids=str)
def test_it_stops_when_an_evaluation_reaches_the_goal(tmp_path: Path, stop: StopConfig) -> None:
    config = make_config(tmp_path, stop=stop)
    backend = FakeBackend(score_of=lambda learner_steps: learner_steps / 100)
    outcome = run(config, backend)
    assert outcome.reason == "evaluation reached the goal"
    assert outcome.after["eval/return_mean"] == 0.6
    assert outcome.after["eval/success_rate"] == 0.6
    assert outcome.before["eval/return_mean"] == 0.0
    assert len(backend.of_kind("evaluate")) == 3, "at 0, 30 and 60 learner steps; none again at the end"


def test_a_request_to_stop_checkpoints_and_ends_without_another_evaluation(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    backend = FakeBackend()
    trainer = make_trainer(config, backend)
    backend.on_advance = lambda b: trainer.request_stop("stopped by the user") if b.counters.env_steps >= 500 else None
    outcome = trainer.run()
    assert outcome.reason == "stopped by the user"
    assert backend.of_kind("capture")[-1] == ("capture", 50)
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.name == "step_000000050"
    assert backend.of_kind("evaluate")[-1][2] < 50
    trainer.request_stop("again")
    assert outcome.reason == "stopped by the user"


def test_a_backend_may_ask_to_stop(tmp_path: Path) -> None:
    backend = FakeBackend()
    backend.stop_requested = True
    assert run(make_config(tmp_path), backend).reason == "stopped on request"


def test_a_request_to_stop_reaches_the_backend_at_once(tmp_path: Path) -> None:
    backend = FakeBackend()
    trainer = make_trainer(make_config(tmp_path), backend)
    trainer.request_stop("stopped by the user")
    assert backend.is_interrupted
    trainer.stop()


def test_interim_reports_are_shown_but_neither_logged_nor_reason_to_save(tmp_path: Path) -> None:
    class Slow(FakeBackend):
        """Every second report is an interim one."""

        def advance(self, timeout_s: float) -> Report:
            report = super().advance(timeout_s)
            is_interim = report.is_interim or self.counters.env_steps % 200 > 0
            return replace(report, is_interim=is_interim, metrics={}, episodes=())

    config = make_config(tmp_path, evaluation=EvaluationConfig(num_episodes=0))
    output = io.StringIO()
    console = ConsoleReporter("fake", Console(file=output, width=200))
    backend = Slow()
    make_trainer(config, backend, console=console).run()
    assert [report["env_steps"] for report in reports(config)] == [200, 400, 600, 800, 1000]
    assert [call[1] for call in backend.of_kind("capture")] == [40, 80, 100]
    assert "env steps 300 |" in output.getvalue()


def test_the_reason_tells_what_was_made_not_what_was_asked(tmp_path: Path) -> None:
    """Counts that come in when runners have ended are part of it."""

    class Late(FakeBackend):
        def finish(self) -> None:
            super().finish()
            self.counters = replace(self.counters, env_steps=self.counters.env_steps + 16)

    config = make_config(tmp_path, evaluation=EvaluationConfig(num_episodes=0))
    assert run(config, Late()).reason == "ended at 1,016 env steps (asked: 1,000)"
    assert checkpoints_of(config).load().metadata["env_steps"] == 1016


def test_an_evaluation_that_is_given_up_is_told_and_counted_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Endless(FakeBackend):
        def request_evaluation(self, number: int) -> None:
            self._pending.append([0, EvaluationResult(number, self.counters, (), 0.5, None, "no episode ended")])

    config = make_config(tmp_path)
    outcome = run(config, Endless())
    assert outcome.reason == "reached 1,000 env steps"
    assert outcome.after == {}
    assert caplog.text.count("an evaluation was given up: no episode ended") == 5
    assert reports(config)[-1]["eval/num_given_up"] == 5
    assert checkpoints_of(config).load().metadata["trainer"]["num_given_up"] == 5


def test_an_interrupt_ends_the_wait_for_the_last_evaluation(tmp_path: Path) -> None:
    class Hanging(FakeBackend):
        def advance(self, timeout_s: float) -> Report:
            if self.is_finished:
                trainer.request_stop("stopped by the user")
                return Report(self.counters, is_interim=True)
            return super().advance(timeout_s)

    evaluation = EvaluationConfig(num_episodes=4, at_start=False, interval_env_steps=10**6)
    config = make_config(tmp_path, evaluation=evaluation)
    trainer = make_trainer(config, Hanging())
    trainer.run()
    assert checkpoints_of(config).load().metadata["learner_steps"] == 100


def test_episodes_that_do_not_end_are_warned_of_rarely() -> None:
    watch = EndlessWatch(100)
    told = [env_steps for env_steps in range(0, 2000, 10) if watch.look(Counters(env_steps, 0, 3), 1) is not None]
    assert told == [100, 200, 400, 800, 1600]
    assert watch.look(Counters(2000, 0, 4), 1) is None, "one ended"
    assert watch.look(Counters(2100, 0, 4), 1) == "no episode ended in 100 steps: set env.max_episode_steps"


def test_where_episodes_are_lost_to_failures_no_time_limit_is_the_remedy() -> None:
    watch = EndlessWatch(100)
    assert watch.look(Counters(0, 0, 3), 1) is None
    expected = "no episode ended in 100 steps: 7 were lost to failures of their environments"
    assert watch.look(Counters(100, 0, 3), 8) == expected


def test_an_error_stops_the_backend_and_says_so_in_the_status(tmp_path: Path) -> None:
    def fail(backend: FakeBackend) -> None:
        if backend.counters.env_steps >= 300:
            raise TrainingError("the learner ended before training did")

    config = make_config(tmp_path)
    backend = FakeBackend(on_advance=fail)
    with pytest.raises(TrainingError):
        run(config, backend)
    assert backend.is_stopped
    status = RunDirectory.open(tmp_path / "fake").read_status()
    assert status["state"] == "failed"
    assert "the learner ended" in status["reason"]


def test_everything_is_closed_even_if_the_backend_fails_to_stop(tmp_path: Path) -> None:
    class Stubborn(FakeBackend):
        def stop(self) -> None:
            raise TrainingError("it does not stop")

    closed: list[str] = []

    class Closing:
        def log(self, env_steps: int, metrics: Any) -> None:
            """Nothing."""

        def close(self) -> None:
            closed.append("loggers")

    config = make_config(tmp_path)
    directory = begun(config)
    with pytest.raises(TrainingError, match="it does not stop"):
        Trainer(config, Stubborn(), directory, make_spec(), None, LoggerGroup([Closing()]), by_steps=True).run()
    assert closed == ["loggers"]


# --- by steps -------------------------------------------------------------------------------------------------------


def test_started_stepped_saved_and_stopped_by_hand_it_does_what_run_does(tmp_path: Path) -> None:
    whole, stepped = make_config(tmp_path / "whole"), make_config(tmp_path / "stepped")
    expected = run(whole, FakeBackend())
    backend = FakeBackend()
    trainer = make_trainer(stepped, backend)
    trainer.start()
    seen = [trainer.step()]
    while seen[-1].reason is None:
        seen.append(trainer.step())
    trainer.stop()
    assert seen[-1].reason == expected.reason
    assert seen[-1].counters == backend.counters
    assert seen[-1].metrics["eval/learner_steps"] == 100
    assert reports(stepped) == reports(whole)
    assert (
        checkpoints_of(stepped).load().metadata["sha256"].keys()
        == checkpoints_of(whole).load().metadata["sha256"].keys()
    )
    assert backend.is_stopped


def test_a_save_in_between_can_be_resumed(tmp_path: Path) -> None:
    config = make_config(tmp_path, evaluation=EvaluationConfig(num_episodes=0))
    trainer = make_trainer(config, FakeBackend())
    trainer.start()
    trainer.step()
    path = trainer.save()
    trainer.stop()
    assert path.name == "step_000000010"
    assert RunDirectory.open(tmp_path / "fake").read_status()["state"] == "ended"
    backend = FakeBackend()
    resumed = make_trainer(config, backend, checkpoints_of(config).load())
    resumed.start(checkpoints_of(config).load())
    assert resumed.step().counters.env_steps == 200
    resumed.stop()


# --- evaluations ----------------------------------------------------------------------------------------------------


def test_evaluations_come_at_the_start_every_interval_and_at_the_end(tmp_path: Path) -> None:
    config = make_config(tmp_path, stop=StopConfig(env_steps=800))
    backend = FakeBackend()
    run(config, backend)
    assert [call[1:] for call in backend.of_kind("evaluate")] == [(0, 0), (1, 30), (2, 60), (3, 80)]
    evaluated = [report["eval/learner_steps"] for report in reports(config) if "eval/learner_steps" in report]
    assert evaluated == [0, 30, 60, 80]


def test_no_second_evaluation_is_asked_for_while_one_is_under_way(tmp_path: Path) -> None:
    backend = FakeBackend(evaluation_delay=5)
    run(make_config(tmp_path), backend)
    asked = [call[2] for call in backend.of_kind("evaluate")]
    assert asked == [0, 50, 100], "due at 300 and 600, each asked for when the one before had come back"


def test_evaluation_can_be_switched_off_or_begin_later(tmp_path: Path) -> None:
    off = FakeBackend()
    outcome = run(make_config(tmp_path / "off", evaluation=EvaluationConfig(num_episodes=0)), off)
    assert not off.of_kind("evaluate")
    assert outcome.before == outcome.after == {}
    later = FakeBackend()
    evaluation = EvaluationConfig(num_episodes=4, interval_env_steps=300, at_start=False)
    outcome = run(make_config(tmp_path / "later", evaluation=evaluation), later)
    assert later.of_kind("evaluate")[0] == ("evaluate", 0, 30)
    assert outcome.before == {}, "nothing was known before training"
    assert outcome.after


def test_the_best_weights_are_kept_by_success_then_return(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    scores = {0: 0.1, 30: 0.7, 60: 0.7, 90: 0.2, 100: 0.6}
    run(config, FakeBackend(score_of=lambda learner_steps: scores[learner_steps]))
    best = checkpoints_of(config).load("best")
    assert best.path.name == "best_000000060", "of equal ones, the newer"
    assert best.read("policy.safetensors") == b"weights of 60"
    assert best.metadata["eval/success_rate"] == pytest.approx(0.7)
    assert {"config.yaml", "env_spec.json"} <= set(best.metadata["sha256"])


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_checkpoints_come_every_so_many_updates_and_at_the_end(tmp_path: Path) -> None:
    backend = FakeBackend()
    run(make_config(tmp_path), backend)
    assert [call[1] for call in backend.of_kind("capture")] == [30, 60, 90, 100]


def test_the_end_does_not_save_twice_what_was_just_saved(tmp_path: Path) -> None:
    """A second capture would drop running episodes again, and a resume would not equal the uninterrupted run."""
    config = make_config(tmp_path, evaluation=EvaluationConfig(num_episodes=0))
    backend = FakeBackend()
    trainer = make_trainer(config, backend)
    original = backend.capture

    def capture_and_interrupt() -> Any:
        trainer.request_stop("stopped by the user")
        return original()

    backend.capture = capture_and_interrupt  # type: ignore[method-assign]
    outcome = trainer.run()
    assert [call[1] for call in backend.of_kind("capture")] == [30]
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.name == "step_000000030"


def test_a_checkpoint_that_cannot_be_had_is_left_out_and_the_next_one_saved(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    backend = FakeBackend()
    original = backend.capture

    def capture_later() -> Any:
        if backend.counters.learner_steps <= 30:
            raise CaptureError("the learner does not answer")
        return original()

    backend.capture = capture_later  # type: ignore[method-assign]
    outcome = run(config, backend)
    assert [call[1] for call in backend.of_kind("capture")] == [60, 90, 100]
    assert outcome.checkpoint is not None


def test_a_checkpoint_that_cannot_be_written_is_a_warning_and_tried_again_when_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []
    original = Checkpoints.save

    def save(self: Checkpoints, learner_steps: int, *rest: Any) -> Path:
        tried.append(learner_steps)
        if len(tried) < 3:
            raise CheckpointError("checkpoints: cannot be written: No space left on device")
        return original(self, learner_steps, *rest)

    monkeypatch.setattr(Checkpoints, "save", save)
    outcome = run(make_config(tmp_path), FakeBackend())
    assert tried == [30, 60, 90, 100]
    assert caplog.text.count("no checkpoint: checkpoints: cannot be written") == 1, "said once, until it works again"
    assert outcome.reason == "reached 1,000 env steps"


def test_what_could_not_be_written_is_the_last_checkpoint_where_no_newer_one_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk was full, and when it is not any more the learner does not answer."""
    backend = FakeBackend()
    capture, save = backend.capture, Checkpoints.save

    def capture_at_first() -> Any:
        if backend.counters.learner_steps > 30:
            raise CaptureError("the learner does not answer")
        return capture()

    def save_at_last(self: Checkpoints, *what: Any) -> Path:
        if not backend.is_finished:
            raise CheckpointError("checkpoints: cannot be written: No space left on device")
        return save(self, *what)

    backend.capture = capture_at_first  # type: ignore[method-assign]
    monkeypatch.setattr(Checkpoints, "save", save_at_last)
    config = make_config(tmp_path)
    outcome = run(config, backend)
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.name == "step_000000030"
    assert reports(config)[-1]["checkpoint/num_failed"] == 3


def test_the_second_signal_ends_all_waiting(tmp_path: Path) -> None:
    backend = FakeBackend(crash_at=300)
    with pytest.raises(KeyboardInterrupt):
        run(make_config(tmp_path), backend)
    assert backend.is_interrupted
    assert backend.is_stopped


def test_a_run_whose_last_checkpoint_cannot_be_written_ends_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(self: Checkpoints, learner_steps: int, *rest: Any) -> Path:
        raise CheckpointError("checkpoints: cannot be written: No space left on device")

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(CheckpointError, match="No space left") as error:
        run(make_config(tmp_path), FakeBackend())
    one_line(error)
    assert RunDirectory.open(tmp_path / "fake").read_status()["state"] == "failed"


def test_best_weights_that_cannot_be_written_leave_the_place_to_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = Checkpoints.save_best

    def save_best(self: Checkpoints, learner_steps: int, *rest: Any) -> Path:
        if learner_steps == 30:
            raise CheckpointError("checkpoints: cannot be written: No space left on device")
        return original(self, learner_steps, *rest)

    monkeypatch.setattr(Checkpoints, "save_best", save_best)
    config = make_config(tmp_path)
    scores = {0: 0.1, 30: 0.9, 60: 0.7, 90: 0.2, 100: 0.6}
    run(config, FakeBackend(score_of=lambda learner_steps: scores[learner_steps]))
    assert "the best weights are not kept" in caplog.text
    assert checkpoints_of(config).load("best").path.name == "best_000000060"


def test_a_status_that_cannot_be_written_is_told_once_and_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write_status(self: RunDirectory, status: Any) -> None:
        raise RunDirectoryError("status.json: cannot be written: No space left on device")

    monkeypatch.setattr(RunDirectory, "write_status", write_status)
    assert run(make_config(tmp_path), FakeBackend()).reason == "reached 1,000 env steps"
    assert caplog.text.count("status.json: cannot be written") == 1


def test_what_was_learned_is_saved_when_something_else_fails(tmp_path: Path) -> None:
    """Not so after a failure of learning itself, which may have spoilt the weights."""

    def fail(backend: FakeBackend) -> None:
        if backend.counters.env_steps >= 200:
            raise DataError("replay: disk full")

    config = make_config(tmp_path)
    with pytest.raises(DataError, match=r"replay: disk full; the last good checkpoint is .*step_000000020") as error:
        run(config, FakeBackend(on_advance=fail))
    one_line(error)
    assert checkpoints_of(config).load().metadata["learner_steps"] == 20


def test_a_local_run_counts_updates_even_if_seconds_are_set(tmp_path: Path) -> None:
    config = make_config(
        tmp_path, checkpoint=CheckpointConfig(interval_s=1e-9), evaluation=EvaluationConfig(num_episodes=0)
    )
    backend = FakeBackend(learner_steps=400)
    run(config, backend)
    assert [call[1] for call in backend.of_kind("capture")] == [1200, 2400, 3600, 4000]


# --- reports --------------------------------------------------------------------------------------------------------


def test_a21_metrics_are_finite_or_left_out(tmp_path: Path) -> None:
    """docs/algorithm.md §14.21: a metric without a value is left out, never NaN, and the omission is counted."""
    config = make_config(tmp_path)
    run(
        config,
        FakeBackend(metrics={"loss/total": math.nan, "loss/critic": 2.0, "replay/fill": math.inf}, evaluation_delay=1),
    )
    logged = reports(config)
    assert len(logged) == 11
    for report in logged:
        assert all(math.isfinite(value) for value in report.values())
        assert "loss/total" not in report
        assert "replay/fill" not in report
    assert [report["loss/critic"] for report in logged[:-1]] == [2.0] * 10, "the last one tells the last evaluation"
    assert logged[-1]["telemetry/num_dropped_values"] == 20
    json.loads((tmp_path / "fake" / "status.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_reports_hold_counters_statistics_lag_and_limits(tmp_path: Path) -> None:
    config = make_config(tmp_path, evaluation=EvaluationConfig(num_episodes=0))
    run(config, FakeBackend())
    report = reports(config)[4]
    assert report["env_steps"] == 500
    assert report["learner_steps"] == 50
    assert report["episodes"] == 5
    assert report["rollout/return_mean"] == 3.0
    assert report["rollout/attempt_return_mean"] == 3.0
    assert report["rollout/fake/success_rate"] == 1.0
    assert report["time/policy_lag"] == 10
    assert report["bottleneck/learner_share"] == 0.9
    assert report["bottleneck/learner_speedup"] == pytest.approx(1 / 0.3)


def test_the_status_tells_progress_and_how_it_ended(tmp_path: Path) -> None:
    config = make_config(tmp_path, evaluation=EvaluationConfig(num_episodes=0))
    seen: list[dict[str, Any]] = []
    directory = tmp_path / "fake"

    def look(backend: FakeBackend) -> None:
        if (directory / "status.json").exists():
            seen.append(json.loads((directory / "status.json").read_text()))

    run(config, FakeBackend(on_advance=look))
    assert [status["state"] for status in seen] == ["starting"] + ["running"] * 9
    seen.pop(0)
    assert [status["fraction"] for status in seen] == pytest.approx([0.1 * k for k in range(1, 10)])
    assert "learner limits" in seen[0]["bottleneck"]
    end = json.loads((directory / "status.json").read_text())
    assert end["state"] == "ended"
    assert end["reason"] == "reached 1,000 env steps"


def test_warnings_reach_the_console(tmp_path: Path) -> None:
    output = io.StringIO()
    console = ConsoleReporter("fake", Console(file=output, width=200))
    backend = FakeBackend(warnings=["a runner is stuck"], evaluation_delay=1)
    make_trainer(make_config(tmp_path), backend, console=console).run()
    assert output.getvalue().count("warning: a runner is stuck") == 10
    assert "env steps 1,000" in output.getvalue()


# --- resume ---------------------------------------------------------------------------------------------------------


def after(config: Config, env_steps: int) -> list[dict[str, float]]:
    return [report for report in reports(config) if report["env_steps"] > env_steps]


@pytest.mark.parametrize("evaluation_delay", [0, 3])
def test_the_last_checkpoint_holds_the_weights_that_were_evaluated_last(tmp_path: Path, evaluation_delay: int) -> None:
    config = make_config(tmp_path)
    backend = FakeBackend(evaluation_delay=evaluation_delay)
    outcome = run(config, backend)
    last = checkpoints_of(config).load().metadata
    assert outcome.after["eval/learner_steps"] == last["learner_steps"] == backend.counters.learner_steps
    assert outcome.after["eval/env_steps"] == last["env_steps"]
    assert not last["trainer"]["evaluating"]
    assert backend.of_kind("capture")[-1] == ("capture", last["learner_steps"])


@pytest.mark.parametrize("at", [300, 500, 600, 700])
@pytest.mark.parametrize("evaluation_delay", [0, 3])
def test_a17_a_resumed_run_reports_what_the_uninterrupted_one_does(
    tmp_path: Path, at: int, evaluation_delay: int
) -> None:
    """Counters, window of episodes, evaluations (also one in flight), the best and the first.

    Source: docs/algorithm.md §14.17.
    """

    def score(learner_steps: int) -> float:
        return {0: 0.25, 30: 0.75}.get(learner_steps, 0.5)

    checkpoint = CheckpointConfig(interval_learner_steps=10, keep=100)
    whole = make_config(tmp_path / "whole", checkpoint=checkpoint)
    expected = run(whole, FakeBackend(score_of=score, evaluation_delay=evaluation_delay))

    config = make_config(tmp_path / "parts", checkpoint=checkpoint)
    with pytest.raises(KeyboardInterrupt):
        run(config, FakeBackend(score_of=score, evaluation_delay=evaluation_delay, crash_at=at))
    backend = FakeBackend(score_of=score, evaluation_delay=evaluation_delay)
    outcome = run(config, backend, resume=True)
    assert backend.started_from is not None
    assert backend.started_from.metadata["env_steps"] == at
    if evaluation_delay == 0:
        assert reports(config) == reports(whole)
        assert outcome.after == expected.after
    assert outcome.before == expected.before
    assert outcome.reason == expected.reason
    for name in ("rollout/return_mean", "episodes", "learner_steps"):
        assert [r[name] for r in after(config, at)][:3] == [r[name] for r in after(whole, at)][:3]
    if evaluation_delay == 0:
        for name in ("best", "latest"):
            ours, theirs = checkpoints_of(config).load(name), checkpoints_of(whole).load(name)
            assert ours.path.name == theirs.path.name
            assert {**ours.metadata, "sha256": 0} == {**theirs.metadata, "sha256": 0}


def test_an_evaluation_under_way_is_asked_for_again(tmp_path: Path) -> None:
    config = make_config(tmp_path, checkpoint=CheckpointConfig(interval_learner_steps=10, keep=2))

    first = FakeBackend(evaluation_delay=4, crash_at=500)
    with pytest.raises(KeyboardInterrupt):
        run(config, first)
    assert first.of_kind("evaluate") == [("evaluate", 0, 0), ("evaluate", 1, 40)]
    second = FakeBackend(evaluation_delay=4)
    run(config, second, resume=True)
    assert second.of_kind("evaluate")[0] == ("evaluate", 1, 50), "the same worlds, with the restored weights"


def test_resuming_a_finished_run_ends_at_once_and_more_steps_go_on(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    run(config, FakeBackend())
    num_reports, saved = len(reports(config)), checkpoints_of(config).load().path
    again = FakeBackend()
    outcome = run(config, again, resume=True)
    assert outcome.reason == "reached 1,000 env steps"
    assert outcome.checkpoint == saved
    assert outcome.after
    assert again.calls == []
    assert len(reports(config)) == num_reports
    more = FakeBackend()
    run(replace(config, stop=StopConfig(env_steps=1500)), more, resume=True)
    assert more.counters.env_steps >= 1500
    assert reports(config)[-1]["episodes"] == more.counters.episodes


def test_a_checkpoint_of_something_else_is_one_line(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    run(config, FakeBackend())
    checkpoints = checkpoints_of(config)
    checkpoints.save(200, {}, {"env_steps": 1, "learner_steps": 200, "episodes": 0, "state": {"reports": 0}})
    with pytest.raises(CheckpointError, match="metadata lacks 'trainer'") as error:
        run(config, FakeBackend(), resume=True)
    one_line(error)
