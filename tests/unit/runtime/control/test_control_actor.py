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
from amago_ray.errors import ConfigError, TrainingError
from amago_ray.replay.reports import ShardCounts, ShardReport
from amago_ray.runtime.control.control_actor import ControlActor
from amago_ray.runtime.protocol.ledger import LedgerState
from amago_ray.runtime.protocol.messages import (
    NO_VERSION,
    BatchNumber,
    ControlState,
    LearnerBeat,
    NotYet,
    Received,
    RunnerBeat,
    ShardBeat,
    gather,
)
from amago_ray.runtime.protocol.packed_stats import pack
from amago_ray.runtime.protocol.runner_ledger import RunnerTotals
from amago_ray.runtime.protocol.shard_table import ShardTable

BASE = LedgerState({"env_runner": {"env_steps": 1000, "episodes": 20}}, learner=PolicyVersion(-1, 10))


def config(*overrides: str) -> Config:
    return load_config("quickstart", ["replay.samples_per_insert=2", "learner.batch_size=4", *overrides])


def snapshot(*version: int) -> Snapshot:
    return Snapshot(PolicyVersion(*version), {"w": np.zeros(2, np.float32)})


async def filled(config: Config, state: LedgerState = BASE) -> ControlActor:
    """A control actor without Ray: references are the values themselves, waits are short."""
    control = ControlActor(config, put=lambda value: value, publish=lambda metrics: None, longest_wait_s=0.05)
    await control.fill(ControlState(state))
    return control


def runner_beat(
    env_steps: int = 50, version: PolicyVersion = NO_VERSION, runner: int = 0, incarnation: int = 1, **changes: Any
) -> RunnerBeat:
    totals = RunnerTotals(env_steps, episodes=len(changes.get("episodes", [])), acting_s=0.1)
    beat = RunnerBeat(runner, incarnation, version, totals)
    return dataclasses.replace(beat, **changes)


def shard_beat(shard: int, inserted: int, stored: int | None = None, incarnation: int = 0, **changes: int) -> ShardBeat:
    zeros = {field.name: 0 for field in dataclasses.fields(ShardReport)}
    held = inserted if stored is None else stored
    counts = {"inserted_transitions": inserted, "stored_transitions": held, "stored_episodes": held}
    return ShardBeat(shard, incarnation, ShardReport(**{**zeros, **counts, **changes}))


def learner_beat(*version: int, settled: int = 0, trained: int = 0, updates: int = 1, rank: int = 0) -> LearnerBeat:
    totals = {"updates": updates, "settled_transitions": settled, "trained_transitions": trained, "learner_s": 0.5}
    return LearnerBeat(PolicyVersion(*version), totals, {"loss/total": 1.5}, rank)


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


def test_runners_get_newer_weights_and_only_those() -> None:
    async def scene() -> None:
        control = await filled(config())
        assert list((await control.beat_runner(runner_beat())).weights) == []
        await control.push_weights(snapshot(1, 5))
        assert (await control.beat_runner(runner_beat())).weights[0].version == (1, 5)
        assert list((await control.beat_runner(runner_beat(version=PolicyVersion(1, 5)))).weights) == []

    run(scene())


def test_who_asks_before_there_are_weights_gets_the_first() -> None:
    async def scene() -> None:
        control = await filled(config())
        asked = asyncio.create_task(control.weights())
        await asyncio.sleep(0)
        await control.push_weights(snapshot(1, 0))
        await asyncio.sleep(0.01)
        await control.push_weights(snapshot(1, 10))
        assert (await asked)[0].version == (1, 0)

    run(scene())


def test_a_restored_learners_weights_count_as_newer() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.push_weights(snapshot(1, 500))
        await control.push_weights(snapshot(2, 100))
        await control.push_weights(snapshot(1, 510))
        assert (await control.weights())[0].version == (2, 100)

    run(scene())


