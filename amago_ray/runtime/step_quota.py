"""`StepQuota`: shares out the env steps that are left before the run's last."""

from __future__ import annotations

from typing import NamedTuple


class _Grant(NamedTuple):
    incarnation: int
    made: int
    allowed: int

    @property
    def outstanding(self) -> int:
        """Env steps granted and not made yet."""
        return self.allowed - self.made


class StepQuota:
    """Tells each env runner how many env steps it may make, so that all together end at `limit`.

    Invariant: steps reported and those granted but not reported yet are never more than `limit`. A runner takes whole
    vector steps while it may make one more env step, so the run ends less than one vector step per runner beyond it.
    Grants shrink with what is left: far from the limit nobody waits for one.
    """

    def __init__(self, limit: int | None, *, step_size: int) -> None:
        """limit: the run's env steps, None for any number. step_size: E, those of one vector step."""
        self._limit = limit
        self._step_size = step_size
        self._grants: dict[int, _Grant] = {}
        self._num_outstanding = 0

    def allow(self, runner: int, incarnation: int, made: int, total: int) -> int | None:
        """How many env steps this incarnation, which has made `made` of the run's `total`, may make in all."""
        if self._limit is None:
            return None
        before = self._grants.get(runner)
        allowed = made
        if before is not None:
            if incarnation < before.incarnation:
                return made
            self._num_outstanding -= before.outstanding
            # What was granted to a former incarnation is free again.
            if incarnation == before.incarnation:
                made = max(made, before.made)
                allowed = max(made, before.allowed)
        free = self._limit - total - self._num_outstanding - (allowed - made)
        wanted = max(free // (2 * (len(self._grants) + (before is None))), self._step_size)
        allowed += max(min(wanted - (allowed - made), free), 0)
        self._grants[runner] = _Grant(incarnation, made, allowed)
        self._num_outstanding += allowed - made
        return allowed
