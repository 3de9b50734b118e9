"""Signals that ask a run to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from amago_ray.envs.foreign import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[Callable[[str], None]], None]]:
    """Yields what takes the `request_stop` that the first Ctrl-C, SIGTERM or SIGHUP calls; the second ends at once.

    Before it is given, already the first ends at once: by KeyboardInterrupt, so that everything is released. A hangup
    that is ignored, as by nohup, stays ignored.
    """
    requests: list[Callable[[str], None]] = []
    is_asked = False
    if threading.current_thread() is not threading.main_thread():
        yield requests.append
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    if before[signal.SIGHUP] is signal.SIG_IGN:
        del before[signal.SIGHUP]

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal is_asked
        if not requests or is_asked:
            raise Interrupted
        is_asked = True
        requests[-1]("stopped by the user")

    for number in before:
        signal.signal(number, ask)
    try:
        yield requests.append
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
