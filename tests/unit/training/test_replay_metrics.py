"""Metrics of all shards together."""

from __future__ import annotations

from dataclasses import fields

import pytest

from amago_ray.config.replay import ReplayConfig
from amago_ray.replay.reports import ShardCounts, ShardReport
from amago_ray.training.replay_metrics import replay_metrics

CONFIG = ReplayConfig(capacity_timesteps=1000)


def report(number: int, **changes: int) -> ShardReport:
    values = {field.name: number + position for position, field in enumerate(fields(ShardReport))}
    return ShardReport(**{**values, **changes})


def test_counts_are_summed_over_shards() -> None:
    one, two = report(10), report(200)
    metrics = replay_metrics([one, two], CONFIG)
    for name, field in (
        ("timesteps", "stored_transitions"),
        ("episodes", "stored_episodes"),
        ("bytes", "stored_bytes"),
        ("inserted_timesteps", "inserted_transitions"),
        ("inserted_episodes", "inserted_episodes"),
        ("evicted_episodes", "evicted_episodes"),
        ("duplicate_episodes", "num_duplicates"),
        ("deleted_episodes", "deleted_episodes"),
        ("damaged_episodes", "damaged_episodes"),
        ("full_shards", "is_full"),
        ("torn_bytes", "torn_bytes"),
    ):
        assert metrics[f"replay/{name}"] == getattr(one, field) + getattr(two, field)
    lost = [each.deleted_transitions + each.damaged_transitions for each in (one, two)]
    assert metrics["replay/lost_transitions"] == sum(lost)
    assert metrics["replay/fill"] == pytest.approx((one.stored_transitions + two.stored_transitions) / 1000)
    sampled = one.num_samples + two.num_samples
    assert metrics["replay/relabeled_share"] == pytest.approx((one.num_relabeled + two.num_relabeled) / sampled)


def test_what_was_on_nodes_that_are_gone_is_lost_by_name_and_no_count_falls() -> None:
    one, two = (report(0, inserted_episodes=10, stored_episodes=6, evicted_episodes=4) for _ in range(2))
    before = replay_metrics([one, two], CONFIG)
    new = report(0, inserted_episodes=0, stored_episodes=0, evicted_episodes=0, inserted_transitions=0)
    after = replay_metrics([one, new], CONFIG, [ShardCounts.of(two)])
    assert after["replay/inserted_timesteps"] == before["replay/inserted_timesteps"]
    assert after["replay/evicted_episodes"] == before["replay/evicted_episodes"] == 8
    assert after["replay/lost_with_nodes_episodes"] == 6
    assert after["replay/lost_with_nodes_transitions"] == two.stored_transitions
    assert after["replay/episodes"] + after["replay/evicted_episodes"] + after["replay/lost_with_nodes_episodes"] == 20


def test_a21_before_the_first_sample_there_is_no_share() -> None:
    """docs/algorithm.md §14.21: a metric without a value is left out."""
    metrics = replay_metrics([report(0, num_samples=0)], CONFIG)
    assert "replay/relabeled_share" not in metrics
    assert metrics["replay/fill"] == pytest.approx(0.001)
