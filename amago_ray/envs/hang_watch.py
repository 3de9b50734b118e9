"""`HangWatch`: interrupts calls of foreign code that take too long."""

from __future__ import annotations

import signal
import threading
import time
import weakref
from types import FrameType
from typing import Any, ClassVar

# By default no process ends of it, and nobody sends it: a signal that comes when nothing is to be interrupted is lost.
_SIGNAL = signal.SIGURG
_LONGEST_SLEEP_S = 1.0

_watches: weakref.WeakSet[HangWatch] = weakref.WeakSet()


class HungError(BaseException):
    """A call took too long. No Exception, so that foreign code which catches all of these does not go on with it."""


class HangWatch:
    """Watches calls that are made one after the other in the main thread, and interrupts one that takes too long.

    The call runs in its caller's thread, and ends as by Ctrl-C, but with a `HungError`; around it are two assignments.
    What Ctrl-C would not end, as native code that does not return, is told by `hung_call` as soon as the interrupt has
    not been heeded for as long again. In other threads nothing can be interrupted, only told.
    """

    _handler_before: ClassVar[Any] = signal.SIG_DFL

    def __init__(self, what: str, timeout_s: float) -> None:
        """what: names the calls, for people."""
        self.timeout_s = timeout_s
        self.call = 0
        """Of the call that runs, or ran last: the caller counts them."""
        self.is_inside = False
        """Whether it runs."""
        self.hung: str | None = None
        """What does not heed its interrupt."""
        self._what = what
        self._wanted, self._seen, self._since_s = 0, -1, 0.0
        self._is_in_main = threading.current_thread() is threading.main_thread()
        self._done = threading.Event()
        if self._is_in_main and signal.getsignal(_SIGNAL) is not _interrupt:
            HangWatch._handler_before = signal.signal(_SIGNAL, _interrupt)
        _watches.add(self)
        # Its thread ends with a watch that was forgotten, too.
        threading.Thread(
            target=_run, args=(weakref.ref(self), timeout_s, self._done), name="hang-watch", daemon=True
        ).start()

    def close(self) -> None:
        """Watch no more; calling it twice is fine."""
        self._done.set()
        self.hung = None
        _watches.discard(self)
        if self._is_in_main and not _watches and signal.getsignal(_SIGNAL) is _interrupt:
            signal.signal(_SIGNAL, HangWatch._handler_before or signal.SIG_DFL)

    def must_end(self) -> bool:
        """Whether the call that runs has been told to end."""
        return self.is_inside and self.call == self._wanted

    def error(self) -> HungError:
        """What ends it."""
        return HungError(f"no answer within {self.timeout_s:g} s")

    def look(self, now_s: float) -> None:
        """Interrupt the call that runs, if it has been seen running for too long."""
        if not self.is_inside or self.call != self._seen:
            self._seen, self._since_s = self.call, now_s
            self.hung = None
            return
        busy_s = now_s - self._since_s
        if busy_s < self.timeout_s:
            return
        self._wanted = self._seen
        if self._is_in_main:
            signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
        if busy_s >= 2 * self.timeout_s:
            self.hung = f"{self._what} has taken {busy_s:.0f} s and cannot be interrupted"


def _run(watch: weakref.ref[HangWatch], timeout_s: float, done: threading.Event) -> None:
    while not done.wait(min(timeout_s / 4, _LONGEST_SLEEP_S)):
        alive = watch()
        if alive is None:
            return
        alive.look(time.monotonic())
        del alive


def hung_call() -> str | None:
    """What in this process does not end though it was told to; None where all is well."""
    return next((watch.hung for watch in list(_watches) if watch.hung is not None), None)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Python calls this in the main thread, between two steps of whatever runs there."""
    for watch in list(_watches):
        if watch.must_end():
            raise watch.error()
