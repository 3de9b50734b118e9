"""`NodeWatch`: which nodes are to be taken away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

_LONGEST_ANSWER_S = 1.0


class NodeWatch:
    """Asks again and again, in a thread of its own: whoever wants to know never waits for an answer."""

    def __init__(self, ask: Callable[[], Collection[str]], interval_s: float = 2.0) -> None:
        """ask: the ids of the nodes that are draining."""
        self._ask = ask
        self._interval_s = interval_s
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node watch", daemon=True)
        self.draining: Collection[str] = ()
        """Ids of nodes that are to be taken away, as of the last answer."""

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """Ask no more; an answer that is under way is waited for, but not for long."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(_LONGEST_ANSWER_S)

    def _run(self) -> None:
        while not self._closed.wait(self._interval_s):
            try:
                self.draining = self._ask()
            except Exception:
                # Ray does not answer, which others notice: what was known stays.
                continue
