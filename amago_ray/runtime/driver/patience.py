"""`Patience`: how long the driver may wait for an answer."""

from __future__ import annotations

from collections.abc import Callable


class Patience:
    """As long as is wanted, until everything has to end: then all waiting together takes at most a given time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """clock: seconds that never go back."""
        self._clock = clock
        self._end_at_s: float | None = None

    @property
    def is_ending(self) -> bool:
        """Whether the time is limited."""
        return self._end_at_s is not None

    def end_within(self, time_s: float) -> None:
        """From now on, nobody waits beyond that; a second limit counts where it is the earlier one."""
        end_at_s = self._clock() + time_s
        self._end_at_s = end_at_s if self._end_at_s is None else min(end_at_s, self._end_at_s)

    def s(self, wanted_s: float, *, share: float = 1 / 3) -> float:
        """Seconds to wait where `wanted_s` would be fine; at the end, a share of what is left, as others wait, too."""
        if self._end_at_s is None:
            return wanted_s
        return min(wanted_s, share * max(self._end_at_s - self._clock(), 0.0))
