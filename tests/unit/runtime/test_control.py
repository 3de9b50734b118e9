"""The control actor's plain class: weights by version, credit, orders, reports."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import numpy as np
import pytest

from amago_ray.config import Config
from amago_ray.config.load import load_config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.data.snapshot import Snapshot
from amago_ray.replay.reports import ShardReport
from amago_ray.runtime import control as control_module
from amago_ray.runtime.control import ControlActor
from amago_ray.runtime.messages import NO_VERSION, STOP, LearnerBeat, RunnerBeat, ShardBeat

BASE = {"env_steps": 1000, "learner_steps": 10, "episodes": 20}


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """References are the values themselves, gauges publish nothing, waits are short."""
    monkeypatch.setattr(control_module.ray, "put", lambda value: value)
    monkeypatch.setattr(control_module, "RayMetrics", NoMetrics)
    monkeypatch.setattr(control_module, "_LONGEST_WAIT_S", 0.05)


class NoMetrics:
    def __init__(self, run: str) -> None:
        pass

    def set(self, metrics: dict[str, float]) -> None:
        pass


def config(*overrides: str) -> Config:
    return load_config("quickstart", ["replay.samples_per_insert=2", "learner.batch_size=4", *overrides])


def snapshot(*version: int) -> Snapshot:
    return Snapshot(PolicyVersion(*version), {"w": np.zeros(2, np.float32)})


def runner_beat(version: PolicyVersion = NO_VERSION, **changes: Any) -> RunnerBeat:
    beat = RunnerBeat(
        env_steps=50,
        episodes=[],
        policy_version=version,
        policy_time_s=0.1,
        env_time_s=0.2,
        replay_time_s=0.0,
        weights_time_s=0.0,
        paused_time_s=0.0,
        dropped_episodes=0,
    )
    return dataclasses.replace(beat, **changes)


def shard_beat(shard: int, inserted: int, stored: int | None = None, life: int = 0) -> ShardBeat:
    zeros = {field.name: 0 for field in dataclasses.fields(ShardReport)}
    counts = {"inserted_timesteps": inserted, "stored_timesteps": inserted if stored is None else stored}
    return ShardBeat(shard, life, ShardReport(**{**zeros, **counts}))


def learner_beat(*version: int, reserved: int = 0, trained: int = 0) -> LearnerBeat:
    return LearnerBeat(PolicyVersion(*version), reserved, trained, learner_time_s=0.5, metrics={"loss/total": 1.5})


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def test_runners_get_newer_weights_and_only_those() -> None:
    async def scene() -> None:
        control = ControlActor(config(), BASE)
        assert list((await control.beat_runner(0, runner_beat())).weights) == []
        await control.push_weights(snapshot(1, 5))
        assert (await control.beat_runner(0, runner_beat())).weights[0].version == (1, 5)
        assert list((await control.beat_runner(0, runner_beat(PolicyVersion(1, 5)))).weights) == []

    run(scene())


def test_who_asks_before_there_are_weights_gets_the_first() -> None:
    async def scene() -> None:
        control = ControlActor(config(), BASE)
        asked = asyncio.create_task(control.weights())
        await asyncio.sleep(0)
        await control.push_weights(snapshot(1, 0))
        await asyncio.sleep(0.01)
        await control.push_weights(snapshot(1, 10))
        assert (await asked)[0].version == (1, 0)

    run(scene())


def test_a_restored_learners_weights_count_as_newer() -> None:
    async def scene() -> None:
        control = ControlActor(config(), BASE)
        await control.push_weights(snapshot(1, 500))
        await control.push_weights(snapshot(2, 100))
        await control.push_weights(snapshot(1, 510))
        assert (await control.weights())[0].version == (2, 100)

    run(scene())


def test_credit_comes_with_inserts_and_is_given_back_by_confirmation() -> None:
    async def scene() -> None:
        control = ControlActor(config(), BASE)
        await control.beat_shard(shard_beat(0, 0))
        assert await control.reserve(100) is None, "nothing is stored"
        await control.beat_shard(shard_beat(0, 100))
        assert await control.reserve(150) == 0
        assert await control.reserve(150) == 0
        assert await control.reserve(150) is None, "200 timesteps of credit are reserved"
        await control.beat_learner(learner_beat(1, 1, reserved=150, trained=0))
        assert await control.reserve(150) == 0, "a lost batch gives its credit back"

    run(scene())


def test_a_waiting_learner_is_woken_by_an_insert() -> None:
    async def scene() -> None:
        control = ControlActor(config(), BASE)
        await control.beat_shard(shard_beat(0, 0))
        waiting = asyncio.create_task(control.reserve(10))
        await asyncio.sleep(0)
        await control.beat_shard(shard_beat(0, 50))
        assert await waiting == 0

    run(scene())


def test_shards_are_drawn_in_proportion_to_their_newest_sizes() -> None:
    async def scene() -> list[int]:
        control = ControlActor(config("replay.num_shards=2", "replay.samples_per_insert=null"), BASE)
        await control.beat_shard(shard_beat(0, 1000))
        await control.beat_shard(shard_beat(1, 3000))
        return [await control.reserve(1) for _ in range(2000)]

    drawn = np.array(run(scene()))
    assert abs((drawn == 1).mean() - 0.75) < 0.05


def test_runners_ahead_are_paused_until_the_learner_catches_up() -> None:
    async def scene() -> None:
        control = ControlActor(config("replay.samples_per_insert_tolerance=0.1"), BASE)
        await control.beat_shard(shard_beat(0, 0))
        for inserted in range(100, 1100, 100):
            await control.beat_shard(shard_beat(0, inserted))
        assert not (await control.beat_runner(0, runner_beat())).may_act
        waiting = asyncio.create_task(control.wait_turn(NO_VERSION))
        await asyncio.sleep(0)
        await control.beat_learner(learner_beat(1, 1, trained=1800))
        assert (await waiting).may_act

    run(scene())


def test_stop_reaches_everyone() -> None:
    async def scene() -> None:
        control = ControlActor(config(), BASE)
        waiting = asyncio.create_task(control.reserve(10))
        await asyncio.sleep(0)
        await control.stop()
        assert await waiting == STOP
        assert (await control.beat_runner(0, runner_beat())).stop

    run(scene())


def test_a_report_sums_the_run_and_starts_afresh() -> None:
    async def scene() -> None:
        control = ControlActor(config(), BASE)
        stats = EpisodeStats("maze", 1.0, 50, 0, NO_VERSION, 1.0)
        await control.beat_shard(shard_beat(0, 500, stored=400))
        await control.beat_runner(0, runner_beat(episodes=[stats], dropped_episodes=1))
        await control.beat_learner(learner_beat(1, 12, trained=100))
        report = await control.collect()
        assert (report.env_steps, report.num_episodes, report.learner_steps) == (1050, 21, 12)
        assert report.episodes == [stats]
        assert report.metrics["loss/total"] == 1.5
        assert report.metrics["rollout/dropped_episodes"] == 1
        assert report.metrics["replay/timesteps"] == 400
        again = await control.collect()
        assert list(again.episodes) == []
        assert "loss/total" not in again.metrics
        assert again.env_steps == 1050

    run(scene())


def test_a_lost_learner_counts_on_from_the_checkpoint_it_begins_with() -> None:
    async def scene() -> None:
        control = ControlActor(config(), BASE)
        await control.beat_learner(learner_beat(1, 50))
        await control.collect()
        await control.learner_lost(30)
        await control.beat_learner(learner_beat(2, 31))
        report = await control.collect()
        assert report.learner_steps == 31
        assert report.metrics["time/learner_steps_per_s"] > 0, "what is done anew is no step backwards"

    run(scene())


def test_replay_metrics_wait_for_every_shard() -> None:
    async def scene() -> None:
        control = ControlActor(config("replay.num_shards=2"), BASE)
        await control.beat_shard(shard_beat(0, 500))
        assert "replay/timesteps" not in (await control.collect()).metrics
        await control.beat_shard(shard_beat(1, 300))
        assert (await control.collect()).metrics["replay/timesteps"] == 800

    run(scene())


def test_a_late_report_of_a_shards_former_life_changes_nothing() -> None:
    async def scene() -> None:
        control = ControlActor(config(), BASE)
        await control.beat_shard(shard_beat(0, 500, life=1))
        await control.beat_shard(shard_beat(0, 0, life=2))
        await control.beat_shard(shard_beat(0, 600, life=1))
        assert (await control.collect()).metrics["replay/timesteps"] == 0

    run(scene())


def test_a_runner_stuck_on_old_weights_raises_an_alarm() -> None:
    async def scene() -> None:
        control = ControlActor(config("rollout.stuck_policy_alarm_s=0.01"), BASE)
        await control.push_weights(snapshot(1, 5))
        await control.beat_runner(3, runner_beat(PolicyVersion(1, 5)))
        await control.push_weights(snapshot(1, 50))
        await asyncio.sleep(0.02)
        await control.beat_runner(3, runner_beat(PolicyVersion(1, 5)))
        (warning,) = (await control.collect()).warnings
        assert "env runner 3" in warning
        assert "5" in warning
        assert "50" in warning
        assert (await control.collect()).metrics["time/runner_lag_max"] == 45

    run(scene())


def test_environment_failures_are_told_once_per_kind() -> None:
    async def scene() -> None:
        control = ControlActor(config(), BASE)
        for _ in range(3):
            await control.beat_runner(0, runner_beat(failures={"ValueError: broken": 1}, dropped_episodes=1))
        report = await control.collect()
        assert len(report.warnings) == 1
        assert "ValueError: broken" in report.warnings[0]
        assert report.metrics["rollout/dropped_episodes"] == 3

    run(scene())


def test_a_restarted_control_actor_is_filled_again_without_a_burst() -> None:
    async def scene() -> None:
        control = ControlActor(config(), BASE)
        await control.beat_shard(shard_beat(0, 100_000))
        assert await control.reserve(100) is None, "what was inserted before is no new credit"
        await control.beat_shard(shard_beat(0, 100_100))
        assert await control.reserve(100) == 0

    run(scene())
