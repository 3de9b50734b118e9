"""The books of a run that is over: what env runners were told is stored, beside what is on the disk."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from amago_ray.data.episode import EpisodeId
from amago_ray.replay.layout import find_segments, find_shards
from amago_ray.replay.segment import Segment

GROWING = (
    "env_steps",
    "episodes",
    "rollout/stored_episodes",
    "rollout/dropped_episodes",
    "replay/inserted_timesteps",
    "replay/evicted_episodes",
    "replay/duplicate_episodes",
    "replay/torn_bytes",
)
"""Counts that never fall, whatever dies."""

UNSAID = 48
"""Of an env runner: groups of 8 episodes, 4 unacknowledged, one being sent, one acknowledged since its last beat."""


@dataclass(frozen=True)
class Books:
    """Episodes of a run. acknowledged: as its env runners said, those that died up to their last beat."""

    acknowledged: int
    stored: int
    evicted: int

    def check(self, *, num_silent_runners: int = 0, num_named_losses: int = 0) -> None:
        """See that acknowledged = stored + evicted + named losses.

        num_silent_runners: those that could not say at their end what had been acknowledged: they died, or the run was
        interrupted. Each leaves up to `UNSAID` stored episodes that nobody counted.
        """
        unsaid = self.stored + self.evicted + num_named_losses - self.acknowledged
        assert 0 <= unsaid <= num_silent_runners * UNSAID, f"{self}: {unsaid} stored and not acknowledged"


def close_books(replay: Path, reports: list[dict[str, float]]) -> Books:
    """The books of a run that has ended, from its shards' directories and its reports.

    Sees on the way that no episode is stored twice, and that no count ever fell.
    """
    check_counts(reports)
    acknowledged = next(
        report["rollout/stored_episodes"] for report in reversed(reports) if "rollout/stored_episodes" in report
    )
    ids: list[EpisodeId] = []
    evicted = 0
    for shard in find_shards(replay):
        before = None
        for path in find_segments(shard):
            segment = Segment.open(path)
            found = [encoded.header.episode_id for encoded in segment.scan()]
            if before is None:
                evicted += segment.inserted_episodes_before
            else:
                assert segment.inserted_episodes_before == before, f"{path}: totals go on from the segment before"
            before = segment.inserted_episodes_before + len(found)
            ids += found
    twice = [each for each, count in Counter(ids).items() if count > 1]
    assert not twice, f"stored twice: {twice[:5]}"
    return Books(int(acknowledged), len(ids), evicted)


def check_counts(reports: list[dict[str, float]]) -> None:
    """See that no count ever fell."""
    for name in GROWING:
        counts = [report[name] for report in reports if name in report]
        falls = [pair for pair in itertools.pairwise(counts) if pair[1] < pair[0]]
        assert not falls, f"{name} fell: {falls[:3]}"
