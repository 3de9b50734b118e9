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

    A thread cannot be ended from outside: after a `HungError` the watchdog is spent, its thread and what it holds are
    left behind, and a new one is needed. Code that blocks while holding the interpreter's lock cannot be noticed.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[bool, Any]] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True, name="env-watchdog").start()

    def call(self, function: Callable[[], _Result]) -> _Result:
        """The function's result, or its exception.

        Raises:
            HungError: it did not return within `timeout_s`.
        """
        self._calls.put(function)
        try:
            good, result = self._results.get(timeout=self._timeout_s)
        except Empty:
            raise HungError(f"no answer within {self._timeout_s} s") from None
        if not good:
            raise cast(BaseException, result)
        return cast(_Result, result)

    def close(self) -> None:
        """Let the thread end after the call it is in."""
        self._calls.put(None)

    def _run(self) -> None:
        while (function := self._calls.get()) is not None:
            try:
                self._results.put((True, function()))
            except BaseException as error:  # handed to the caller, whatever it is
                self._results.put((False, error))
