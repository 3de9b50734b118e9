"""Metrics of all replay shards together."""

from __future__ import annotations

from collections.abc import Sequence

from amago_ray.config.replay import ReplayConfig
from amago_ray.replay.reports import ShardCounts, ShardReport


def replay_metrics(
    reports: Sequence[ShardReport], config: ReplayConfig, left_behind: Sequence[ShardCounts] = ()
) -> dict[str, float]:
    """Sums over shards, as `replay/...`; `replay/fill` is the used share of the capacity.

    `replay/lost_transitions` are those that others deleted or damaged; what had to make room is evicted, not lost.
    left_behind: of files on nodes that are gone. What they held is lost with these; what comes back is inserted again.
    What was inserted into them, evicted and lost otherwise, stays counted.
    """
    counted: list[ShardReport | ShardCounts] = [*reports, *left_behind]
    transitions = sum(report.stored_transitions for report in reports)
    sampled = sum(report.num_samples for report in reports)
    metrics = {
        "replay/timesteps": float(transitions),
        "replay/episodes": float(sum(report.stored_episodes for report in reports)),
        "replay/bytes": float(sum(report.stored_bytes for report in reports)),
        "replay/fill": transitions / config.capacity_timesteps,
        "replay/inserted_timesteps": float(sum(each.inserted_transitions for each in counted)),
        "replay/inserted_episodes": float(sum(each.inserted_episodes for each in counted)),
        "replay/evicted_episodes": float(sum(each.evicted_episodes for each in counted)),
        "replay/lost_with_nodes_episodes": float(sum(counts.stored_episodes for counts in left_behind)),
        "replay/lost_with_nodes_transitions": float(sum(counts.stored_transitions for counts in left_behind)),
        "replay/duplicate_episodes": float(sum(report.num_duplicates for report in reports)),
        "replay/deleted_episodes": float(sum(each.deleted_episodes for each in counted)),
        "replay/damaged_episodes": float(sum(each.damaged_episodes for each in counted)),
        "replay/lost_transitions": float(sum(each.deleted_transitions + each.damaged_transitions for each in counted)),
        "replay/full_shards": float(sum(report.is_full for report in reports)),
        "replay/torn_bytes": float(sum(report.torn_bytes for report in reports)),
    }
    if sampled:
        metrics["replay/relabeled_share"] = sum(report.num_relabeled for report in reports) / sampled
    return metrics
