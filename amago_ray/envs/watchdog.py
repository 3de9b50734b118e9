"""`Watchdog`: calls functions in a thread of its own and gives up on those that take too long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar, cast

_Result = TypeVar("_Result")


class HungError(Exception):
    """A call did not return in time."""


class Watchdog:
    """Runs calls one after the other in one daemon thread.

    A thread cannot be ended from outside: after a `HungError` the watchdog is spent and has to be left behind. Code
    that blocks while holding the interpreter's lock cannot be noticed.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True, name="env-watchdog")
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether its thread has not ended yet."""
        return self._thread.is_alive()

    def call(self, function: Callable[[], _Result], timeout_s: float | None) -> _Result:
        """The function's result, or its exception.

        Raises:
            HungError: it did not return within `timeout_s`, if that is not None.
        """
        self._calls.put(function)
        try:
            good, result = self._results.get(timeout=timeout_s)
        except Empty:
            raise HungError(f"no answer within {timeout_s} s") from None
        if not good:
            raise cast(BaseException, result)
        return cast(_Result, result)

    def leave(self) -> None:
        """Let the thread end after the call it is in."""
        self._calls.put(None)

    def _run(self) -> None:
        while (function := self._calls.get()) is not None:
            try:
                self._results.put((True, function()))
            except BaseException as error:  # handed to the caller, whatever it is
                self._results.put((False, error))
