"""What a shard says about itself: plain numbers, ready for metrics and for the governor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class AddReport:
    """The reply to one add."""

    num_episodes: int
    """Episodes stored by this add."""
    num_transitions: int
    """Transitions stored by this add."""
    num_duplicates: int
    """Episodes of this add that were stored already, and ignored."""
    stored_transitions: int
    """Transitions in the shard now."""
    inserted_transitions: int
    """Transitions ever stored in this directory."""


@dataclass(frozen=True)
class ShardReport:
    """The state of a shard; counts without "stored" only grow.

    Invariant, in episodes and in transitions: inserted = stored + evicted + deleted + damaged.
    """

    stored_episodes: int
    stored_transitions: int
    stored_bytes: int
    inserted_episodes: int
    """Episodes ever stored in this directory, over reopenings."""
    inserted_transitions: int
    """Transitions ever stored in this directory, over reopenings."""
    evicted_episodes: int
    """Those that had to make room."""
    evicted_transitions: int
    deleted_episodes: int
    """Those that are lost as others deleted their files."""
    deleted_transitions: int
    damaged_episodes: int
    """Those that are lost as their files are cut short or hold something else than was stored."""
    damaged_transitions: int
    num_duplicates: int
    """Episodes that came again and were ignored."""
    torn_bytes: int
    """Bytes of half-written episodes that were cut when the directory was opened."""
    num_samples: int
    """Sequences drawn."""
    num_relabeled: int
    """Sequences drawn that hindsight changed."""
    sampled_transitions: int
    """Transitions drawn, after relabeling and slicing."""
    returned_episodes: int = 0
    """Those among the inserted that were stored before in other files of this shard, since the shard was opened."""
    returned_transitions: int = 0
    num_warnings: int = 0
    """Lines about losses and a full disk since the shard was opened."""
    warnings: Sequence[str] = ()
    """The newest of them."""
    is_full: bool = False
    """Whether the disk had no room for the newest group."""

    def warnings_after(self, num_known: int) -> Sequence[str]:
        """The lines after the first `num_known`, as far as they are here."""
        num_new = self.num_warnings - num_known
        return self.warnings[-num_new:] if num_new > 0 else ()


class ShardCounts(NamedTuple):
    """What of a shard is still counted when its files are gone."""

    inserted_episodes: int = 0
    inserted_transitions: int = 0
    stored_episodes: int = 0
    stored_transitions: int = 0
    evicted_episodes: int = 0
    deleted_episodes: int = 0
    deleted_transitions: int = 0
    damaged_episodes: int = 0
    damaged_transitions: int = 0

    @classmethod
    def of(cls, report: ShardReport) -> ShardCounts:
        """Those of a shard's state."""
        return cls(*(getattr(report, name) for name in cls._fields))