def test_credit_comes_with_inserts_and_is_given_back_by_confirmation() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.beat_shard(shard_beat(0, 0))
        assert not (await control.reserve(100, 1)).shards, "nothing is stored"
        await control.beat_shard(shard_beat(0, 100))
        assert (await control.reserve(150, 1)).shards == [0]
        assert (await control.reserve(150, 1)).shards == [0]
        assert not (await control.reserve(150, 1)).shards, "200 transitions of credit are reserved"
        await control.beat_learner(learner_beat(1, 1, settled=150))
        assert (await control.reserve(150, 1)).shards == [0], "a lost batch gives its credit back"

    run(scene())


def test_a_waiting_learner_is_woken_by_an_insert() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.beat_shard(shard_beat(0, 0))
        waiting = asyncio.create_task(control.reserve(10, 1))
        await asyncio.sleep(0)
        await control.beat_shard(shard_beat(0, 50))
        assert (await waiting).shards == [0]

    run(scene())


def test_shards_are_drawn_in_proportion_to_their_newest_sizes() -> None:
    async def scene() -> list[int]:
        control = await filled(config("replay.num_shards=2", "replay.samples_per_insert=null"))
        await control.beat_shard(shard_beat(0, 1000))
        await control.beat_shard(shard_beat(1, 3000))
        return [shard for _ in range(200) for shard in (await control.reserve(1, 10)).shards]

    drawn = np.array(run(scene()))
    assert abs((drawn == 1).mean() - 0.75) < 0.05


def test_runners_ahead_are_paused_until_the_learner_catches_up() -> None:
    async def scene() -> None:
        control = await filled(config("replay.samples_per_insert_tolerance=0.1"))
        await control.beat_shard(shard_beat(0, 0))
        for inserted in range(100, 1100, 100):
            await control.beat_shard(shard_beat(0, inserted))
        assert not (await control.beat_runner(runner_beat())).may_act
        await control.beat_learner(learner_beat(1, 1, trained=1800))
        assert (await control.beat_runner(runner_beat())).may_act

    run(scene())


def test_stop_reaches_everyone() -> None:
    async def scene() -> None:
        control = await filled(config())
        waiting = asyncio.create_task(control.reserve(10, 1))
        await asyncio.sleep(0)
        await control.stop()
        assert (await waiting).stop
        assert (await control.beat_runner(runner_beat())).stop

    run(scene())


def test_a_report_sums_the_run_and_starts_afresh() -> None:
    async def scene() -> None:
        control = await filled(config())
        stats = pack(EpisodeStats("maze", 1.0, 50, 0, NO_VERSION, 1.0))
        beat = runner_beat(episodes=[stats])
        beat = dataclasses.replace(beat, totals=beat.totals._replace(dropped_episodes=1, stored_episodes=1))
        await control.beat_shard(shard_beat(0, 500, stored=400))
        await control.beat_runner(beat)
        await control.beat_learner(learner_beat(1, 12, trained=100))
        report = await control.collect()
        assert (report.env_steps, report.num_episodes, report.learner_steps) == (1050, 21, 12)
        assert report.episodes == [stats]
        assert report.metrics["loss/total"] == 1.5
        assert report.metrics["rollout/dropped_episodes"] == 1
        assert report.metrics["rollout/stored_episodes"] == 1
        assert report.metrics["replay/timesteps"] == 400
        await control.beat_runner(beat)
        again = await control.collect()
        assert list(again.episodes) == [], "a beat that comes twice counts once"
        assert "loss/total" not in again.metrics
        assert again.env_steps == 1050

    run(scene())


def test_only_episodes_that_are_new_are_told() -> None:
    async def scene() -> None:
        control = await filled(config())
        stats = [pack(EpisodeStats("maze", float(number), 50, number, NO_VERSION, 1.0)) for number in range(3)]
        await control.beat_runner(runner_beat(episodes=stats[:2]))
        # The answer was lost, so the runner tells them once more.
        await control.beat_runner(runner_beat(episodes=stats))
        assert list((await control.collect()).episodes) == stats

    run(scene())


