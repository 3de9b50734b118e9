"""Medians, spreads and ratios of repetitions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """The middle and the ends of some repetitions."""

    median: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """From the lowest to the highest, as a share of the median."""
        return (self.high - self.low) / self.median


def summarize(values: Sequence[float]) -> Summary | None:
    """None where there are no values."""
    if not values:
        return None
    return Summary(statistics.median(values), min(values), max(values), len(values))


def advantage(ours: Sequence[float], theirs: Sequence[float], *, more_is_better: bool) -> Summary | None:
    """How many times better ours is, repetition by repetition: neighbours in time saw the same load."""
    pairs = zip(ours, theirs, strict=False)
    return summarize([mine / other if more_is_better else other / mine for mine, other in pairs])
