"""`Supervisor`: starts actors, and starts those again that die."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from amago_ray.errors import TrainingError
from amago_ray.runtime.driver.pulse_watch import PulseWatch
from amago_ray.runtime.protocol.endings import Ending

_MAX_TRIES_TO_MAKE = 3
_MAX_DEATHS = 10
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0
HEALTHY_AFTER_S = 60.0
"""An actor that has lived so long is as good as new."""


class Started(NamedTuple):
    """References of an actor: `made` is ready when it has been made or could not be, `run` when it ends.

    In the order of the calls: an actor answers one after the other.
    """

    made: object
    run: object


class RestartBudget:
    """How often one actor may be started again, and when.

    The first death is answered at once, each further one after twice the pause before, until the actor has lived for
    `HEALTHY_AFTER_S`.
    """

    def __init__(self) -> None:
        self._started_at_s = 0.0
        self._num_failures = 0
        self._tries_to_make = 0

    def started(self, now_s: float) -> None:
        """The actor is being started."""
        self._started_at_s = now_s

    def failed(self, name: str, ending: Ending, now_s: float) -> float:
        """The actor died or could not be made; returns when to start it again.

        Raises:
            AmagoRayError: it is not worth trying again, for the original reason.
        """
        if ending.kind == "not_made":
            self._tries_to_make += 1
            if self._tries_to_make >= _MAX_TRIES_TO_MAKE:
                raise ending.failure(f"the {name} cannot be made")
        else:
            self._tries_to_make = 0
            if now_s - self._started_at_s >= HEALTHY_AFTER_S:
                self._num_failures = 0
        self._num_failures += 1
        if self._num_failures > _MAX_DEATHS:
            raise TrainingError(f"the {name} died {_MAX_DEATHS} times in a row, at last of: {ending.line}")
        pause_s = 0.0 if self._num_failures == 1 else _FIRST_PAUSE_S * 2 ** (self._num_failures - 2)
        return now_s + min(pause_s, _LONGEST_PAUSE_S)


@dataclass
class _Actor:
    start: Callable[[], Started]
    bury: Callable[[], None]
    budget: RestartBudget
    at_end: Literal["fail", "restart", "forget"] = "fail"
    """What is done when its run returns."""


class Supervisor:
    """Knows of each actor how it is started, and when it is to be started again; waits for nothing itself."""

    def __init__(self, clock: Callable[[], float], pulses: PulseWatch) -> None:
        """clock: seconds that never go back. pulses: told of who is started and who has ended."""
        self._clock = clock
        self._pulses = pulses
        self.num_restarts: Counter[str] = Counter()
        """How often actors died or could not be made and were started again, by role."""
        self.lost: Counter[str] = Counter()
        """What was at stake in those that died, by metric."""
        self._actors: dict[str, _Actor] = {}
        self._running: dict[object, tuple[str, Started]] = {}
        self._due_at_s: dict[str, float] = {}

    def start(self, name: str, start: Callable[[], Started], bury: Callable[[], None] = lambda: None) -> None:
        """Start an actor now, and again by the same call when it dies; `bury` is called whenever its run has ended."""
        self._actors[name] = _Actor(start, bury, RestartBudget())
        self._start(name)

    @property
    def running(self) -> Mapping[object, Started]:
        """The actors that run, by their `run`."""
        return {run: started for run, (_, started) in self._running.items()}

    @property
    def names(self) -> list[str]:
        """Those of the actors that run."""
        return [name for name, _ in self._running.values()]

    @property
    def due(self) -> Collection[str]:
        """Names of those that are to be started again."""
        return self._due_at_s

    def next_due_s(self) -> float:
        """Seconds until the next actor is to be started again; infinite where none is."""
        return max(min(self._due_at_s.values(), default=float("inf")) - self._clock(), 0.0)

    def start_due(self) -> None:
        """Start again those whose time has come."""
        now_s = self._clock()
        for name in [name for name, due_at_s in self._due_at_s.items() if due_at_s <= now_s]:
            del self._due_at_s[name]
            self._start(name)

    def replace(self, name: str) -> None:
        """An actor may leave: when its run returns it is started again at once, which does not count against it."""
        self._actors[name].at_end = "restart"

    def release(self, name: str) -> None:
        """An actor may leave, however its run ends; it is not started again, also where that was due."""
        if self._due_at_s.pop(name, None) is None:
            self._actors[name].at_end = "forget"
        else:
            del self._actors[name]

    def ended(self, run: object, ending: Ending) -> str | None:
        """An actor's run ended before training did: plans its restart, and returns a warning if there is one.

        Raises:
            AmagoRayError: training cannot go on; what the actor raised, or why it cannot be made or kept alive.
        """
        name, _ = self._running.pop(run)
        actor, now_s = self._actors[name], self._clock()
        actor.bury()
        lost = Counter(self._pulses.end(name))
        if ending.kind == "raised":
            raise ending.failure(f"the {name} failed")
        if ending.kind == "died":
            self.lost += lost
        if actor.at_end == "forget":
            del self._actors[name]
            return f"the {name} died when it was to leave: {ending.line}{_say(lost)}" if ending.kind == "died" else None
        if ending.kind == "returned":
            if actor.at_end == "fail":
                raise TrainingError(f"the {name} ended before training did")
            self._due_at_s[name] = now_s
            return None
        self.num_restarts[_role(name)] += 1
        if ending.is_preempted:
            self._due_at_s[name] = now_s
            return (
                f"the {name} died with its node, which was taken away, and is started again: {ending.line}{_say(lost)}"
            )
        self._due_at_s[name] = due_at_s = actor.budget.failed(name, ending, now_s)
        when = "" if due_at_s <= now_s else f" in {due_at_s - now_s:g} s"
        what = "died" if ending.kind == "died" else "cannot be made"
        return f"the {name} {what} and is started again{when}: {ending.line}{_say(lost)}"

    def forget(self, run: object) -> str:
        """An actor's run ended as it should; returns the actor's name."""
        name, _ = self._running.pop(run)
        self._pulses.end(name)
        self._actors[name].bury()
        return name

    def _start(self, name: str) -> None:
        actor = self._actors[name]
        actor.at_end = "fail"
        actor.budget.started(self._clock())
        self._pulses.begin(name)
        started = actor.start()
        self._running[started.run] = (name, started)


def _role(name: str) -> str:
    """That of "env runner 3" is "env_runner"."""
    return name.rstrip("0123456789 ").replace(" ", "_")


def _say(lost: Mapping[str, int]) -> str:
    parts = [f"{number} {name.rpartition('/')[2].replace('_', ' ')}" for name, number in lost.items() if number]
    return f" ({', '.join(parts)})" if parts else ""