def test_a_learner_that_starts_again_counts_on_from_the_checkpoint_it_begins_with() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.beat_learner(learner_beat(1, 50, updates=40))
        await control.collect()
        await control.push_weights(snapshot(2, 30))
        await control.beat_learner(learner_beat(2, 31))
        report = await control.collect()
        assert report.learner_steps == 31
        assert report.metrics["time/learner_steps_per_s"] > 0, "what is done anew is no step backwards"

    run(scene())


def test_what_a_dead_learner_had_reserved_is_void() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.push_weights(snapshot(1, 0))
        await control.beat_shard(shard_beat(0, 0))
        await control.beat_shard(shard_beat(0, 100))
        assert (await control.reserve(1000, 1)).shards == [0]
        assert not (await control.reserve(1000, 1)).shards
        await control.push_weights(snapshot(2, 0))
        await control.beat_shard(shard_beat(0, 110))
        assert (await control.reserve(1000, 1)).shards == [0]

    run(scene())


def test_a_learner_that_lives_on_beside_its_successor_gets_no_credit() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.push_weights(snapshot(1, 0))
        await control.push_weights(snapshot(2, 0))
        await control.beat_shard(shard_beat(0, 0))
        await control.beat_shard(shard_beat(0, 100))
        assert not (await control.reserve(1000, 1, received=Received(0, 1, 0))).shards
        assert (await control.reserve(1000, 1, received=Received(0, 2, 0))).shards == [0]

    run(scene())


def test_replay_metrics_wait_for_every_shard() -> None:
    async def scene() -> None:
        control = await filled(config("replay.num_shards=2"))
        await control.beat_shard(shard_beat(0, 500))
        assert "replay/timesteps" not in (await control.collect()).metrics
        await control.beat_shard(shard_beat(1, 300))
        assert (await control.collect()).metrics["replay/timesteps"] == 800

    run(scene())


def test_a_late_report_of_a_shards_former_incarnation_changes_nothing() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.beat_shard(shard_beat(0, 500, incarnation=1))
        await control.beat_shard(shard_beat(0, 0, incarnation=2))
        await control.beat_shard(shard_beat(0, 600, incarnation=1))
        assert (await control.collect()).metrics["replay/timesteps"] == 0

    run(scene())


def test_a_shard_counts_when_the_table_knows_its_files_and_is_asked_while_they_are_open() -> None:
    async def scene() -> None:
        control = await filled(config("replay.samples_per_insert=null"))
        starting = ShardTable().started(0, "host", "node", 1, None)
        await control.set_table(starting)
        await control.beat_shard(shard_beat(0, 100, incarnation=1))
        assert "replay/timesteps" not in (await control.collect()).metrics
        opened = starting.opened(0, 1, None)
        await control.set_table(opened)
        await control.beat_shard(shard_beat(0, 90, incarnation=0))
        await control.beat_shard(shard_beat(0, 100, incarnation=1))
        assert (await control.collect()).metrics["replay/timesteps"] == 100
        assert (await control.reserve(10, 1)).shards == [0]
        again = opened.started(0, "host", "node", 2, None)
        await control.set_table(again)
        assert not (await control.reserve(10, 1)).shards, "it is being started"
        assert (await control.collect()).shards[0].stored_transitions == 100, "its last word"
        await control.set_table(again.opened(0, 1, None))
        assert (await control.reserve(10, 1)).shards == [0]

    run(scene())


