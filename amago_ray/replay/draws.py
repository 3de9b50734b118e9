"""Which shard a batch is drawn from, and which part of an episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from amago_ray.replay.reports import ShardReport


def draw_shards(
    reports: Mapping[int, ShardReport],
    sampling: Literal["episodes", "timesteps"],
    count: int,
    rng: np.random.Generator,
) -> Sequence[int]:
    """Draw a shard for each of `count` batches, by the newest report of each.

    In proportion to stored episodes, or to stored transitions where a shard draws episodes by their length: then every
    stored episode (or transition) of all shards is equally likely, given those reports. Exact, as sizes are whole
    numbers. At least one shard must hold something. A batch whose shard is gone is drawn again, by the reports of then.
    """
    numbers = sorted(reports)
    sizes = [
        reports[number].stored_episodes if sampling == "episodes" else reports[number].stored_transitions
        for number in numbers
    ]
    totals = np.cumsum(sizes)
    drawn = totals.searchsorted(rng.integers(totals[-1], size=count), side="right")
    return [numbers[index] for index in drawn.tolist()]


def draw_window(num_transitions: int, context_length: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw which transitions `start:stop` of an episode to train on, at most `context_length`.

    A longer episode is cut by a window whose start is uniform in [-c+1, T-1], clipped to the episode: each
    transition lies in exactly c of the T+c-1 windows, so that ends are not under-sampled.
    """
    if num_transitions <= context_length:
        return 0, num_transitions
    start = int(rng.integers(1 - context_length, num_transitions))
    return max(start, 0), min(start + context_length, num_transitions)
