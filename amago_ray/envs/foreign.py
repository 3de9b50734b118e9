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

from amago_ray.envs.watchdog import HungError, Watchdog
from amago_ray.errors import EnvError, error_line


class _Steps(Protocol):
    def step(self, action: Any, /) -> Any: ...


_Env = TypeVar("_Env", bound=_Steps)
_Result = TypeVar("_Result")

# What a run must go on hearing, whatever handlers an environment installs.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ForeignEnv(Generic[_Env]):
    """Makes an environment, calls it, discards it and makes it anew.

    All of its code runs in one thread, in a context of its own (NumPy's error handling and the like, which it may
    set), and in a working folder of its own (which it may change): neither is seen by the process around it. With
    `timeout_s` that thread is not the caller's, and a call that takes longer counts as hung; making it and closing it
    may take any time. The thread of a hung environment is left behind with it.
    """

    def __init__(self, make: Callable[[], _Env], timeout_s: float | None = None) -> None:
        self._make = make
        self._timeout_s = timeout_s
        self._env: _Env | None = None
        self._watchdog: Watchdog | None = None
        self._left_behind: list[Watchdog] = []
        self._context = Context()
        self._folder: str | None = None

    @property
    def num_left_behind(self) -> int:
        """Threads of hung environments that have not ended yet."""
        self._left_behind = [watchdog for watchdog in self._left_behind if watchdog.is_alive]
        return len(self._left_behind)

    def build(self) -> _Env:
        """Make the environment, or hand out the one that is there.

        Raises:
            BaseException: whatever its code raises.
        """
        if self._env is None:
            self._context = copy_context()
            self._folder = None
            if self._timeout_s is not None:
                self._watchdog = Watchdog()
            with kept_signal_handlers():
                self._env = self._call(partial(self._guarded, self._make), None)
        return self._env

    def call(self, function: Callable[[_Env], _Result]) -> _Result:
        """Call the environment, which is made if need be.

        Raises:
            HungError: it took longer than `timeout_s`; the environment is gone then.
            BaseException: whatever its code raises.
        """
        return self._call(partial(self._guarded, partial(function, self.build())), self._timeout_s)

    def step(self, action: Any) -> Any:
        """What the environment's `step` returns; if that changes the working folder, the caller has to restore it.

        One look at the folder after the steps of many environments costs next to nothing, one after each does not.
        """
        env = self._env
        if self._watchdog is None and self._folder is None and env is not None:
            return self._context.run(env.step, action)
        return self.call(lambda env: env.step(action))

    def discard(self, close: Callable[[_Env], object]) -> None:
        """Close the environment; whatever that raises is of no interest any more."""
        env, watchdog = self._env, self._watchdog
        self._env = self._watchdog = None
        if env is not None:
            with suppress(Exception, SystemExit):
                run = partial(self._guarded, partial(close, env))
                if watchdog is None:
                    run()
                else:
                    watchdog.call(run, self._timeout_s)
        if watchdog is not None:
            watchdog.leave()

    def _call(self, function: Callable[[], _Result], timeout_s: float | None) -> _Result:
        if self._watchdog is None:
            return function()
        try:
            return self._watchdog.call(function, timeout_s)
        except (ValueError, RuntimeError) as error:
            if "main thread" in str(error):
                raise EnvError(
                    f"{error_line(error)}; under step_timeout_s it runs in a thread of its own: leave "
                    "step_timeout_s out for an environment that needs the main thread"
                ) from error
            raise
        except HungError:
            # Closing it could hang as well.
            self._watchdog.leave()
            self._left_behind.append(self._watchdog)
            self._env = self._watchdog = None
            raise

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