def test_what_was_lost_with_a_node_stays_counted() -> None:
    async def scene() -> None:
        control = await filled(config("replay.num_shards=2"))
        table = ShardTable()
        for shard in range(2):
            table = table.started(shard, f"host_{shard}", "node", shard, None).opened(shard, shard, None)
        await control.set_table(table)
        beats = [shard_beat(shard, 100, 60, shard, inserted_episodes=10, stored_episodes=6) for shard in range(2)]
        for beat in beats:
            await control.beat_shard(beat)
        before = (await control.collect()).metrics
        assert before["replay/lost_with_nodes_episodes"] == 0
        table = table.started(1, "host_0", "other", 5, None)
        await control.set_table(table)
        assert (await control.collect()).metrics["replay/inserted_timesteps"] == 200
        lost = ShardCounts.of(beats[1].report)
        await control.set_table(table.opened(1, 5, lost))
        await control.beat_shard(shard_beat(1, 80, 60, incarnation=1, inserted_episodes=8, stored_episodes=6))
        assert "replay/timesteps" not in (await control.collect()).metrics, "until the new one has reported"
        await control.beat_shard(shard_beat(1, 20, incarnation=5, inserted_episodes=2, stored_episodes=2))
        after = (await control.collect()).metrics
        assert after["replay/inserted_timesteps"] == 220
        assert after["replay/timesteps"] == 80
        assert (after["replay/lost_with_nodes_episodes"], after["replay/lost_with_nodes_transitions"]) == (6, 60)

    run(scene())


def test_a_runner_stuck_on_old_weights_raises_an_alarm() -> None:
    async def scene() -> None:
        control = await filled(config("rollout.stuck_policy_alarm_s=0.01"))
        await control.push_weights(snapshot(1, 5))
        await control.beat_runner(runner_beat(runner=3, version=PolicyVersion(1, 5)))
        await control.push_weights(snapshot(1, 50))
        await asyncio.sleep(0.02)
        await control.beat_runner(runner_beat(runner=3, version=PolicyVersion(1, 5)))
        (warning,) = (await control.collect()).warnings
        assert "env runner 3" in warning
        assert "5" in warning
        assert "50" in warning
        assert (await control.collect()).metrics["time/runner_lag_max"] == 45

    run(scene())


def test_environment_failures_are_told_once_per_kind() -> None:
    async def scene() -> None:
        control = await filled(config())
        for _ in range(3):
            await control.beat_runner(runner_beat(failures=["ValueError: broken"]))
        await control.beat_runner(runner_beat(runner=1, failures=["ValueError: broken", "OSError: gone"]))
        first, second = (await control.collect()).warnings
        assert first == "env runner 0: environment failed and was rebuilt: ValueError: broken"
        assert second == "env runner 1: environment failed and was rebuilt: OSError: gone"

    run(scene())


def test_a_control_actor_that_starts_again_gives_credit_for_new_inserts_only() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.beat_shard(shard_beat(0, 100_000))
        assert not (await control.reserve(100, 1)).shards, "what was inserted before is no new credit"
        await control.beat_shard(shard_beat(0, 100_100))
        assert (await control.reserve(100, 1)).shards == [0]

    run(scene())


def test_a_control_actor_that_has_to_be_filled_takes_nothing_in() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.beat_runner(runner_beat(env_steps=300))
        state = (await control.collect()).ledger

        successor = ControlActor(config(), put=lambda value: value, publish=lambda metrics: None, longest_wait_s=0.05)
        assert await successor.collect() is None
        assert await successor.watch(), "who watches is told to fill it"
        assert isinstance(await successor.beat_runner(runner_beat(env_steps=340)), NotYet)
        reserving = asyncio.create_task(successor.reserve(10, 1))
        await asyncio.sleep(0.01)
        assert not reserving.done()
        await successor.fill(ControlState(state, stopping=True))
        await successor.fill(ControlState(LedgerState()))
        assert (await reserving).stop
        orders = await successor.beat_runner(runner_beat(env_steps=340))
        assert orders.global_env_steps == 1340, "no count falls, and what came meanwhile is counted"
        assert orders.stop
        assert (await successor.collect()).env_steps == 1340

    run(scene())


def test_counts_of_a_shard_survive_its_process() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.beat_shard(shard_beat(0, 500, incarnation=1, num_duplicates=3, torn_bytes=10))
        await control.beat_shard(shard_beat(0, 500, incarnation=2, num_duplicates=1, torn_bytes=5))
        metrics = (await control.collect()).metrics
        assert metrics["replay/duplicate_episodes"] == 4
        assert metrics["replay/torn_bytes"] == 15

    run(scene())


