"""What a directory's segments hold, compared with what its inventory says was accepted into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from itertools import pairwise
from typing import NamedTuple

from amago_ray.replay.inventory import Cause, Count, Entry, Inventory
from amago_ray.replay.segment import Segment


class Loss(NamedTuple):
    """So much of a segment is lost."""

    sequence: int
    cause: Cause
    lost: Count


def audit(inventory: Inventory, segments: Mapping[int, Segment], damaged: Set[int]) -> Iterator[Loss]:
    """Bring an inventory up to date with segments that have been scanned, oldest first; yields what is lost since.

    damaged: segments that are there and cannot be read at all.

    Raises:
        OSError: the inventory cannot be written.
    """
    if not segments and not inventory.is_found:
        return
    if not inventory.is_found:
        _count_from_headers(inventory, segments)
    # What was evicted and not deleted yet is in use again.
    inventory.evict_to(min([inventory.first, *segments]))
    live = inventory.live
    for sequence in sorted({*live, *segments}):
        expected, there, segment = live.get(sequence, Entry()).stored, Count(), segments.get(sequence)
        if segment is not None:
            there = _held(segment)
            if expected == there + segment.repeated:
                # Those are accepted where they were found first.
                inventory.accept(sequence, there - expected)
                expected = there
        if there.episodes < expected.episodes or there.transitions < expected.transitions:
            cause: Cause = "deleted" if segment is None and sequence not in damaged else "damaged"
            inventory.lose(sequence, cause, expected - there)
            yield Loss(sequence, cause, expected - there)
        elif there != expected:
            # Appended by a process that was killed before it could say so.
            inventory.accept(sequence, there - expected)


def _held(segment: Segment) -> Count:
    return Count(segment.num_episodes, segment.num_transitions)


def _count_from_headers(inventory: Inventory, segments: Mapping[int, Segment]) -> None:
    """Without an inventory: headers say what had been inserted into the directory before their segments."""
    before = {
        sequence: Count(segment.inserted_episodes_before, segment.inserted_transitions_before)
        for sequence, segment in segments.items()
    }
    oldest, newest = min(segments), max(segments)
    if oldest > 0:
        inventory.accept(oldest - 1, before[oldest])
        inventory.evict_to(oldest)
    for sequence, following in pairwise(sorted(segments)):
        accepted = before[following] - before[sequence]
        if following > sequence + 1:
            # What is missing was in those between.
            held = _held(segments[sequence])
            inventory.accept(sequence + 1, accepted - held)
            accepted = held
        inventory.accept(sequence, accepted)
    inventory.accept(newest, _held(segments[newest]))
