"""The books of a run that is over: what env runners were told is stored, beside what is on the disk."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.stored import stored_episodes

LOSSES = ("replay/damaged_episodes", "replay/deleted_episodes", "replay/lost_with_nodes_episodes")
"""Counts of acknowledged episodes that are lost, each by its name."""

GROWING = (
    "env_steps",
    "episodes",
    "rollout/stored_episodes",
    "rollout/dropped_episodes",
    "replay/inserted_timesteps",
    "replay/evicted_episodes",
    "replay/duplicate_episodes",
    "replay/torn_bytes",
    "replay/returned_episodes",
    *LOSSES,
)
"""Counts that never fall, whatever dies."""

UNSAID = 48
"""Of an env runner: groups of 8 episodes, 4 unacknowledged, one being sent, one acknowledged since its last beat."""


@dataclass(frozen=True)
class Books:
    """Episodes of a run. acknowledged: as its env runners said, those that died up to their last beat.

    lost: by name, without those that came back with their nodes.
    """

    acknowledged: int
    stored: int
    evicted: int
    lost: int

    def check(self, *, num_silent_runners: int = 0) -> None:
        """See that acknowledged = stored + evicted + lost by name.

        num_silent_runners: those that could not say at their end what had been acknowledged: they died, or the run was
        interrupted. Each leaves up to `UNSAID` stored episodes that nobody counted.
        """
        unsaid = self.stored + self.evicted + self.lost - self.acknowledged
        assert 0 <= unsaid <= num_silent_runners * UNSAID, f"{self}: {unsaid} stored and not acknowledged"


def close_books(replay: Path | Sequence[Path], reports: list[dict[str, float]]) -> Books:
    """The books of a run that has ended, from its shards' directories, on one disk or several, and its reports.

    Sees on the way that no episode is stored twice, and that no count ever fell.
    """
    check_counts(reports)
    last: dict[str, float] = {}
    for report in reports:
        last |= report
    ids = [each for disk in ([replay] if isinstance(replay, Path) else replay) for each in stored_episodes(disk)]
    twice = [each for each, count in Counter(ids).items() if count > 1]
    assert not twice, f"stored twice: {twice[:5]}"
    return Books(
        acknowledged=int(last["rollout/stored_episodes"]),
        stored=len(ids),
        evicted=int(last["replay/evicted_episodes"]),
        lost=int(sum(last.get(name, 0) for name in LOSSES) - last.get("replay/returned_episodes", 0)),
    )


def check_counts(reports: list[dict[str, float]]) -> None:
    """See that no count ever fell."""
    for name in GROWING:
        counts = [report[name] for report in reports if name in report]
        falls = [pair for pair in itertools.pairwise(counts) if pair[1] < pair[0]]
        assert not falls, f"{name} fell: {falls[:3]}"
