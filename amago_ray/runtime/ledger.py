"""`Ledger`: totals of the run, from what every process says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from amago_ray.data.episode import PolicyVersion

Totals = Mapping[str, float]
"""Numbers by name that only grow while a process lives."""


class Reporter(NamedTuple):
    """Who reports: one process of a role. A process that takes another's place has a higher incarnation."""

    role: str
    number: int
    incarnation: int


@dataclass(frozen=True)
class LedgerState:
    """What a ledger goes on from: totals of earlier sessions by role, of every reporter of this one, learner's age."""

    base: Mapping[str, Totals] = field(default_factory=dict)
    reported: Mapping[Reporter, Totals] = field(default_factory=dict)
    learner: PolicyVersion = field(default_factory=lambda: PolicyVersion(-1, 0))


class Ledger:
    """Sums by role, monotone: a report that is lost, comes twice, late or in another order does no harm.

    Invariant: the sum of a name over a role is its base and, for each reporter ever heard, the most it has said.
    """

    def __init__(self, state: LedgerState) -> None:
        self._base = state.base
        self._reported: dict[Reporter, Counter[str]] = {}
        self._sums: dict[str, Counter[str]] = {role: Counter(totals) for role, totals in state.base.items()}
        self._learner = state.learner
        for reporter, totals in state.reported.items():
            self.report(reporter, totals)

    def report(self, reporter: Reporter, totals: Totals) -> Totals:
        """Take in a process's totals; returns what of them is new, by name."""
        known = self._reported.setdefault(reporter, Counter())
        new = {name: total - known[name] for name, total in totals.items() if total > known[name]}
        known.update(new)
        self._sums.setdefault(reporter.role, Counter()).update(new)
        return new

    def sums(self, role: str) -> Totals:
        """Totals over all processes of a role, dead ones and earlier sessions included; 0 for names never heard."""
        return self._sums.get(role, Counter())

    def total(self, role: str, name: str) -> int:
        """One count among `sums`."""
        return int(self.sums(role).get(name, 0))

    @property
    def learner_steps(self) -> int:
        """Updates in the newest learner: one that starts again counts on from its checkpoint."""
        return self._learner.learner_steps

    def take_learner(self, version: PolicyVersion) -> bool:
        """Take in how far a learner is; whether it is another one than before."""
        is_another = version.incarnation > self._learner.incarnation >= 0
        self._learner = max(self._learner, version)
        return is_another

    def state(self) -> LedgerState:
        """What another ledger goes on from, as plain data."""
        reported = {reporter: dict(totals) for reporter, totals in self._reported.items()}
        return LedgerState(self._base, reported, self._learner)
