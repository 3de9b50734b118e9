"""Signals that ask a run to end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_on_interrupt(request_stop: Callable[[str], None]) -> Iterator[None]:
    """The first Ctrl-C (or SIGTERM) calls `request_stop` with the reason, the second interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        request_stop("stopped by the user")
        for each, handler in before.items():
            # A shell's background job ignores Ctrl-C: who has sent one signal to it means the second one, too.
            signal.signal(each, signal.default_int_handler if handler is signal.SIG_IGN else handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
