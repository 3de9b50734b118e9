"""Which part limits a run and by how much, from the time that its processes worked, waited for others, and paused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

PARTS = ("acting", "environment", "replay", "learner", "broadcast", "governor")

Side = Mapping[str, float]
"""Shares (0..1) of the time of the processes that do the same work, for each of `PARTS` that they spend time on.

acting, environment, learner: at work in it; replay, broadcast: storing, drawing, handing over or taking weights, and
waiting for that; governor: waiting until the other side has caught up.
"""

_ADVICE = {
    "acting": "more env runners, or more environments in each",
    "environment": "more env runners, or a faster environment",
    "replay": "more replay shards",
    "learner": "a smaller model, a GPU, or a lower replay.samples_per_insert",
    "broadcast": "a longer learner.broadcast_interval",
    "governor": "a larger replay.samples_per_insert_tolerance",
}

_CLEAR_SHARE = 0.5
_CLEAR_SPEEDUP = 1.25
"""Below both, nothing is said to limit the run: it waits for something that is not measured."""
_LARGEST_SPEEDUP = 100.0
"""What lies beyond says only that the rest could not be measured."""


@dataclass(frozen=True)
class Verdict:
    """What limits the run.

    part: one of `PARTS`, or None where nothing clearly does. share: of the time, 0..1, that this part takes on its
    side. speedup: how many times faster the run could go if the part took no time. shares, speedups: of every part.
    """

    part: str | None
    share: float = 0.0
    speedup: float = 1.0
    shares: Mapping[str, float] = field(default_factory=dict)
    speedups: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line for people."""
        if self.part is None:
            return "nothing clearly limits the run"
        limit = f"{self.part} limits: {self.share:.0%} of the time"
        if self.speedup < 1.05:
            return f"{limit}, as much as the other side"
        gain = "over 10x" if self.speedup > 10 else f"up to {self.speedup:.1f}x"
        return f"{limit}, {gain} to gain by {_ADVICE[self.part]}"

    def metrics(self) -> dict[str, float]:
        """`bottleneck/<part>_share` and `bottleneck/<part>_speedup` of every part."""
        shares = {f"bottleneck/{part}_share": share for part, share in self.shares.items()}
        return shares | {f"bottleneck/{part}_speedup": speedup for part, speedup in self.speedups.items()}


def verdict(sides: Sequence[Side]) -> Verdict:
    """Name the part without which the run would be fastest; of parts that gain alike, the one that takes most time.

    The sides of a run (env runners and learner) work at the same time and wait for each other through the governor.
    So in each second of the run a side needs the time in which it did not wait for the governor, and the run goes at
    the pace of the side that needs most: waiting for that side is normal. What even that side waited is what the
    governor costs. Without a part, each side needs that part's share less; without the governor, the run would go
    at the pace of the busiest side without pauses.
    """
    cut = [{part: min(max(side.get(part, 0.0), 0.0), 1.0) for part in PARTS} for side in sides]
    lost = min((side["governor"] for side in cut), default=0.0)

    def time_without(part: str) -> float:
        if part == "governor":
            return 1.0 - lost
        return lost + max((max(1.0 - side["governor"] - side[part], 0.0) for side in cut), default=1.0)

    shares = {part: max((side[part] for side in cut), default=0.0) for part in PARTS} | {"governor": lost}
    speedups = {part: min(1.0 / max(time_without(part), 1e-9), _LARGEST_SPEEDUP) for part in PARTS}
    part = max(PARTS, key=lambda part: (round(speedups[part], 2), shares[part]))
    if shares[part] < _CLEAR_SHARE and speedups[part] < _CLEAR_SPEEDUP:
        return Verdict(None, shares=shares, speedups=speedups)
    return Verdict(part, shares[part], speedups[part], shares, speedups)
