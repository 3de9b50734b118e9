"""What a shard says about itself: plain numbers, ready for metrics and for the governor."""

from __future__ import annotations

from dataclasses import dataclass


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
    """The state of a shard; counts without "stored" only grow."""

    stored_episodes: int
    stored_transitions: int
    stored_bytes: int
    inserted_episodes: int
    """Episodes ever stored in this directory, over reopenings."""
    inserted_transitions: int
    """Transitions ever stored in this directory, over reopenings."""
    evicted_episodes: int
    evicted_transitions: int
    num_duplicates: int
    """Episodes that came again and were ignored."""
    damaged_episodes: int
    """Episodes that were passed over when the directory was opened, as they are not what was stored."""
    torn_bytes: int
    """Bytes of half-written episodes that were cut when the directory was opened."""
    num_samples: int
    """Sequences drawn."""
    num_relabeled: int
    """Sequences drawn that hindsight changed."""
    sampled_transitions: int
    """Transitions drawn, after relabeling and slicing."""
