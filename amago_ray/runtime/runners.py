"""`Runners`: the env runners of a run, as the driver sees them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from amago_ray.runtime.run_actors import RunActors
from amago_ray.runtime.shard_table import ShardTable
from amago_ray.runtime.supervisor import Started, Supervisor


class Runners:
    """Starts env runners, and those again that die."""

    def __init__(self, actors: RunActors, supervisor: Supervisor) -> None:
        self._actors = actors
        self._supervisor = supervisor

    def start(self, num_runners: int, control: Any, table: Callable[[], ShardTable]) -> None:
        """Start so many, and keep them running. table: the newest of the shards."""
        for number in range(num_runners):
            self._supervisor.start(f"env runner {number}", partial(self._start, number, control, table))

    def _start(self, number: int, control: Any, table: Callable[[], ShardTable]) -> Started:
        runner = self._actors.start_runner(number, control, table())
        return Started(runner.make.remote(), runner.run.remote())
