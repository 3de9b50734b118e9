"""`Runners`: the env runners of a run, as the driver sees them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from amago_ray.config.rollout import RolloutConfig
from amago_ray.runtime.driver.run_actors import RunActors
from amago_ray.runtime.driver.supervisor import Started, Supervisor
from amago_ray.runtime.protocol.actors import answer
from amago_ray.runtime.protocol.shard_table import ShardTable

# What lasts shorter is not spoken of: runners that died are being started again.
_PATIENCE_S = 30.0
# How often it is said again that runners are missing, and that some wait that are not needed.
_TOO_FEW_AGAIN_S = 30.0
_WAITING_AGAIN_S = 300.0


@dataclass
class _Runner:
    """A place among the env runners, and who has it now.

    placing, making: references of its process, which are ready when there is a place for it in the cluster, and when it
    has been made. node: id and host, once it is placed. is_here: whether a process has been started and has not ended.
    leaves: it was told to. is_wanted: false for one that is not started again when it has left.
    """

    number: int
    incarnation: int = -1
    placing: Any = None
    making: Any = None
    node: tuple[str, str] | None = None
    is_made: bool = False
    is_here: bool = False
    leaves: bool = False
    is_wanted: bool = True

    @property
    def name(self) -> str:
        """What it is called."""
        return f"env runner {self.number}"


class Runners:
    """Has as many env runners as are wanted, where the cluster has room for them; starts those again that die.

    One that is to leave is told so by the control actor, hands over what it has finished, and ends: for good where
    fewer are wanted, to be started elsewhere where its node is taken away. Numbers are used again.
    """

    def __init__(
        self,
        settings: RolloutConfig,
        actors: RunActors,
        supervisor: Supervisor,
        draining: Callable[[], Collection[str]],
        clock: Callable[[], float],
        answer: Callable[[Any], tuple[Any, ...]] = answer,
    ) -> None:
        """draining: ids of the nodes that are to be taken away. clock: seconds that never go back. answer: what a
        reference has brought by now.
        """
        self._settings = settings
        self._actors = actors
        self._supervisor = supervisor
        self._draining = draining
        self._clock = clock
        self._answer = answer
        self._control: Any = None
        self._runners: dict[int, _Runner] = {}
        self._missing_since_s: float | None = None
        self._said_at_s = -float("inf")
        self.num_wanted = settings.num_env_runners
        """As many are there or wait for a place, without those that leave for good."""

    def start(self, control: Any, table: Callable[[], ShardTable]) -> None:
        """Start as many as are wanted, and keep them running. table: the newest of the shards."""
        self._control, self._table = control, table
        self._fill_up()

    @property
    def num_running(self) -> int:
        """Those that have been made and have not ended."""
        self._see()
        return sum(runner.is_made for runner in self._runners.values())

    @property
    def optional(self) -> Collection[str]:
        """Names of those without which the run can begin."""
        is_enough = self.num_running >= self._settings.fewest_env_runners
        return [runner.name for runner in self._runners.values()] if is_enough else []

    def metrics(self) -> Mapping[str, float]:
        """How many there are, and how many are wanted."""
        return {
            "rollout/num_env_runners": float(self.num_running),
            "rollout/wanted_env_runners": float(self.num_wanted),
        }

    def scale(self, num_wanted: int) -> str:
        """Have so many from now on; returns what is to be said of it.

        The first to go are those that wait for a place, then those with the highest numbers.
        """
        self._see()
        before, self.num_wanted = self.num_wanted, num_wanted
        wanted = sorted(
            (runner for runner in self._runners.values() if runner.is_wanted),
            key=lambda runner: (not runner.is_made, runner.node is None, runner.number),
        )
        for runner in wanted[num_wanted:]:
            self._release(runner)
        self._fill_up()
        self._tell_control()
        return f"{num_wanted} env runners are wanted from now on, {before} were before"

    def look(self) -> list[str]:
        """See to those whose nodes are taken away, and to those that are missing; returns warnings. Call it often."""
        self._see()
        warnings = self._leave_nodes()
        self._tell_control()
        warning = self._count()
        return warnings if warning is None else [*warnings, warning]

    def finish(self) -> None:
        """Training ends: those that wait for a place, or are being made, need not end by themselves."""
        self._see()
        for runner in list(self._runners.values()):
            if not runner.is_made:
                self._release(runner)

    def _fill_up(self) -> None:
        number = 0
        for _ in range(self.num_wanted - sum(runner.is_wanted for runner in self._runners.values())):
            while number in self._runners:
                number += 1
            self._runners[number] = runner = _Runner(number)
            self._supervisor.start(runner.name, partial(self._start, runner), partial(self._bury, runner))

    def _see(self) -> None:
        """Note who has been placed and made by now."""
        for runner in self._runners.values():
            if runner.is_here and not runner.is_made:
                if runner.node is None:
                    (runner.node,) = self._answer(runner.placing) or (None,)
                runner.is_made = bool(self._answer(runner.making))

    def _start(self, runner: _Runner) -> Started:
        runner.incarnation, actor = self._actors.start_runner(runner.number, self._control, self._table())
        runner.placing, runner.making = actor.whereabouts.remote(), actor.make.remote()
        runner.is_here, runner.leaves = True, False
        return Started(runner.making, actor.run.remote())

    def _bury(self, runner: _Runner) -> None:
        """Its run has ended: its process goes, and the control actor forgets it."""
        runner.is_here, runner.is_made, runner.node = False, False, None
        self._actors.kill(f"env_runner_{runner.number}", for_good=True)
        self._control.runner_gone.remote(runner.number, runner.incarnation)
        if not runner.is_wanted:
            del self._runners[runner.number]

    def _release(self, runner: _Runner) -> None:
        runner.is_wanted = False
        self._supervisor.release(runner.name)
        if runner.is_made:
            runner.leaves = True
        elif runner.is_here:
            # It has nothing to hand over.
            self._actors.kill(f"env_runner_{runner.number}", for_good=True)
        else:
            del self._runners[runner.number]

    def _leave_nodes(self) -> list[str]:
        draining = self._draining()
        if not draining:
            return []
        leaving: defaultdict[str, list[str]] = defaultdict(list)
        for runner in self._runners.values():
            if runner.is_made and not runner.leaves and runner.node is not None and runner.node[0] in draining:
                runner.leaves = True
                self._supervisor.replace(runner.name)
                leaving[runner.node[1]].append(str(runner.number))
        return [
            f"the node {host} is to be taken away: its env runners ({', '.join(numbers)}) leave it, and are started "
            "again elsewhere"
            for host, numbers in leaving.items()
        ]

    def _tell_control(self) -> None:
        """Who is to leave, again and again: a control actor that starts again knows nothing of it."""
        leaving = {runner.number: runner.incarnation for runner in self._runners.values() if runner.leaves}
        if leaving:
            self._control.send_away.remote(leaving)

    def _count(self) -> str | None:
        """A warning where some are missing, at times."""
        num_running, fewest = self.num_running, self._settings.fewest_env_runners
        num_waiting = sum(runner.is_here and runner.node is None for runner in self._runners.values())
        now_s = self._clock()
        if num_running >= fewest and not num_waiting:
            self._missing_since_s, self._said_at_s = None, -float("inf")
            return None
        if self._missing_since_s is None:
            self._missing_since_s = now_s
        again_s = _WAITING_AGAIN_S if num_running >= fewest else _TOO_FEW_AGAIN_S
        if now_s - self._missing_since_s < _PATIENCE_S or now_s - self._said_at_s < again_s:
            return None
        self._said_at_s = now_s
        text = f"{num_running} of {self.num_wanted} env runners run"
        if num_running < fewest:
            text += f", at least {fewest} are wanted"
        if num_waiting:
            text += (
                f"; {num_waiting} wait until the cluster has room for them ({self._settings.num_cpus_per_env_runner:g} "
                f"CPUs and {self._settings.num_gpus_per_env_runner:g} GPUs each)"
            )
        return text
