"""`FailureBook`: what has failed in a batch of environments, how often, and who is given up."""

from __future__ import annotations

import logging
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amago_ray.envs.env_batch import EnvFailure
from amago_ray.envs.foreign import Interrupted
from amago_ray.envs.hang_watch import HungError
from amago_ray.envs.returned import ReturnedError
from amago_ray.errors import error_line, raised_at

OTHER_KINDS = "other failures"
"""Stands for all kinds beyond the first `_MAX_KINDS`."""

_MAX_KINDS = 64
_LONGEST_MESSAGE = 300

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retries:
    """How patient to be with an environment that fails.

    max_failures: so many without an episode that ended in between, and it is isolated: not used any more. So is one
    that has hung `max_hangs` times without one, as all others wait while it hangs. The pause before it is made anew is
    `first_pause_s` and doubles with each failure in a row, without a good step in between, up to `max_pause_s`.
    """

    max_failures: int = 16
    max_hangs: int = 3
    first_pause_s: float = 0.05
    max_pause_s: float = 2.0


class FailureBook:
    """Failures of E environments. The traceback of the first of each kind is logged, when it is made anew.

    isolated: `[E]` bool, those that are not used any more. usable: `[E]` bool, the others, None where that is all.
    idle: those that cannot be stepped, as they are isolated or have failed and were not reset since.
    """

    def __init__(self, name: str, num_envs: int, retries: Retries) -> None:
        self.isolated = np.zeros(num_envs, np.bool_)
        self.usable: npt.NDArray[np.bool_] | None = None
        self.idle: set[int] = set()
        self._name = name
        self._retries = retries
        # Of those that have failed since their last episode that ended.
        self._without_end: Counter[int] = Counter()
        self._hangs: Counter[int] = Counter()
        self._in_a_row: Counter[int] = Counter()
        self._open: dict[int, EnvFailure] = {}
        self._kinds: set[str] = set()
        self._tracebacks: dict[int, str] = {}

    def add(self, index: int, call: str, error: BaseException) -> None:
        """Environment `index` failed in a `call` such as "step"; `report` tells it until it is reset."""
        kind = f"env '{self._name}': {failure_kind(error)}"
        message = f"env '{self._name}': {failure_message(error, call)}"
        if kind not in self._kinds:
            if len(self._kinds) < _MAX_KINDS:
                self._kinds.add(kind)
                self._tracebacks[index] = "".join(traceback.format_exception(error))
            else:
                kind = OTHER_KINDS
        self._without_end[index] += 1
        self._in_a_row[index] += 1
        if isinstance(error, HungError):
            self._hangs[index] += 1
        retries = self._retries
        is_isolated = self._without_end[index] >= retries.max_failures or self._hangs[index] >= retries.max_hangs
        if is_isolated:
            self.isolated[index] = True
            self.usable = ~self.isolated
        self.idle.add(index)
        self._open[index] = EnvFailure(index, kind, message, is_isolated)

    def is_open(self, index: int) -> bool:
        """Whether this environment has failed and was not reset since."""
        return index in self._open

    def reset(self, index: int) -> bool:
        """Forget the reported failure of an environment that is about to be reset; whether there was one."""
        text = self._tracebacks.pop(index, None)
        if text is not None:
            _log.error("env '%s' failed and is made anew (logged once per kind):\n%s", self._name, text)
        if not self.isolated[index]:
            self.idle.discard(index)
        return self._open.pop(index, None) is not None

    def stepped(self, index: int, *, ended: bool) -> None:
        """A step of this environment went well, and maybe ended its episode."""
        if self._without_end:
            self._in_a_row.pop(index, None)
            if ended:
                self._without_end.pop(index, None)
                self._hangs.pop(index, None)

    def report(self) -> list[EnvFailure]:
        """The failures since each environment's last reset, by index."""
        return [self._open[index] for index in sorted(self._open)] if self._open else []

    def pause(self, indices: Iterable[int]) -> None:
        """Wait before those of these environments that have failed and are not isolated are made anew."""
        retries = self._retries
        in_a_row = max((self._in_a_row[index] for index in indices if not self.isolated[index]), default=0)
        if in_a_row:
            time.sleep(min(retries.max_pause_s, retries.first_pause_s * 2 ** (in_a_row - 1)))


def failure_kind(error: BaseException) -> str:
    """Names a failure by its class and the line that raised it, or by the entry that could not be read."""
    if isinstance(error, ReturnedError):
        return error.kind
    return f"{type(error).__qualname__}{_place(error)}"


def failure_message(error: BaseException, call: str) -> str:
    """A failure of a `call` such as "step" on one line of bounded length."""
    text = error_line(error)
    if text == type(error).__name__:
        text += _place(error)
    if not isinstance(error, ReturnedError):
        text = f"{call}: {text}"
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


def _place(error: BaseException) -> str:
    place = raised_at(error)
    return f" at {place}" if place else ""


def is_interrupt(error: BaseException) -> bool:
    """Whether this is the user's Ctrl-C. An environment may raise a KeyboardInterrupt too: that is a failure.

    Only Python's own handler raises one like it; the handler under which a run goes on takes note and raises nothing.
    """
    if isinstance(error, Interrupted):
        return True
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(error, KeyboardInterrupt) and handler is signal.default_int_handler
