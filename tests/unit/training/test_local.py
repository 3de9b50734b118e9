"""`--local`: deterministic, and resumed bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import slow_parts
from helpers.full_disk import full_disk
from helpers.local_runs import kill_at, replay_of, reports_of, state_of, tiny_config
from helpers.refusals import refusal
from helpers.stored import stored_episodes

from amago_ray.api import train
from amago_ray.config import Config
from amago_ray.config.load import config_from_dict
from amago_ray.envs.make import make_spec
from amago_ray.errors import CheckpointError
from amago_ray.replay.owner import NO_RUN
from amago_ray.telemetry.bottleneck import verdict
from amago_ray.training.checkpoints import Checkpoints
from amago_ray.training.local import LocalBackend
from amago_ray.training.ports import Counters, Report

VARIANTS: dict[str, dict[str, Any]] = {
    "one shard": {},
    "two shards that evict": {"replay": {"num_shards": 2, "capacity_timesteps": 120}},
    "free running, accumulating, timesteps": {
        "replay": {"samples_per_insert": None, "sampling": "timesteps"},
        "learner": {"batches_per_update": 2, "batch_size": 2},
        "relabel": {"weighting": "uniform", "strategy": "all_or_nothing"},
    },
    "gru, multi-task": {
        "model": {
            "sequence_model": {"kind": "gru", "d_model": 8, "context_length": 8, "num_layers": 1},
            "timestep_encoder": {"num_layers": 1, "hidden_dim": 8, "output_dim": 8},
            "critic": {"num_layers": 1, "hidden_dim": 8},
        },
        "agent": {"kind": "multi_task", "num_bins": 8, "online_coefficient": 0.0, "offline_coefficient": 1.0},
    },
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, ...]]:
    """What the uninterrupted run of a variant leaves behind."""

    @cache
    def outcome(variant: str) -> tuple[Any, ...]:
        config = tiny_config(tmp_path_factory.mktemp("whole"), **VARIANTS[variant])
        train(config, local=True)
        return outcome_of(config)

    return outcome


def outcome_of(config: Config) -> tuple[Any, ...]:
    run = Path(config.runs_dir) / config.name
    return reports_of(run), state_of(run), replay_of(run)


def assert_same(left: Any, right: Any) -> None:
    """Equal bit for bit; says which part differs."""
    for name, ours, theirs in zip(("reports", "state", "replay"), left, right, strict=True):
        if isinstance(ours, dict):
            assert ours.keys() == theirs.keys(), name
            for key in ours:
                assert ours[key] == theirs[key], f"{name}: {key}"
        assert ours == theirs, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_two_runs_are_equal_bit_for_bit(
    tmp_path: Path, variant: str, uninterrupted: Callable[[str], tuple[Any, ...]]
) -> None:
    """Weights, optimizer, metrics, evaluations, replay; whatever random state the process was in."""
    first = uninterrupted(variant)
    config = tiny_config(tmp_path, **VARIANTS[variant])
    torch.rand(3)
    train(config, local=True)
    assert_same(outcome_of(config), first)
    reports, state, replay = first
    assert state["learner_steps"] == 40
    assert len(replay) >= 1
    assert any("eval/return_mean" in report for report in reports)
    assert max(report.get("replay/relabeled_share", 0) for report in reports) > 0
    evictions = max(report.get("replay/evicted_episodes", 0) for report in reports)
    assert (evictions > 0) == ("evict" in variant)


def test_another_seed_is_another_run(tmp_path: Path, uninterrupted: Callable[[str], tuple[Any, ...]]) -> None:
    config = tiny_config(tmp_path, seed=4)
    train(config, local=True)
    for ours, theirs in zip(outcome_of(config), uninterrupted("one shard"), strict=True):
        assert ours != theirs


@pytest.mark.parametrize(
    ("variant", "killed_at"),
    [*((variant, 23) for variant in VARIANTS), ("one shard", 20), ("two shards that evict", 17)],
)
def test_a17_a_killed_and_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path,
    variant: str,
    killed_at: int,
    monkeypatch: pytest.MonkeyPatch,
    uninterrupted: Callable[[str], tuple[Any, ...]],
) -> None:
    """docs/algorithm.md §14.17: killed at a checkpoint, or long past it with episodes that the resume must forget.

    The resumed run goes on over two more checkpoints, with evaluations, evictions and swaps of weights in between.
    """
    config = tiny_config(tmp_path, **VARIANTS[variant])
    with monkeypatch.context() as patch:
        kill_at(patch, killed_at)
        with pytest.raises(KeyboardInterrupt):
            train(config, local=True)
    run = Path(config.runs_dir) / "tiny"
    resumed_from = Checkpoints(run / "checkpoints", keep=1).load().metadata["learner_steps"]
    assert resumed_from == killed_at // 10 * 10
    train(config, local=True, resume=True)
    assert_same(outcome_of(config), uninterrupted(variant))


def test_a_run_stopped_by_hand_at_a_checkpoint_and_resumed_equals_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Callable[[str], tuple[Any, ...]]
) -> None:
    """The way of Ctrl-C: the run ends cleanly, with its files closed, between an update and the next."""
    from amago_ray.training.trainer import Trainer

    config = tiny_config(tmp_path)
    with monkeypatch.context() as patch:
        original = Trainer.save

        def save_and_stop(self: Trainer) -> Path:
            path = original(self)
            if self.counters.learner_steps == 20:
                self.request_stop("stopped by the user")
            return path

        patch.setattr(Trainer, "save", save_and_stop)
        assert train(config, local=True).reason == "stopped by the user"
    train(config, local=True, resume=True)
    assert_same(outcome_of(config), uninterrupted("one shard"))


def test_a_run_killed_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Callable[[str], tuple[Any, ...]]
) -> None:
    """It must not meet its own episodes: their ids would hide the new ones."""
    config = tiny_config(tmp_path)
    with monkeypatch.context() as patch:
        kill_at(patch, 7)
        with pytest.raises(KeyboardInterrupt):
            train(config, local=True)
    run = Path(config.runs_dir) / "tiny"
    assert replay_of(run)
    train(config, local=True, resume=True)
    assert_same(outcome_of(config), uninterrupted("one shard"))


# --- the backend by itself ------------------------------------------------------------------------------------------


def make_backend(tmp_path: Path, **sections: Any) -> LocalBackend:
    config = tiny_config(tmp_path, **sections)
    return LocalBackend(config, make_spec(config.envs), tmp_path / "replay", NO_RUN)


def start(backend: LocalBackend) -> None:
    backend.prepare(None)
    backend.start()


def test_a_report_counts_what_happened(tmp_path: Path) -> None:
    backend = make_backend(tmp_path)
    start(backend)
    episodes = 0
    for number in range(1, 4):
        report = backend.advance(math.inf)
        episodes += len(report.episodes)
        assert report.counters.learner_steps == 5 * number
        assert report.counters.episodes == episodes
        assert report.metrics["replay/episodes"] == episodes
        assert report.metrics["replay/samples_per_insert"] > 0
        assert report.metrics["time/learner_steps_per_s"] > 0
        assert report.metrics["rollout/dropped_episodes"] == 0
        assert 0 < sum(report.sides[0].values()) < 1
    assert report.counters.env_steps >= report.metrics["replay/timesteps"]
    backend.stop()


class SleepsAlone:
    """A clock by which sleep takes as long as it says, and each look at it 0.1 ms."""

    def __init__(self) -> None:
        self.now = 0.0

    def look(self) -> float:
        self.now += 1e-4
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("part", "pause_s"),
    [("environment", 0.002), ("acting", 0.02), ("replay", 0.03), ("learner", 0.2), ("broadcast", 0.2)],
)
def test_the_verdict_of_a_report_names_the_slow_part(
    part: str, pause_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = tmp_path / "commands"
    monkeypatch.setenv(slow_parts.VARIABLE, str(commands))
    slow_parts.slow_down(commands)
    config = config_from_dict(slow_parts.CONFIG)
    backend = LocalBackend(config, make_spec(config.envs), tmp_path / "replay", NO_RUN)
    start(backend)
    backend.advance(math.inf)
    slow_parts.slow_down(commands, **{part: pause_s})
    clock = SleepsAlone()
    with monkeypatch.context() as patched:
        for name in ("perf_counter", "monotonic"):
            patched.setattr(time, name, clock.look)
        patched.setattr(time, "sleep", clock.sleep)
        report = backend.advance(math.inf)
    found = verdict(report.sides)
    assert found.part == part
    assert 0.95 < found.share <= 1.0
    assert found.speedup == pytest.approx(1 / (1 - found.share))
    backend.stop()


def test_the_governor_holds_the_ratio(tmp_path: Path) -> None:
    backend = make_backend(tmp_path, stop={"learner_steps": 1000})
    start(backend)
    for _ in range(20):
        report = backend.advance(math.inf)
    # At most one batch of 4 x 8 beyond 8 per transition inserted.
    inserted = report.metrics["replay/inserted_timesteps"]
    assert 8 * inserted - 3 * 12 * 8 < report.metrics["replay/samples_per_insert"] * inserted <= 8 * inserted + 32
    backend.stop()


def test_an_evaluation_comes_before_further_training_and_leaves_it_alone(tmp_path: Path) -> None:
    plain, evaluated = (make_backend(tmp_path / name) for name in ("plain", "evaluated"))
    for backend in (plain, evaluated):
        start(backend)
    before = [backend.advance(math.inf).counters for backend in (plain, evaluated)]
    evaluated.request_evaluation(4)
    report = evaluated.advance(math.inf)
    (result,) = report.evaluations
    assert report.counters == result.counters == before[0] == before[1]
    assert report.episodes == ()
    assert result.number == 4
    assert [episode.counter for episode in result.episodes] == [0, 1, 2, 3]
    assert result.policy is not None
    first, second = plain.advance(math.inf), evaluated.advance(math.inf)
    assert first.episodes == second.episodes
    assert plain.capture().files == evaluated.capture().files
    assert "eval" not in str(second.metrics.keys())


def test_a18_evaluation_episodes_never_reach_replay(tmp_path: Path) -> None:
    """docs/algorithm.md §14.18."""
    backend = make_backend(tmp_path)
    start(backend)
    backend.advance(math.inf)
    before = stored_episodes(tmp_path / "replay")
    assert before
    backend.request_evaluation(0)
    assert backend.advance(math.inf).evaluations
    assert stored_episodes(tmp_path / "replay") == before
    backend.stop()


def test_a_capture_gives_running_episodes_up_and_counts_them(tmp_path: Path) -> None:
    backend = make_backend(tmp_path)
    start(backend)
    for _ in range(5):
        # Without time it comes back after a step, here of three environments that are in their first episodes.
        assert backend.advance(0.0).is_interim
    capture = backend.capture()
    assert capture.counters == Counters(15, 0, 0)
    assert capture.state["runner"]["num_abandoned_episodes"] == 3
    assert backend.capture().state["runner"]["num_abandoned_episodes"] == 3, "those that have just begun do not count"
    report = backend.advance(math.inf)
    assert report.metrics["rollout/abandoned_episodes"] == 3
    assert min(episode.counter for episode in report.episodes) >= 6, "each capture gave three up"
    backend.stop()


def test_a_checkpoint_of_another_kind_of_run_is_one_line(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, stop={"learner_steps": 10})
    train(config, local=True)
    two = tiny_config(tmp_path, stop={"learner_steps": 20}, replay={"num_shards": 2})
    with refusal(tmp_path, CheckpointError, r"expected replay\.num_shards 1, got 2"):
        train(two, local=True, resume=True)
    checkpoints = Checkpoints(tmp_path / "tiny" / "checkpoints", keep=1)
    found = checkpoints.load()
    files = {name: found.read(name) for name in ("policy.safetensors", "training_state.pt", "env_spec.json")}
    checkpoints.save(11, files, {**found.metadata, "state": {}})
    with refusal(tmp_path, CheckpointError, "expected one of a --local run"):
        train(config, local=True, resume=True)


def test_failing_environments_are_warned_of_once_per_kind(tmp_path: Path) -> None:
    env = {"id": "helpers.breaking_env:BreakingEnv", "name": "breaking"}
    settings = {"relabel": {"kind": "none"}, "exploration": {"kind": "none"}, "evaluation": {"num_episodes": 0}}
    backend = make_backend(tmp_path, env=env, **settings)
    start(backend)
    warnings: list[str] = []
    for _ in range(3):
        report = backend.advance(math.inf)
        warnings += report.warnings
    assert warnings == ["env 'breaking': step: RuntimeError: the step broke; it is made anew (said once per kind)"]
    assert report.metrics["rollout/dropped_episodes"] > 1
    backend.stop()


# --- where it ends --------------------------------------------------------------------------------------------------

ENDLESS: dict[str, Any] = {
    "env": "helpers.endless_env:EndlessEnv",
    "relabel": {"kind": "none"},
    "exploration": {"kind": "none"},
    "evaluation": {"num_episodes": 0},
    "report": {"interval_s": 0.05},
}
"""Episodes that never end."""


@pytest.mark.parametrize("asked", [7, 100, 1000])
@pytest.mark.parametrize("sections", [{}, ENDLESS], ids=["whole episodes", "endless"])
def test_acting_ends_at_the_last_env_step(tmp_path: Path, asked: int, sections: dict[str, Any]) -> None:
    outcome = train(
        tiny_config(tmp_path, **{**sections, "stop": {"env_steps": asked, "learner_steps": None}}), local=True
    )
    made = Checkpoints(tmp_path / "tiny" / "checkpoints", keep=1).load().metadata["env_steps"]
    assert asked <= made < asked + 3, "at most one step of the three environments beyond"
    exact, beyond = f"reached {asked:,} env steps", f"ended at {made:,} env steps (asked: {asked:,})"
    assert outcome.reason == (exact if made == asked else beyond)


@pytest.mark.parametrize("asked", [1, 4, 5, 11])
def test_learning_ends_at_the_last_learner_step(tmp_path: Path, asked: int) -> None:
    outcome = train(tiny_config(tmp_path, stop={"learner_steps": asked}), local=True)
    assert outcome.reason == f"reached {asked} learner step{'s' * (asked > 1)}"
    assert Checkpoints(tmp_path / "tiny" / "checkpoints", keep=1).load().metadata["learner_steps"] == asked
    assert reports_of(tmp_path / "tiny")[-1]["learner_steps"] == asked


def test_time_and_interrupts_are_heeded_though_no_episode_ends(tmp_path: Path) -> None:
    backend = make_backend(tmp_path / "time", **ENDLESS, stop={"time_s": 0.2})
    start(backend)
    assert backend.advance(math.inf).counters.learner_steps == 0
    backend.stop()
    backend = make_backend(tmp_path / "interrupt", **ENDLESS)
    start(backend)
    assert backend.advance(0.01).is_interim
    backend.interrupt()
    before = backend.advance(math.inf).counters.env_steps
    assert backend.advance(math.inf).counters.env_steps == before > 0
    assert backend.capture().counters.env_steps == before
    backend.stop()


def test_interim_reports_leave_training_alone(tmp_path: Path) -> None:
    """However often the clock interrupts the work, whole reports and weights are the same."""
    whole, hurried = (make_backend(tmp_path / name) for name in ("whole", "hurried"))
    for backend in (whole, hurried):
        start(backend)
    expected = [whole.advance(math.inf) for _ in range(3)]
    found, interim = [], 0
    while len(found) < 3:
        report = hurried.advance(0.0)
        interim += report.is_interim
        if not report.is_interim:
            found.append(report)
    assert interim > 10
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.counters, ours.episodes) == (theirs.counters, theirs.episodes)
        assert ours.metrics.keys() == theirs.metrics.keys()
    assert hurried.capture().files == whole.capture().files
    for backend in (whole, hurried):
        backend.stop()


def test_an_evaluation_is_interrupted_and_wanted_again(tmp_path: Path) -> None:
    sections = {**ENDLESS, "evaluation": {"num_episodes": 2, "at_start": False}, "stop": {"time_s": 0.2}}
    backend = make_backend(tmp_path, **sections)
    start(backend)
    backend.request_evaluation(0)
    assert backend.advance(math.inf).is_interim, "time was up while it evaluated"
    backend.finish()
    backend.interrupt()
    assert not backend.advance(math.inf).evaluations
    backend.stop()


def test_an_evaluation_that_cannot_end_is_given_up_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("amago_ray.acting.evaluation.LONGEST_EPISODE", 300)
    evaluation = {"num_episodes": 2, "at_start": False, "interval_env_steps": 10**6}
    outcome = train(
        tiny_config(tmp_path, **{**ENDLESS, "evaluation": evaluation, "stop": {"env_steps": 50}}), local=True
    )
    assert outcome.reason == "ended at 51 env steps (asked: 50)"
    assert "no episode ended in 51 steps: set env.max_episode_steps" in caplog.text
    assert outcome.after == {}
    backend = make_backend(tmp_path / "more", **{**ENDLESS, "evaluation": evaluation})
    start(backend)
    backend.request_evaluation(3)
    (result,) = backend.advance(math.inf).evaluations
    assert (result.number, result.episodes, result.policy) == (3, [], None)
    assert result.given_up == "no episode ended in 300 steps: set env.max_episode_steps"
    backend.stop()


@pytest.mark.parametrize(
    "replay",
    [
        {"capacity_timesteps": 20, "min_timesteps": 19},
        {"capacity_timesteps": 40, "min_timesteps": 36, "num_shards": 2},
        {"samples_per_insert": 0.01},
    ],
    ids=["episodes longer than segments", "over shards", "hardly ever"],
)
def test_replay_that_is_never_full_trains_all_the_same(tmp_path: Path, replay: dict[str, Any]) -> None:
    """Segments are evicted whole, so a replay never holds all of its capacity."""
    config = tiny_config(tmp_path, replay={"samples_per_insert": 8, **replay}, stop={"learner_steps": 2})
    assert train(config, local=True).reason == "reached 2 learner steps"


def test_a_full_disk_of_replay_pauses_acting_until_there_is_room(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, stop={"env_steps": 10_000})
    backend = LocalBackend(config, make_spec(config.envs), tmp_path / "replay", NO_RUN)
    backend.prepare(None)
    backend.start()
    with full_disk():
        full = reports_until(backend, lambda report: report.warnings)
        (line,) = full[-1].warnings
        assert line == f"{tmp_path / 'replay' / 'shard_0'}: disk full: acting pauses until there is room"
        env_steps = full[-1].counters.env_steps
        again = backend.advance(0.1)
        assert (again.counters.env_steps, list(again.warnings)) == (env_steps, [])
    on = reports_until(backend, lambda report: report.counters.env_steps > env_steps)
    assert [line for report in on for line in report.warnings] == [
        f"{tmp_path / 'replay' / 'shard_0'}: there is room again: acting goes on"
    ]
    found = reports_until(backend, lambda report: not report.is_interim)[-1]
    assert found.metrics["replay/full_shards"] == 0
    backend.stop()


def reports_until(backend: LocalBackend, is_seen: Callable[[Report], object]) -> list[Report]:
    """Reports up to the first in which something is seen."""
    reports = [backend.advance(0.05)]
    while not is_seen(reports[-1]):
        assert len(reports) < 1000
        reports.append(backend.advance(0.05))
    return reports
