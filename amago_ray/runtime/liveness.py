"""`Liveness`: when each process was heard last."""

from __future__ import annotations

from collections.abc import Mapping


class Liveness:
    """The age of each process's last beat. A process that takes another's place takes over its name, and its age."""

    def __init__(self) -> None:
        self._heard_at_s: dict[str, float] = {}

    def heard(self, name: str, now_s: float) -> None:
        """A process has just spoken."""
        self._heard_at_s[name] = now_s

    def ages_s(self, now_s: float) -> Mapping[str, float]:
        """Seconds since each process spoke last."""
        return {name: now_s - heard_at_s for name, heard_at_s in self._heard_at_s.items()}
