"""Which part limits a run, from the shares of time that its parts were busy or kept others waiting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

PARTS = ("acting", "environment", "replay", "learner", "broadcast", "governor")

_ADVICE = {
    "acting": "more env runners, or more environments in each",
    "environment": "more env runners, or a faster environment",
    "replay": "more replay shards",
    "learner": "a smaller model, a GPU, or a lower replay.samples_per_insert",
    "broadcast": "a longer learner.broadcast_interval",
    "governor": "a larger replay.samples_per_insert_tolerance",
}

_CLEAR_SHARE = 0.5
"""Below this share of the time nothing is said to limit the run: its parts wait for something that is not measured."""


@dataclass(frozen=True)
class Verdict:
    """What limits the run.

    `part` is one of `PARTS`, or None where nothing clearly does. `share` is the part's share of the time, 0..1;
    `speedup` how many times faster the run could go if the part took no time, until the next one limits it.
    """

    part: str | None
    share: float = 0.0
    speedup: float = 1.0

    def __str__(self) -> str:
        """One line for people."""
        if self.part is None:
            return "nothing clearly limits the run"
        gain = "over 10x" if self.speedup > 10 else f"up to {self.speedup:.1f}x"
        return f"{self.part} limits: {self.share:.0%} of the time, {gain} to gain by {_ADVICE[self.part]}"


def verdict(waits: Mapping[str, float]) -> Verdict:
    """Name the limiting part from shares of an interval's time, each 0..1; parts not given count as 0.

    acting, environment: share of the env runners' time in the policy and in environments; learner: share of the
    learner's time in updates; replay: share of the learner's time waiting for a batch that it had credit for;
    broadcast: share of the time weights were handed over; governor: share of the time either side waited for credit.

    The rule: env runners spend their time on acting plus environment, so these two add up to one load; each of the
    others is a load of its own. Waiting for the governor is normal on the side that is ahead: only what the busier
    side does not explain counts as the governor's. The largest load limits the run; of the env runners' two parts,
    the larger one is named. Without the named part the run could go faster until the next load is the largest.
    """
    share = {part: min(max(waits.get(part, 0.0), 0.0), 1.0) for part in PARTS}
    runners = min(share["acting"] + share["environment"], 1.0)
    loads = {
        "runners": runners,
        "replay": share["replay"],
        "learner": share["learner"],
        "broadcast": share["broadcast"],
        "governor": max(0.0, share["governor"] - max(runners, share["learner"])),
    }
    limiting = max(loads, key=lambda name: loads[name])
    load = loads[limiting]
    if load < _CLEAR_SHARE:
        return Verdict(None)
    rest = max(other for name, other in loads.items() if name != limiting)
    part, own = limiting, load
    if limiting == "runners":
        part = "acting" if share["acting"] >= share["environment"] else "environment"
        own = share[part]
        rest = max(rest, runners - own)
    return Verdict(part, own, load / rest if rest > 0 else math.inf)
