"""`PulseWatch`: which processes are late, and which live on without being of any use."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from amago_ray.config.supervision import SupervisionConfig
from amago_ray.runtime.protocol.pulse import Pulse
from amago_ray.training.ports import ProcessSight

# Time between two looks that counts at most: where the watcher itself was held up, nobody else was silent for it.
_LONGEST_LOOK_S = 5.0
# Pulses that may be lost before a process counts as dead, where they come less often than the settings think of.
_PULSES_TO_DEATH = 4
_PENDING_AFTER_S = 30.0


class Alarm(NamedTuple):
    """What is to be said of a process; `must_kill`: it is of no use any more, and has to be ended from outside."""

    name: str
    text: str
    must_kill: bool


@dataclass
class _Watched:
    begun_s: float
    pulse: Pulse | None = None
    heard_s: float = 0.0
    is_warned: bool = False
    is_warned_of_work: bool = False
    is_killed: bool = False
    pending_told_s: float = 0.0


class PulseWatch:
    """Judges processes by the age of their pulses and by what these say.

    A process is watched from its first pulse on; before that it may be waiting for a place in the cluster, or be made,
    and is `pending`. Time counts while somebody looks: if pulses cannot be heard at all, nobody is judged.
    """

    def __init__(self, settings: SupervisionConfig, interval_s: float, clock: Callable[[], float]) -> None:
        """interval_s: between two pulses of a process. clock: seconds that never go back."""
        self._late_after_s = max(settings.late_after_s, 2 * interval_s)
        self._dead_after_s = max(settings.dead_after_s, _PULSES_TO_DEATH * interval_s)
        self._stuck_after_s = settings.stuck_after_s
        self._clock = clock
        self._looked_at_s = clock()
        self._now_s = 0.0
        self._watched: dict[str, _Watched] = {}

    def begin(self, name: str) -> None:
        """A process of this name is started, in place of the one that had the name."""
        self._watched[name] = _Watched(begun_s=self._now_s, pending_told_s=self._now_s)

    def end(self, name: str) -> Mapping[str, int]:
        """The process has ended: what was at stake in it, by metric."""
        watched = self._watched.pop(name, None)
        return {} if watched is None or watched.pulse is None else watched.pulse.at_stake

    def look(self, pulses: Mapping[str, Pulse]) -> list[Alarm]:
        """Take in the newest pulses of those that gave any since the last look: who is late, or is to be killed."""
        now_s = self._clock()
        self._now_s += min(now_s - self._looked_at_s, _LONGEST_LOOK_S)
        self._looked_at_s = now_s
        for name, pulse in pulses.items():
            watched = self._watched.get(name)
            # One that was cut off lives on and speaks in the name of its successor.
            if watched is None or (watched.pulse is not None and pulse.started_ns < watched.pulse.started_ns):
                continue
            if watched.pulse is None or pulse.started_ns > watched.pulse.started_ns:
                watched.is_killed = False
            if pulse.doing != getattr(watched.pulse, "doing", None) or pulse.busy_s < self._stuck_after_s / 6:
                watched.is_warned_of_work = False
            watched.pulse, watched.heard_s, watched.is_warned = pulse, self._now_s, False
        alarms = (self._judge(name, watched) for name, watched in self._watched.items())
        return [alarm for alarm in alarms if alarm is not None]

    def newly_pending(self) -> Sequence[str]:
        """Processes that have not been heard of since they were started, each once in 30 s."""
        names = []
        for name, watched in self._watched.items():
            if watched.pulse is None and self._now_s - watched.pending_told_s >= _PENDING_AFTER_S:
                watched.pending_told_s = self._now_s
                names.append(name)
        return names

    def sights(self, most: int) -> Sequence[ProcessSight]:
        """Those `most` processes, as last seen, that were silent for longest."""
        sights = [
            ProcessSight(name, "", self._now_s - each.begun_s, "waiting for a place, or being made")
            if each.pulse is None
            else ProcessSight(name, each.pulse.host, self._now_s - each.heard_s, each.pulse.doing, each.pulse.busy_s)
            for name, each in sorted(self._watched.items())
        ]
        return heapq.nlargest(most, sights, key=lambda sight: sight.age_s)

    def _judge(self, name: str, watched: _Watched) -> Alarm | None:
        pulse = watched.pulse
        if pulse is None or watched.is_killed:
            return None
        silent_s = self._now_s - watched.heard_s
        if silent_s >= self._dead_after_s:
            watched.is_killed = True
            return Alarm(name, f"has been silent for {silent_s:.0f} s, {_last(pulse)}: it is killed", True)
        if pulse.hung is not None:
            watched.is_killed = True
            return Alarm(name, f"hangs, {pulse.hung}: it is killed", True)
        if pulse.busy_s >= self._stuck_after_s:
            watched.is_killed = True
            return Alarm(name, f"has been {pulse.doing} for {pulse.busy_s:.0f} s: it is killed", True)
        if silent_s >= self._late_after_s and not watched.is_warned:
            watched.is_warned = True
            return Alarm(name, f"on {pulse.host} has been silent for {silent_s:.0f} s, {_last(pulse)}", False)
        if pulse.busy_s >= self._stuck_after_s / 6 and not watched.is_warned_of_work:
            watched.is_warned_of_work = True
            return Alarm(name, f"has been {pulse.doing} for {pulse.busy_s:.0f} s", False)
        return None


def _last(pulse: Pulse) -> str:
    return f"at last {pulse.doing}" + (f" for {pulse.busy_s:.0f} s" if pulse.busy_s >= 1 else "")
