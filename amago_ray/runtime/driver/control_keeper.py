"""`ControlKeeper`: the control actor, as the driver sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import ray

from amago_ray.config.supervision import SupervisionConfig
from amago_ray.errors import TrainingError
from amago_ray.runtime.driver.patience import Patience
from amago_ray.runtime.driver.run_actors import RunActors
from amago_ray.runtime.protocol.actors import ending, get, wait_any
from amago_ray.runtime.protocol.endings import Ending, short_line
from amago_ray.runtime.protocol.ledger import LedgerState
from amago_ray.runtime.protocol.messages import ControlReport, ControlState

_FILL_TIMEOUT_S = 10.0
# Time between two looks that counts at most: where the driver itself was held up, nobody else was silent for it.
_LONGEST_LOOK_S = 5.0
_NAME = "control actor"


class ControlKeeper:
    """Fills the control actor when Ray has started it, again too, asks it for its news, and ends one that is silent."""

    def __init__(
        self,
        actors: RunActors,
        settings: SupervisionConfig,
        patience: Patience,
        clock: Callable[[], float],
        *,
        wait_any: Callable[[Sequence[Any], float], Sequence[Any]] = wait_any,
        get: Callable[[Any, float], Any] = get,
        ending: Callable[[Any], Ending] = ending,
    ) -> None:
        """clock: seconds that never go back. wait_any, get, ending: wait for references, and take their values."""
        self._actors = actors
        self._settings = settings
        self._patience = patience
        self._clock = clock
        self._wait_any = wait_any
        self._get = get
        self._ending = ending
        self._watch: Any = None
        self._asked: Any = None
        self._looked_at_s = clock()
        self._silent_s = 0.0
        self._is_warned = False
        self.handle: Any = None
        """The actor."""
        self.ledger = LedgerState()
        """What it is filled with; the newest that it reported."""
        self.is_filled = False
        """Whether it ever was."""
        self.num_restarts = 0
        self.num_kills = 0
        """How often it was ended for its silence."""

    @property
    def is_silent(self) -> bool:
        """Whether an answer is outstanding, so that nobody can be heard."""
        return self._asked is not None

    def start(self, ledger: LedgerState) -> None:
        """Create the actor."""
        self.ledger = ledger
        self.handle = self._actors.start_control()

    def watch(self) -> None:
        """Be told of news from now on."""
        self._watch = self.handle.watch.remote()

    @property
    def watches(self) -> Sequence[Any]:
        """References that are ready when there is news, for `answer`."""
        return [] if self._watch is None else [self._watch]

    def answer(self, state: ControlState) -> str | None:
        """There is news: `collect` tells more. A warning where the actor was started again; it is filled with `state`.

        Raises:
            AmagoRayError: it cannot be made.
        """
        end = self._ending(self._watch)
        if end.kind != "returned":
            raise end.failure(f"the {_NAME} cannot be made")
        warning = self._fill(state) if end.value else None
        self.watch()
        return warning

    def collect(self, timeout_s: float) -> ControlReport | None:
        """What the actor gathered; None where it does not answer in time, or has just been started again.

        A late answer is not lost: the next call takes it.

        Raises:
            TrainingError: it failed.
        """
        if self._asked is None:
            self._asked = self.handle.collect.remote()
        if not self._wait_any([self._asked], timeout_s):
            return None
        asked, self._asked = self._asked, None
        try:
            report: ControlReport | None = self._get(asked, max(timeout_s, 1.0))
        except ray.exceptions.GetTimeoutError:
            self._asked = asked
            return None
        except ray.exceptions.RayError as error:
            raise TrainingError(f"the {_NAME} failed: {short_line(error)}") from error
        if report is not None:
            self.ledger = report.ledger
        return report

    def look(self) -> str | None:
        """A warning where the actor is late with its answer; where it has been silent for too long, it is ended."""
        now_s = self._clock()
        passed_s, self._looked_at_s = min(now_s - self._looked_at_s, _LONGEST_LOOK_S), now_s
        if self._asked is None:
            self._silent_s, self._is_warned = 0.0, False
            return None
        self._silent_s += passed_s
        if self._silent_s >= self._settings.dead_after_s:
            silent_s, self._silent_s = self._silent_s, 0.0
            self.num_kills += 1
            self._actors.kill("control", for_good=False)
            return f"the {_NAME} has been silent for {silent_s:.0f} s: it is killed and started again"
        if self._silent_s >= self._settings.late_after_s and not self._is_warned:
            self._is_warned = True
            return f"the {_NAME} has been silent for {self._silent_s:.0f} s"
        return None

    def _fill(self, state: ControlState) -> str | None:
        # It comes to it, though late; if not, the actor has died again, and who watches is told so.
        with suppress(ray.exceptions.GetTimeoutError):
            self._get(self.handle.fill.remote(state), self._patience.s(_FILL_TIMEOUT_S))
        if not self.is_filled:
            self.is_filled = True
            return None
        self.num_restarts += 1
        return f"the {_NAME} died and was started again: it goes on from the last report"
