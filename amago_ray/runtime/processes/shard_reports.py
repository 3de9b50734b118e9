"""`ShardReports`: a replay shard's counts on their way to the control actor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from amago_ray.runtime.protocol.messages import ShardBeat

_PAUSE_S = 0.5


class ShardReports:
    """Sends the newest counts when they have changed, one message at a time and as seldom as the last answer asks.

    Episodes may come hundreds of times a second; what counts is the newest totals, and that the last ones arrive.
    """

    def __init__(self, send: Callable[[ShardBeat], float | None], sleep: Callable[[float], None] = time.sleep) -> None:
        """send: returns, when the message has arrived, the seconds after which to send the next one; None where that is
        not known, and it is sent again.
        """
        self._send = send
        self._sleep = sleep
        self._newest: ShardBeat | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="shard reports", daemon=True).start()

    def put(self, beat: ShardBeat) -> None:
        """These are the counts now."""
        with self._changed:
            self._newest = beat
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None)
                beat, self._newest = self._newest, None
            assert beat is not None
            pause_s = self._send(beat)
            if pause_s is None:
                with self._changed:
                    self._newest = self._newest or beat
            self._sleep(_PAUSE_S if pause_s is None else pause_s)
