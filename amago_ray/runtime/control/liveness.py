"""`Liveness`: when each process was heard last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amago_ray.runtime.protocol.runner_rows import with_rows_for

if TYPE_CHECKING:
    from jaxtyping import Int


class Liveness:
    """The age of the oldest beat: pulses go on in a process whose work has come to a standstill, beats do not.

    A process that takes another's place takes over its name, and its age.
    """

    def __init__(self) -> None:
        self._heard_at_s: dict[str, float] = {}
        self._runners_heard_at_s = np.zeros(0)
        """NaN where there is no runner."""

    def heard(self, name: str, now_s: float) -> None:
        """A process has just spoken."""
        self._heard_at_s[name] = now_s

    def heard_runners(self, runners: Int[np.ndarray, " R"], now_s: float) -> None:
        """Env runners have just spoken."""
        self._runners_heard_at_s = with_rows_for(runners, self._runners_heard_at_s, np.nan)
        self._runners_heard_at_s[runners] = now_s

    def gone(self, runner: int) -> None:
        """An env runner has left."""
        if runner < len(self._runners_heard_at_s):
            self._runners_heard_at_s[runner] = np.nan

    def oldest_s(self, now_s: float) -> float:
        """Seconds since that process spoke which has been silent for longest; 0 where nobody spoke."""
        first_heard_at_s = min(self._heard_at_s.values(), default=now_s)
        return max(now_s - first_heard_at_s, float(np.fmax.reduce(now_s - self._runners_heard_at_s, initial=0.0)))
