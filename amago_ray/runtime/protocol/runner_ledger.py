"""`RunnerLedger`: totals of all env runners, from what each says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from amago_ray.runtime.protocol.runner_rows import with_rows_for

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


class RunnerTotals(NamedTuple):
    """What an env runner counts since its process started.

    episodes: finished; `stored_episodes` of them are acknowledged by replay. dropped_episodes: partial ones, lost to
    failures of environments; abandoned_episodes: partial ones, of runners that ended. Seconds are those of the parts of
    `telemetry.bottleneck`.
    """

    env_steps: int = 0
    episodes: int = 0
    stored_episodes: int = 0
    dropped_episodes: int = 0
    abandoned_episodes: int = 0
    env_failures: int = 0
    isolated_envs: int = 0
    acting_s: float = 0.0
    environment_s: float = 0.0
    replay_s: float = 0.0
    """Encoding and handing over episodes, waiting for acknowledgements."""
    broadcast_s: float = 0.0
    """Taking new weights."""
    governor_s: float = 0.0
    """Paused."""


_NAMES = RunnerTotals._fields


@dataclass(frozen=True)
class RunnerLedgerState:
    """What another ledger goes on from: rows by runner's number, and the sums over all who ever reported."""

    incarnations: Int[np.ndarray, " N"]
    is_here: Bool[np.ndarray, " N"]
    totals: Float[np.ndarray, "N _"]
    sums: Float[np.ndarray, " _"]


class News(NamedTuple):
    """What a report changed, for each of its R runners.

    new: what of its totals is new. is_late: it is of an incarnation whose place is another's by now, or nobody's; it
    counts for nothing. is_another: it is the first report of an incarnation.
    """

    new: Float[np.ndarray, "R _"]
    is_late: Bool[np.ndarray, " R"]
    is_another: Bool[np.ndarray, " R"]


class RunnerLedger:
    """Sums over env runners, monotone: a report that is lost, comes twice, late or in another order does no harm.

    Invariant: each sum is what it began with, and for each incarnation heard the most that it said while it was the
    newest of its runner.
    """

    def __init__(self, base: Mapping[str, float], state: RunnerLedgerState | None = None) -> None:
        """base: sums of earlier sessions, by the names of `RunnerTotals`. state: of a ledger to go on from instead."""
        if state is None:
            none = np.zeros(0, np.int64)
            state = RunnerLedgerState(
                incarnations=none,
                is_here=none.astype(np.bool_),
                totals=np.zeros((0, len(_NAMES))),
                sums=np.array([base.get(name, 0.0) for name in _NAMES]),
            )
        # Copies: what comes from Ray's object store cannot be written to.
        self._incarnations = state.incarnations.copy()
        """A report of a lower one is late; -1 before the first report."""
        self._is_here = state.is_here.copy()
        self._totals = state.totals.copy()
        self._sums = state.sums.copy()

    def report(
        self,
        runners: Int[np.ndarray, " R"],
        incarnations: Int[np.ndarray, " R"],
        totals: Float[np.ndarray, "R _"],
    ) -> News:
        """Take in the totals of different runners, in columns of `RunnerTotals`."""
        self._incarnations = with_rows_for(runners, self._incarnations, -1)
        self._is_here = with_rows_for(runners, self._is_here, False)
        self._totals = with_rows_for(runners, self._totals, 0)
        known = self._incarnations[runners]
        is_late = incarnations < known
        is_another = ~is_late & ((incarnations > known) | ~self._is_here[runners])
        # What a former incarnation said stays in the sums.
        self._totals[runners[is_another]] = 0
        self._incarnations[runners] = np.maximum(incarnations, known)
        self._is_here[runners[~is_late]] = True
        new = np.where(is_late[:, None], 0, np.maximum(totals - self._totals[runners], 0))
        self._totals[runners] += new
        self._sums += new.sum(0)
        return News(new, is_late, is_another)

    def gone(self, runner: int, incarnation: int) -> bool:
        """An incarnation has left: further reports of it are late. Whether no newer one had taken its place."""
        rows = np.array([runner])
        self.report(rows, np.array([incarnation]), np.zeros((1, len(_NAMES))))
        if self._incarnations[runner] != incarnation:
            return False
        self._incarnations[runner] += 1
        self._is_here[runner] = False
        return True

    @property
    def num_runners(self) -> int:
        """Runners that have reported and not left."""
        return int(self._is_here.sum())

    def sums(self) -> Mapping[str, float]:
        """Totals over all incarnations of all runners, and earlier sessions."""
        return dict(zip(_NAMES, self._sums.tolist(), strict=True))

    def state(self) -> RunnerLedgerState:
        """What another ledger goes on from."""
        return RunnerLedgerState(
            self._incarnations.copy(), self._is_here.copy(), self._totals.copy(), self._sums.copy()
        )