def test_acting_ends_at_the_last_env_step_and_the_trainer_is_called() -> None:
    async def scene() -> None:
        control = await filled(config("stop.env_steps=1100", "rollout.num_envs_per_env_runner=10"))
        watching = asyncio.create_task(control.watch())
        orders = await control.beat_runner(runner_beat(env_steps=0))
        made = 0
        while orders.may_act:
            made = orders.allowed_env_steps
            orders = await control.beat_runner(runner_beat(env_steps=made))
        assert made == 100
        assert not await watching
        assert not (await control.beat_runner(runner_beat(env_steps=made))).may_act
        again = asyncio.create_task(control.watch())
        await control.beat_runner(runner_beat(env_steps=made))
        await asyncio.sleep(0.01)
        assert not again.done(), "called once"
        again.cancel()

    run(scene())


def test_who_wants_no_batch_waits_for_the_end() -> None:
    async def scene() -> None:
        control = await filled(config("replay.samples_per_insert=null"))
        await control.beat_shard(shard_beat(0, 100))
        reserved = await control.reserve(10, num_batches=0)
        assert (reserved.stop, list(reserved.shards)) == (False, [])
        waiting = asyncio.create_task(control.reserve(10, num_batches=0))
        await asyncio.sleep(0)
        await control.stop()
        assert (await waiting).stop

    run(scene())


def test_a_wish_to_stop_is_told_at_once() -> None:
    async def scene() -> None:
        control = await filled(config())
        watching = asyncio.create_task(control.watch())
        await asyncio.sleep(0)
        await control.request_stop()
        assert not await watching
        assert (await control.collect()).stop_requested

    run(scene())


def test_several_batches_are_reserved_at_once_as_far_as_there_is_credit() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.beat_shard(shard_beat(0, 0))
        await control.beat_shard(shard_beat(0, 100))
        assert (await control.reserve(90, 5)).shards == [0, 0, 0], "200 of credit: the last batch may go beyond it"

    run(scene())


def test_who_knows_an_older_shard_table_gets_the_newest() -> None:
    async def scene() -> None:
        control = await filled(config("replay.samples_per_insert=null"))
        assert (await control.beat_runner(runner_beat())).table is None
        table = ShardTable(3)
        await control.set_table(table)
        assert (await control.beat_runner(runner_beat(table_version=2))).table is table
        assert (await control.beat_runner(runner_beat(table_version=3))).table is None
        assert (await control.reserve(1, 0, table_version=2)).table is table
        assert (await control.reserve(1, 0, table_version=3)).table is None
        both = gather([runner_beat(table_version=2), runner_beat(runner=1, table_version=3)])
        assert (await control.beat_runners(both)).table is table

    run(scene())


def test_a_filling_that_comes_late_takes_no_newer_shard_table_back() -> None:
    async def scene() -> None:
        control = ControlActor(config(), put=lambda value: value, publish=lambda metrics: None)
        await control.set_table(ShardTable(4))
        await control.fill(ControlState(BASE, table=ShardTable(3)))
        assert (await control.beat_runner(runner_beat(table_version=3))).table == ShardTable(4)

    run(scene())


def test_a_runner_that_is_gone_and_beats_again_counts_in_no_interval() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.beat_runner(runner_beat(incarnation=1))
        orders = await control.beat_runner(runner_beat(runner=1, incarnation=2))
        await control.runner_gone(0, 1)
        assert (await control.beat_runner(runner_beat(incarnation=1))).stop
        again = await control.beat_runner(runner_beat(runner=1, incarnation=2))
        assert again.beat_in_s == orders.beat_in_s / 2

    run(scene())


def test_a_thousand_paused_runners_keep_nobody_waiting() -> None:
    async def scene() -> None:
        control = await filled(config("replay.samples_per_insert_tolerance=0.1"))
        for inserted in range(0, 1100, 100):
            await control.beat_shard(shard_beat(0, inserted))
        answers = [control.beat_runner(runner_beat(runner=number)) for number in range(1000)]
        for answer in answers:
            # Ends at its first step: no call of theirs stays under way.
            with pytest.raises(StopIteration) as ended:
                answer.send(None)
            assert not ended.value.value.may_act
        assert ended.value.value.beat_in_s >= 1000 / 300, "all together beat at most 300 times a second"
        assert (await control.reserve(100, 1)).shards == [0]

    run(scene())


