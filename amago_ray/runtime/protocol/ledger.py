"""`Ledger`: totals of the run, from what every process says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from amago_ray.data.episode import PolicyVersion
from amago_ray.runtime.protocol.runner_ledger import RunnerLedger, RunnerLedgerState

Totals = Mapping[str, float]
"""Numbers by name that only grow while a process lives."""

RUNNERS = "env_runner"
"""The role of which there are many: its totals are kept in columns."""


class Reporter(NamedTuple):
    """Who reports: one process of a role. A process that takes another's place has a higher incarnation."""

    role: str
    number: int
    incarnation: int


@dataclass(frozen=True)
class LedgerState:
    """What a ledger goes on from.

    base: sums by role of all that is not in `reported`. reported: totals of the newest process in each place. runners:
    those of env runners, whose `base` is in it; None before the first ledger. learner: how far it is.
    """

    base: Mapping[str, Totals] = field(default_factory=dict)
    reported: Mapping[Reporter, Totals] = field(default_factory=dict)
    runners: RunnerLedgerState | None = None
    learner: PolicyVersion = field(default_factory=lambda: PolicyVersion(-1, 0))


class Ledger:
    """Sums by role, monotone: a report that is lost, comes twice, late or in another order does no harm.

    Invariant: the sum of a name over a role is its base and, for each process ever heard, the most it said while it was
    the newest in its place. So what is remembered grows with the places, not with the processes.
    """

    def __init__(self, state: LedgerState) -> None:
        self._base = {role: Counter(totals) for role, totals in state.base.items()}
        self._reported: dict[tuple[str, int], tuple[int, Counter[str]]] = {}
        self._sums = {role: Counter(totals) for role, totals in state.base.items()}
        self._learner = state.learner
        self.runners = RunnerLedger(state.base.get(RUNNERS, {}), state.runners)
        """Totals of env runners."""
        for reporter, totals in state.reported.items():
            self.report(reporter, totals)

    def report(self, reporter: Reporter, totals: Totals) -> Totals:
        """Take in a process's totals; returns what of them is new, by name."""
        role, number, incarnation = reporter
        newest, known = self._reported.get((role, number), (incarnation, Counter[str]()))
        if incarnation < newest:
            return {}
        if incarnation > newest:
            self._base.setdefault(role, Counter()).update(known)
            known = Counter()
        self._reported[role, number] = incarnation, known
        new = {name: total - known[name] for name, total in totals.items() if total > known[name]}
        known.update(new)
        self._sums.setdefault(role, Counter()).update(new)
        return new

    def sums(self, role: str) -> Totals:
        """Totals over all processes of a role, dead ones and earlier sessions included; 0 for names never heard."""
        return self.runners.sums() if role == RUNNERS else self._sums.get(role, Counter())

    def total(self, role: str, name: str) -> int:
        """One count among `sums`."""
        return int(self.sums(role).get(name, 0))

    def totals(self) -> dict[str, dict[str, float]]:
        """`sums` of every role, as plain data: the base of a later session's ledger."""
        roles = {*self._sums, RUNNERS}
        return {role: {name: float(total) for name, total in self.sums(role).items()} for role in sorted(roles)}

    @property
    def learner_steps(self) -> int:
        """Updates in the newest learner: one that starts again counts on from its checkpoint."""
        return self._learner.learner_steps

    def take_learner(self, version: PolicyVersion) -> bool:
        """Take in how far a learner is; whether it is another one than before."""
        is_another = version.incarnation > self._learner.incarnation >= 0
        self._learner = max(self._learner, version)
        return is_another

    def is_newest_learner(self, version: PolicyVersion) -> bool:
        """Whether no learner of a higher incarnation has been heard."""
        return version.incarnation >= self._learner.incarnation

    def state(self) -> LedgerState:
        """What another ledger goes on from, as plain data."""
        return LedgerState(
            base={role: dict(totals) for role, totals in self._base.items()},
            reported={
                Reporter(*place, incarnation): dict(totals) for place, (incarnation, totals) in self._reported.items()
            },
            runners=self.runners.state(),
            learner=self._learner,
        )
