"""`Pulse` and `PulseThread`: what a process says of itself while it works, however long its work takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from amago_ray.config import Config
from amago_ray.runtime.protocol.actors import is_ready

LOST_EPISODES = ("rollout/lost_partial_episodes", "rollout/lost_unacknowledged_episodes")
"""Metrics of what is lost with an env runner: episodes that were running, and those that replay had not stored yet."""

# A node that was out of reach for a while may have lost an answer for good.
_LOST_AFTER_S = 30.0
# Of all processes of a run together.
_MOST_PULSES_PER_S = 50.0


@dataclass(frozen=True)
class Pulse:
    """A sign of life.

    started_ns: when the process was started, by its own clock: it tells a process from the one whose place it takes.
    number: of this pulse, from 1. host: where the process is. doing: what its work is; busy_s: for how long it has been
    at this piece of work, 0 while it waits for others. hung: what does not end in it though it was told to. at_stake:
    what is lost if the process dies now, by metric.
    """

    started_ns: int
    number: int
    host: str
    doing: str
    busy_s: float
    hung: str | None = None
    at_stake: Mapping[str, int] = field(default_factory=dict)


class PulseThread:
    """Gives pulses from a thread of its own, until its process ends; the process says what it does in passing."""

    def __init__(
        self,
        give: Callable[[Pulse], Any],
        interval_s: float,
        host: str,
        *,
        is_done: Callable[[Any], bool] = is_ready,
        hung: Callable[[], str | None] = lambda: None,
        at_stake: Callable[[], Mapping[str, int]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """give: sends a pulse and returns a reference; no further one is sent while that is not `is_done`, for a while.

        hung, at_stake: see `Pulse`; called in the thread.
        """
        self._give = give
        self._interval_s = interval_s
        self._host = host
        self._is_done = is_done
        self._hung = hung
        self._at_stake = at_stake
        self._clock = clock
        self._started_ns = time.time_ns()
        self._number = 0
        self._given: Any = None
        self._given_at_s = clock()
        # Replaced as a whole: the thread reads it at any time.
        self._work: tuple[str, float | None] = ("starting", clock())

    def start(self) -> None:
        """Begin, with a pulse at once."""
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def works(self, doing: str) -> None:
        """The process begins a piece of work."""
        self._work = (doing, self._clock())

    def waits(self, doing: str) -> None:
        """The process waits for others, however long it takes."""
        self._work = (doing, None)

    @contextmanager
    def working(self, doing: str) -> Iterator[None]:
        """Work inside, waiting outside."""
        self.works(doing)
        try:
            yield
        finally:
            self.waits("waiting for requests")

    def beat(self) -> None:
        """Give a pulse now, unless the one before is still on its way."""
        now_s = self._clock()
        if self._given is not None and not self._is_done(self._given) and now_s - self._given_at_s < _LOST_AFTER_S:
            return
        self._given_at_s = now_s
        self._number += 1
        doing, since_s = self._work
        busy_s = 0.0 if since_s is None else now_s - since_s
        self._given = self._give(
            Pulse(self._started_ns, self._number, self._host, doing, busy_s, self._hung(), self._at_stake())
        )

    def _run(self) -> None:
        while True:
            self.beat()
            time.sleep(self._interval_s)


def start_pulses(config: Config, name: str, control: Any, **options: Any) -> PulseThread:
    """Begin to give the pulses of this process, which has this name in the run, to the control actor."""
    thread = PulseThread(
        lambda pulse: control.pulse.remote(name, pulse),
        pulse_interval_s(config),
        ray.util.get_node_ip_address(),  # type: ignore[no-untyped-call]
        **options,
    )
    thread.start()
    return thread


def pulse_interval_s(config: Config) -> float:
    """Seconds between the pulses of each process, so that all together give a bounded number."""
    num_processes = config.rollout.most_env_runners + config.replay.num_shards + config.learner.num_learners + 1
    return max(config.supervision.pulse_interval_s, num_processes / _MOST_PULSES_PER_S)