def test_a_dead_runners_grant_goes_to_others_at_once() -> None:
    async def scene() -> None:
        control = await filled(config("stop.env_steps=1100", "rollout.num_envs_per_env_runner=10"))
        assert (await control.beat_runner(runner_beat(env_steps=0))).allowed_env_steps == 50
        await control.runner_gone(0, 1)
        orders = await control.beat_runner(runner_beat(env_steps=0, runner=1))
        assert orders.allowed_env_steps == 50, "half of all that is left, as there is one runner"

    run(scene())


def test_a_replaced_incarnation_is_stopped_and_counts_for_nothing() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.beat_runner(runner_beat(env_steps=300, incarnation=1))
        assert not (await control.beat_runner(runner_beat(env_steps=10, incarnation=2))).stop
        orders = await control.beat_runner(runner_beat(env_steps=400, incarnation=1))
        assert orders.stop
        assert orders.global_env_steps == 1310
        assert not (await control.beat_runner(runner_beat(env_steps=10, incarnation=2))).stop

    run(scene())


def test_what_nobody_collects_is_bounded_and_counted() -> None:
    async def scene() -> None:
        control = await filled(config())
        stats = [b"stats %d" % number for number in range(100)]
        for number in range(1, 201):
            totals = RunnerTotals(env_steps=1, episodes=150 * number)
            kinds = [f"ValueError: {number} {kind}" for kind in range(10)]
            await control.beat_runner(runner_beat(totals=totals, episodes=stats, failures=kinds))
        report = await control.collect()
        assert report.num_episodes == 20 + 150 * 200, "every episode counts"
        assert len(report.episodes) + report.metrics["rollout/untold_episodes"] == 150 * 200
        assert len(report.episodes) == 5_000
        assert len(report.warnings) == 1_000
        again = await control.collect()
        assert not again.episodes
        assert again.metrics["rollout/untold_episodes"] == 25_000

    run(scene())


def test_learners_that_train_together_settle_their_own_credit_and_one_counts_updates() -> None:
    async def scene() -> None:
        control = await filled(config("learner.num_learners=2"))
        await control.beat_shard(shard_beat(0, 0))
        await control.beat_shard(shard_beat(0, 100))
        assert (await control.reserve(150, 3, first=BatchNumber(1, 0))).shards == [0, 0]
        assert (await control.reserve(150, 3, first=BatchNumber(1, 0))).shards == [0, 0], "what the first one got"
        beats = [learner_beat(1, 1, settled=150, trained=100, rank=rank, updates=1 - rank) for rank in (0, 1)]
        for beat in [*beats, *beats]:
            await control.beat_learner(beat)
        report = await control.collect()
        assert report.learner_steps == 1
        assert report.ledger.reported.keys() >= {("learner", 0, 1), ("learner", 1, 1)}
        assert report.metrics["replay/samples_per_insert"] == 2.0

    run(scene())


def test_a_late_word_of_former_learners_settles_nothing_of_the_new_ones() -> None:
    async def scene() -> None:
        control = await filled(config("learner.num_learners=2"))
        await control.beat_shard(shard_beat(0, 0))
        for rank in (0, 1):
            await control.beat_learner(learner_beat(1, 5, settled=0, rank=rank))
        await control.beat_shard(shard_beat(0, 100))
        await control.push_weights(snapshot(2, 3))
        await control.beat_shard(shard_beat(0, 200))
        assert (await control.reserve(1000, 1, first=BatchNumber(2, 0))).shards == [0]
        await control.beat_learner(learner_beat(1, 6, settled=1000, trained=1000, rank=1))
        assert not (await control.reserve(10, 1, first=BatchNumber(2, 1))).shards

    run(scene())


