"""`Pace`: how often env runners beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amago_ray.runtime.runner_rows import with_rows_for

if TYPE_CHECKING:
    from jaxtyping import Int

MOST_BEATS_PER_S = 300
"""Calls that an actor takes from all who beat: one costs it 0.6 ms."""


class Pace:
    """Tells callers when to beat again, so that all of them together beat at most `MOST_BEATS_PER_S` times a second."""

    def __init__(self) -> None:
        self._is_here = np.zeros(0, np.bool_)

    def heard(self, runners: Int[np.ndarray, " R"]) -> None:
        """Env runners have just spoken."""
        self._is_here = with_rows_for(runners, self._is_here, False)
        self._is_here[runners] = True

    def gone(self, runner: int) -> None:
        """An env runner has left."""
        if runner < len(self._is_here):
            self._is_here[runner] = False

    def runner_in_s(self) -> float:
        """Seconds from one beat of an env runner to its next, at least."""
        return int(self._is_here.sum()) / MOST_BEATS_PER_S
