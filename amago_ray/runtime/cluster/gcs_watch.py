"""`GcsWatch`: notices that Ray's control service is gone, before Ray ends the driver for it without a word."""

from __future__ import annotations

import socket
from collections.abc import Callable

from amago_ray.errors import ClusterError

_INTERVAL_S = 2.0
_CONNECT_TIMEOUT_S = 1.0
# Ray ends this process after 60 s; a service that is started again elsewhere needs some.
_LOST_AFTER_S = 30.0


def answers(address: str) -> bool:
    """Whether something takes connections at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


class GcsWatch:
    """Knocks at the service every few seconds."""

    def __init__(self, address: str, clock: Callable[[], float], answers: Callable[[str], bool] = answers) -> None:
        """address: host:port. clock: seconds that never go back."""
        self._address = address
        self._clock = clock
        self._answers = answers
        self._due_at_s = 0.0
        self._silent_since_s: float | None = None

    def look(self) -> str | None:
        """A warning when the service has just stopped to answer.

        Raises:
            ClusterError: it has not answered for too long.
        """
        now_s = self._clock()
        if now_s < self._due_at_s:
            return None
        self._due_at_s = now_s + _INTERVAL_S
        if self._answers(self._address):
            self._silent_since_s = None
            return None
        if self._silent_since_s is None:
            self._silent_since_s = now_s
            return f"Ray's control service at {self._address} does not answer"
        if now_s - self._silent_since_s >= _LOST_AFTER_S:
            raise ClusterError(f"Ray's control service at {self._address} has not answered for {_LOST_AFTER_S:.0f} s")
        return None
