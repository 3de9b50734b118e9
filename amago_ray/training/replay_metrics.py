"""Metrics of all replay shards together."""

from __future__ import annotations

from collections.abc import Sequence

from amago_ray.config.replay import ReplayConfig
from amago_ray.replay.reports import ShardReport


def replay_metrics(reports: Sequence[ShardReport], config: ReplayConfig) -> dict[str, float]:
    """Sums over shards, as `replay/...`; `replay/fill` is the used share of the capacity.

    `replay/lost_transitions` are those that others deleted or damaged; what had to make room is evicted, not lost.
    """
    transitions = sum(report.stored_transitions for report in reports)
    sampled = sum(report.num_samples for report in reports)
    metrics = {
        "replay/timesteps": float(transitions),
        "replay/episodes": float(sum(report.stored_episodes for report in reports)),
        "replay/bytes": float(sum(report.stored_bytes for report in reports)),
        "replay/fill": transitions / config.capacity_timesteps,
        "replay/inserted_timesteps": float(sum(report.inserted_transitions for report in reports)),
        "replay/evicted_episodes": float(sum(report.evicted_episodes for report in reports)),
        "replay/duplicate_episodes": float(sum(report.num_duplicates for report in reports)),
        "replay/deleted_episodes": float(sum(report.deleted_episodes for report in reports)),
        "replay/damaged_episodes": float(sum(report.damaged_episodes for report in reports)),
        "replay/lost_transitions": float(
            sum(report.deleted_transitions + report.damaged_transitions for report in reports)
        ),
        "replay/full_shards": float(sum(report.is_full for report in reports)),
        "replay/torn_bytes": float(sum(report.torn_bytes for report in reports)),
    }
    if sampled:
        metrics["replay/relabeled_share"] = sum(report.num_relabeled for report in reports) / sampled
    return metrics
