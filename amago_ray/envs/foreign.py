"""`ForeignEnv`: the place where an environment of foreign code lives, apart from the process around it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeVar

from amago_ray.envs.hang_watch import HangWatch, HungError


class _Steps(Protocol):
    def step(self, action: Any, /) -> Any: ...


_Env = TypeVar("_Env", bound=_Steps)
_Result = TypeVar("_Result")

# What a run must go on hearing, whatever handlers an environment installs.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked to end at once; an environment's own KeyboardInterrupt is another one, and a failure."""


class ForeignEnv(Generic[_Env]):
    """Makes an environment, calls it, discards it and makes it anew.

    All of its code runs in the caller's thread, in a context of its own (NumPy's error handling and the like, which it
    may set), and in a working folder of its own (which it may change): neither is seen by the process around it. A call
    that takes longer than `watch` allows is interrupted, and counts as hung; making it may take any time.
    """

    def __init__(self, make: Callable[[], _Env], watch: HangWatch | None = None) -> None:
        """watch: one for all environments that one thread calls."""
        self._make = make
        self._watch = watch
        self._env: _Env | None = None
        self._context = Context()
        self._folder: str | None = None

    def build(self) -> _Env:
        """Make the environment, or hand out the one that is there.

        Raises:
            BaseException: whatever its code raises.
        """
        if self._env is None:
            self._context = copy_context()
            self._folder = None
            with kept_signal_handlers():
                self._env = self._guarded(self._make)
        return self._env

    def call(self, function: Callable[[_Env], _Result]) -> _Result:
        """Call the environment, which is made if need be.

        Raises:
            HungError: it took too long.
            BaseException: whatever its code raises.
        """
        return self._watched(partial(self._guarded, partial(function, self.build())))

    def step(self, action: Any) -> Any:
        """What the environment's `step` returns; if that changes the working folder, the caller has to restore it.

        One look at the folder after the steps of many environments costs next to nothing, one after each does not.

        Raises:
            HungError: it took too long.
            BaseException: whatever its code raises.
        """
        env, watch = self._env, self._watch
        if self._folder is not None or env is None:
            return self.call(lambda env: env.step(action))
        if watch is None:
            return self._context.run(env.step, action)
        watch.call += 1
        watch.is_inside = True
        try:
            return self._context.run(env.step, action)
        finally:
            watch.is_inside = False

    def discard(self, close: Callable[[_Env], object]) -> None:
        """Close the environment; whatever that raises is of no interest any more."""
        env, self._env = self._env, None
        if env is not None:
            with suppress(Exception, SystemExit, HungError):
                self._watched(partial(self._guarded, partial(close, env)))

    def _watched(self, function: Callable[[], _Result]) -> _Result:
        watch = self._watch
        if watch is None:
            return function()
        watch.call += 1
        watch.is_inside = True
        try:
            return function()
        finally:
            watch.is_inside = False

    def _guarded(self, function: Callable[[], _Result]) -> _Result:
        with kept_folder() as folder:
            if self._folder is not None:
                os.chdir(self._folder)
            try:
                return self._context.run(function)
            finally:
                self._folder = folder.changed()


class kept_folder:  # noqa: N801  (a context manager, as those of contextlib)
    """Leaves the process in the working folder in which it was, wherever the code inside has gone."""

    def __enter__(self) -> Self:
        self._before = _working_folder()
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None and self.changed() is not None:
            os.chdir(self._before)

    def changed(self) -> str | None:
        """The working folder, where it is another one now."""
        now = _working_folder()
        return None if now == self._before else now


@contextmanager
def kept_signal_handlers() -> Iterator[None]:
    """Keep the handlers of Ctrl-C and its like, without which a run could not be stopped."""
    if threading.current_thread() is not threading.main_thread():
        # Elsewhere Python lets no one set them.
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def run_foreign(function: Callable[[], _Result]) -> _Result:
    """Run code of others, such as the import of a module, that may change what the whole process shares."""
    with kept_folder(), kept_signal_handlers():
        return copy_context().run(function)


def _working_folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        # It has been deleted.
        return None