def test_runners_that_are_sent_away_stop_and_their_successors_do_not() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.send_away({0: 3, 2: 1})
        beats = [
            runner_beat(runner=number, incarnation=incarnation) for number, incarnation in ((0, 3), (1, 3), (2, 2))
        ]
        orders = await control.beat_runners(gather(beats))
        assert not isinstance(orders, NotYet)
        assert [orders.of(row, beat).stop for row, beat in enumerate(beats)] == [True, False, False]
        await control.send_away({})
        answer = await control.beat_runner(beats[0])
        assert not isinstance(answer, NotYet)
        assert not answer.stop

    run(scene())


def test_another_number_of_env_runners_is_agreed_on_when_the_trainer_knows() -> None:
    async def scene() -> None:
        control = await filled(config("rollout.num_env_runners=2", "rollout.max_env_runners=4"))
        for number in (3, 4):
            watch = asyncio.create_task(control.watch())
            asked = asyncio.create_task(control.scale(number))
            assert not await watch, "the trainer is called"
            assert not asked.done()
            report = await control.collect()
            assert report is not None
            assert report.num_env_runners == number
            assert await asked == number - 1
        assert await control.scale(4) == 4
        again = ControlActor(config(), put=lambda value: value, publish=lambda metrics: None)
        await again.fill(ControlState(BASE, num_env_runners=3))
        report = await again.collect()
        assert report is not None
        assert report.num_env_runners == 3

    run(scene())


def test_a_number_of_env_runners_that_the_run_may_not_have_is_refused() -> None:
    async def scene() -> None:
        control = await filled(config("rollout.num_env_runners=2", "rollout.max_env_runners=4"))
        for number in (1, 5):
            with pytest.raises(ConfigError) as caught:
                await control.scale(number)
            assert str(caught.value) == (
                "env runners: expected from 2 to 4 (rollout.min_env_runners to max_env_runners of the run), "
                f"got {number}"
            )
        asked = asyncio.create_task(control.scale(3))
        await control.stop()
        with pytest.raises(TrainingError, match="the run ends"):
            await asked

    run(scene())


def test_shares_of_time_are_those_of_the_runners_that_were_there() -> None:
    async def scene() -> None:
        control = await filled(config())
        busy_s = 0.05
        for acting_s in (0.0, busy_s):
            await asyncio.sleep(acting_s)
            for runner in (0, 1):
                totals = RunnerTotals(env_steps=1, acting_s=acting_s)
                await control.beat_runner(dataclasses.replace(runner_beat(runner=runner), totals=totals))
                if acting_s:
                    await control.runner_gone(runner, 1)
            report = await control.collect()
        assert report is not None
        assert 0 < report.sides[0]["acting"] <= 1, "two have left that acted all the time"

    run(scene())


def test_shards_are_told_how_seldom_to_report() -> None:
    async def scene() -> None:
        control = ControlActor(config("replay.num_shards=60"), put=lambda value: value, publish=lambda metrics: None)
        assert await control.beat_shard(shard_beat(3, 70)) == 60 / 300
        await control.fill(ControlState(BASE))
        assert await control.beat_shard(shard_beat(3, 90)) == 60 / 300
        await control.beat_shard(shard_beat(3, 100))
        assert (await control.reserve(30, 5)).shards == [3, 3], "credit for what came after the first report"

    run(scene())


def test_counts_of_what_was_left_out_do_not_fall_when_control_starts_again() -> None:
    async def scene() -> None:
        control = await filled(config())
        await control.beat_runner(runner_beat(totals=RunnerTotals(env_steps=1, episodes=30)))
        report = await control.collect()
        assert report is not None
        assert report.metrics["rollout/untold_episodes"] == 30
        (warning,) = report.warnings
        assert warning.startswith("more episodes end than reports tell of")
        successor = await filled(config(), report.ledger)
        await successor.beat_runner(runner_beat(totals=RunnerTotals(env_steps=1, episodes=35)))
        again = await successor.collect()
        assert again.metrics["rollout/untold_episodes"] == 35
        assert list(again.warnings) == list((await successor.collect()).warnings) == [], "said once"

    run(scene())
