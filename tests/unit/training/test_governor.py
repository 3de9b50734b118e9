"""The governor holds transitions trained per transition inserted, whatever happens to either side."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from amago_ray.config.replay import ReplayConfig
from amago_ray.training.governor import Governor


def make_governor(**config: object) -> Governor:
    return Governor(ReplayConfig(**{"samples_per_insert": 10.0, "samples_per_insert_tolerance": 0.1, **config}))


def test_training_waits_for_inserts_and_spends_what_they_earn() -> None:
    governor = make_governor()
    governor.report_shard(0, 0, 0, 0)
    assert not governor.reserve(50)
    governor.report_shard(0, 0, 12, 12)
    trained = 0
    while governor.reserve(50):
        governor.confirm(50, 50)
        trained += 50
    assert trained == 150, "12 * 10, and at most one batch more"
    governor.report_shard(0, 0, 15, 15)
    assert not governor.may_train(), "150 transitions are earned exactly"
    governor.report_shard(0, 0, 16, 16)
    assert governor.may_train()


def test_outstanding_reservations_count() -> None:
    governor = make_governor()
    governor.report_shard(0, 0, 0, 0)
    governor.report_shard(0, 0, 10, 10)
    assert [governor.reserve(50) for _ in range(3)] == [True, True, False]
    governor.confirm(50, 0)
    assert governor.reserve(50), "a batch that was lost gives its credit back"


def test_starving_learners_never_stop_acting() -> None:
    """Acting alone, runners pause when they are ahead by the tolerance, and go on as soon as training catches up."""
    governor = make_governor()
    governor.report_shard(0, 0, 0, 0)
    total = 0
    while governor.may_act():
        total += 5
        governor.report_shard(0, 0, total, total)
    assert total == 15, "two groups may wait for training, one more was under way"
    while governor.reserve(30):
        governor.confirm(30, 30)
    assert governor.may_act()


def test_starving_runners_never_stop_training_for_ever() -> None:
    governor = make_governor()
    governor.report_shard(0, 0, 0, 0)
    governor.report_shard(0, 0, 100, 100)
    while governor.reserve(30):
        governor.confirm(30, 30)
    assert not governor.may_train()
    assert governor.may_act(), "the other side may always go on"


def test_lost_and_repeated_reports_do_no_harm() -> None:
    heard, half_heard = make_governor(), make_governor()
    for total in range(0, 100, 10):
        heard.report_shard(0, 0, total, total)
        if total % 30 == 0:
            half_heard.report_shard(0, 0, total, total)
            half_heard.report_shard(0, 0, total, total)
    assert heard.inserted == half_heard.inserted == 90


def test_a_dead_shard_that_comes_back_empty_keeps_what_it_had_inserted() -> None:
    governor = make_governor()
    governor.report_shard(0, 0, 0, 0)
    governor.report_shard(1, 0, 0, 0)
    governor.report_shard(0, 0, 60, 60)
    governor.report_shard(1, 0, 40, 40)
    while governor.reserve(100):
        governor.confirm(100, 100)
    governor.report_shard(1, 1, 0, 0)
    assert governor.inserted == 100
    assert not governor.may_train()
    governor.report_shard(1, 1, 10, 10)
    assert governor.inserted == 110
    assert governor.may_train(), "what it collects anew earns credit"


def test_a_shard_with_other_files_keeps_what_was_inserted_and_brings_no_credit_with_what_it_finds() -> None:
    governor = make_governor(min_timesteps=100)
    for inserted in (0, 120):
        governor.report_shard(0, 1, inserted, inserted)
    assert (governor.inserted, governor.may_train()) == (120, True)
    governor.replace_shard(0)
    assert not governor.may_train(), "nothing is stored"
    governor.report_shard(0, 1, 130, 130)
    governor.replace_shard(0)
    # Files of earlier, found again.
    governor.report_shard(0, 2, 5000, 40)
    assert governor.inserted == 120
    assert governor.may_train(), "what came in earlier counts for `min_timesteps`"
    governor.report_shard(0, 2, 5010, 50)
    assert governor.inserted == 130
    governor.rebase()
    assert governor.inserted == 0


def test_what_comes_back_from_other_files_earns_nothing_and_pauses_nobody() -> None:
    governor = make_governor()
    governor.report_shard(0, 1, 0, 0)
    governor.report_shard(0, 1, 10, 10)
    governor.confirm(0, 100)
    governor.report_shard(0, 1, 5010, 5010, returned_total=5000)
    assert governor.inserted == 10
    assert (governor.may_act(), governor.may_train()) == (True, False)
    # The next process counts from zero what it takes back.
    governor.report_shard(0, 2, 5010, 5010)
    governor.report_shard(0, 2, 5120, 5120, returned_total=100)
    assert governor.inserted == 20
    governor.replace_shard(0)
    governor.report_shard(0, 3, 30, 30, returned_total=30)
    assert governor.inserted == 20
    governor.report_shard(0, 3, 35, 35, returned_total=30)
    assert governor.inserted == 25


def test_a_shard_seen_first_brings_no_credit() -> None:
    """A resume, or a governor that starts anew, must not train on the past in a burst."""
    governor = make_governor()
    governor.report_shard(0, 0, 1_000_000, 500_000)
    assert governor.inserted == 0
    assert not governor.may_train()
    assert governor.may_act()
    governor.report_shard(0, 0, 1_000_010, 500_010)
    assert governor.reserve(100)
    governor.confirm(100, 100)
    assert not governor.may_train()


def test_rebase_forgets_imbalance_of_either_kind() -> None:
    for trained in (0, 10_000):
        governor = make_governor()
        governor.report_shard(0, 0, 0, 0)
        governor.report_shard(0, 0, 100, 100)
        governor.reserve(50)
        governor.confirm(0, trained)
        governor.rebase()
        assert governor.inserted == 0
        assert not governor.may_train(), "no burst of training"
        assert governor.may_act(), "and no pause of acting"
        governor.report_shard(0, 0, 110, 110)
        assert [governor.reserve(60) for _ in range(3)] == [True, True, False], "credit for the ten new ones"


def test_nothing_is_trained_before_min_timesteps_and_nobody_pauses_until_then() -> None:
    governor = make_governor(min_timesteps=50)
    governor.report_shard(0, 0, 0, 0)
    governor.report_shard(1, 0, 0, 0)
    for total in range(1, 25):
        governor.report_shard(0, 0, total, total)
        governor.report_shard(1, 0, total, total)
        assert not governor.may_train()
        assert governor.may_act()
    governor.report_shard(0, 0, 26, 26)
    assert governor.may_train(), "counted over all shards"
    governor = make_governor(min_timesteps=50)
    governor.report_shard(0, 0, 0, 0)
    governor.report_shard(0, 0, 100, 10)
    assert governor.may_train(), "a replay that evicts holds all that it ever can"
    governor = make_governor(min_timesteps=50)
    governor.report_shard(0, 0, 100, 0)
    assert not governor.may_train(), "nothing is stored"


def test_without_a_ratio_both_sides_run_free() -> None:
    governor = make_governor(samples_per_insert=None)
    governor.report_shard(0, 0, 0, 0)
    assert not governor.may_train(), "but for an empty replay"
    governor.report_shard(0, 0, 5, 5)
    for _ in range(100):
        assert governor.reserve(1000)
        governor.confirm(1000, 1000)
        assert governor.may_act()
    governor.report_shard(0, 0, 10**9, 5)
    assert governor.may_train()
    assert governor.may_act()


def test_the_state_goes_on_exactly_and_voids_reservations() -> None:
    governor = make_governor()
    governor.report_shard(0, 0, 0, 0)
    governor.report_shard(0, 0, 40, 40)
    governor.reserve(90)
    governor.confirm(90, 85)
    state = json.loads(json.dumps(governor.state()))
    governor.reserve(90)
    resumed = make_governor()
    resumed.load_state(state)
    governor.confirm(90, 0)
    assert resumed.state() == governor.state() == state
    for each in (governor, resumed):
        each.report_shard(0, 0, 41, 41)
    decisions = [[g.reserve(90) for _ in range(6)] for g in (governor, resumed)]
    assert decisions[0] == decisions[1] == [True] * 4 + [False] * 2


def test_metrics_give_the_ratio_or_nothing() -> None:
    governor = make_governor()
    assert governor.metrics() == {}
    governor.report_shard(0, 0, 0, 0)
    governor.report_shard(0, 0, 10, 10)
    governor.confirm(0, 80)
    assert governor.metrics() == {"replay/samples_per_insert": 8.0}


def test_a_late_report_from_before_a_shards_restart_is_not_counted() -> None:
    governor = make_governor()
    governor.report_shard(0, 7, 0, 0)
    assert governor.report_shard(0, 7, 100, 100)
    assert governor.report_shard(0, 8, 0, 0), "it lost its files and started empty"
    assert not governor.report_shard(0, 7, 110, 110)
    assert governor.inserted == 100
    assert not governor.may_train(), "nothing is stored any more"
    assert governor.report_shard(0, 8, 10, 10)
    assert not governor.report_shard(0, 8, 5, 5), "two reports of one incarnation overtook each other"
    assert governor.inserted == 110


@settings(max_examples=60)
@given(
    ratio=st.sampled_from([0.25, 1.0, 10.0, 400.0]),
    tolerance=st.sampled_from([0.01, 0.1, 0.5]),
    num_shards=st.integers(1, 3),
    min_timesteps=st.sampled_from([1, 200]),
    acting_speed=st.integers(1, 8),
    training_speed=st.integers(1, 8),
    prefetch=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_the_ratio_is_held_within_its_tolerance_in_a_simulated_run(
    ratio: float,
    tolerance: float,
    num_shards: int,
    min_timesteps: int,
    acting_speed: int,
    training_speed: int,
    prefetch: int,
    seed: int,
) -> None:
    """Either side may be the faster one; reports get lost or repeated, batches are lost, shards die, runners lag."""
    rng = np.random.default_rng(seed)
    governor = make_governor(
        samples_per_insert=ratio, samples_per_insert_tolerance=tolerance, min_timesteps=min_timesteps
    )
    group, batch = 20, 60
    totals, stored, incarnations = [0] * num_shards, [0] * num_shards, [0] * num_shards
    inserted, trained, reported, deaths = 0, 0, 0, 0
    unreported, largest = [0] * num_shards, 0
    outstanding: list[int] = []
    for shard in range(num_shards):
        governor.report_shard(shard, 0, 0, 0)
    for _ in range(600):
        for _ in range(acting_speed):
            if not governor.may_act():
                break
            shard, size = int(rng.integers(num_shards)), int(rng.integers(1, group + 1))
            totals[shard] += size
            stored[shard] += size
            inserted += size
            unreported[shard] += size
            largest = max(largest, unreported[shard])
            # Every report but the newest may be lost; here one in five comes late, with the next.
            for _ in range(int(rng.choice([0, 1, 2], p=[0.2, 0.7, 0.1]))):
                unreported[shard] = 0
                governor.report_shard(shard, incarnations[shard], totals[shard], stored[shard])
        if rng.random() < 0.002:
            dead = int(rng.integers(num_shards))
            late = (dead, incarnations[dead], totals[dead], stored[dead])
            governor.report_shard(*late)
            totals[dead] = stored[dead] = unreported[dead] = 0
            incarnations[dead] += 1
            deaths += 1
            governor.report_shard(dead, incarnations[dead], 0, 0)
            assert not governor.report_shard(*late)
        for _ in range(training_speed):
            while len(outstanding) < prefetch and governor.reserve(batch):
                outstanding.append(batch)
            if not outstanding:
                break
            reserved = outstanding.pop(0)
            # Batches are a little smaller than reserved; one in fifty is lost.
            size = 0 if rng.random() < 0.02 else int(rng.integers(batch // 2, batch + 1))
            governor.confirm(reserved, size)
            trained += size
        reported = governor.inserted
        assert reported <= inserted
        assert trained + sum(outstanding) <= ratio * reported + batch, "learners are never ahead by more than a batch"
        assert governor.may_act() or governor.may_train() or outstanding, "both sides never wait for each other"
    slack = max(tolerance * inserted, 2 * largest) + num_shards * largest + acting_speed * group
    # What a dead shard took with it is collected anew before training goes on.
    slack += (1 + deaths) * min_timesteps
    assert inserted <= trained / ratio + slack + batch * training_speed / ratio
    assert trained > 0
    if training_speed * batch / 2 > 2 * ratio * acting_speed * group:
        # Learners that are much the faster side stay close behind.
        assert trained + batch * (prefetch + 1) + ratio * group * 5 * num_shards >= ratio * reported
    assert inserted >= 600 * acting_speed * 0.2 or trained >= 600 * 0.5 * batch * 0.3, (
        "the slower side runs at full speed"
    )


@pytest.mark.parametrize("ratio", [1.0, 25.0])
def test_over_a_long_run_the_ratio_converges(ratio: float) -> None:
    governor = make_governor(samples_per_insert=ratio)
    governor.report_shard(0, 0, 0, 0)
    total = 0
    for step in range(20_000):
        if step % 3 and governor.may_act():
            total += 7
            governor.report_shard(0, 0, total, total)
        if governor.reserve(50):
            governor.confirm(50, 48)
    assert governor.metrics()["replay/samples_per_insert"] == pytest.approx(ratio, rel=0.11)
