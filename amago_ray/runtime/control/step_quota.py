"""`StepQuota`: shares out the env steps that are left before the run's last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amago_ray.runtime.protocol.runner_rows import with_rows_for

if TYPE_CHECKING:
    from jaxtyping import Int


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
        self._made = np.zeros(0, np.int64)
        """-1 where there is no runner."""
        self._allowed = np.zeros(0, np.int64)

    def allow(
        self, runners: Int[np.ndarray, " R"], made: Int[np.ndarray, " R"], total: int
    ) -> Int[np.ndarray, " R"] | None:
        """How many env steps each of the runners, which have made `made` of the run's `total`, may make in all."""
        if self._limit is None:
            return None
        self._made = with_rows_for(runners, self._made, -1)
        self._allowed = with_rows_for(runners, self._allowed, -1)
        self._made[runners] = made = np.maximum(made, self._made[runners])
        allowed: np.ndarray = np.maximum(made, self._allowed[runners])
        self._allowed[runners] = allowed
        free = max(self._limit - total - int((self._allowed - self._made).sum()), 0)
        share = max(free // (2 * int((self._made >= 0).sum())), self._step_size)
        wanted = np.maximum(share - (allowed - made), 0)
        # The last ones go to those who come first.
        allowed = allowed + np.diff(np.minimum(wanted.cumsum(), free), prepend=0)
        self._allowed[runners] = allowed
        return allowed

    def free(self, runners: Int[np.ndarray, " R"]) -> None:
        """What these were granted and have not reported is there for others: their processes are gone."""
        if self._limit is not None:
            self._made = with_rows_for(runners, self._made, -1)
            self._allowed = with_rows_for(runners, self._allowed, -1)
            self._made[runners] = self._allowed[runners] = -1
