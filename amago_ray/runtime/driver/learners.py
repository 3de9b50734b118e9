"""`Learners`: the learners of a run, as the driver sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import ray

from amago_ray.runtime.driver.run_actors import RunActors
from amago_ray.runtime.driver.supervisor import Started, Supervisor
from amago_ray.runtime.protocol.actors import get, wait_any
from amago_ray.runtime.protocol.endings import short_line
from amago_ray.runtime.protocol.messages import learner_name
from amago_ray.runtime.protocol.shard_table import ShardTable
from amago_ray.training.ports import CaptureError


class Learners:
    """Starts the learners, all of them again from the newest checkpoint when one dies; asks the first for its files.

    Each is supervised by itself. The first that has to be started again makes new processes for all; the others' former
    ones are ended, and who looks after these is given the new ones in turn.
    """

    def __init__(
        self, actors: RunActors, supervisor: Supervisor, num_learners: int, files: Mapping[str, bytes] | None
    ) -> None:
        """files: a checkpoint's, from which they go on at first."""
        self._actors = actors
        self._supervisor = supervisor
        self._size = num_learners
        self._files = files
        self._unclaimed: dict[int, Started] = {}
        """Of the newest processes, those that nobody looks after yet."""
        self._capture: Any = None
        """The answer of a capture that is under way."""

    def start(self, control: Any, table: Callable[[], ShardTable], num_gpus: float) -> None:
        """Start the learners, and keep them running. table: the newest of the shards."""
        for rank in range(self._size):
            claim = partial(self._claim, rank, control, table, num_gpus)
            self._supervisor.start(learner_name(rank, self._size), claim)

    def broadcast(self) -> None:
        """Let the weights be pushed once more: the control actor lost them."""
        self._first.broadcast.remote()

    def capture(self, timeout_s: float, *, anew: bool) -> tuple[int, Mapping[str, bytes]]:
        """Learner steps and the files of a checkpoint, from which learners that start go on now.

        anew: do not take the answer to an earlier call that came too late for it.

        Raises:
            CaptureError: the learner is dead, or does not answer in time; unless `anew`, a later call takes the answer.
        """
        if self._capture is None or anew:
            self._capture = self._first.capture.remote()
        if not wait_any([self._capture], timeout_s):
            raise CaptureError(f"the learner did not answer within {timeout_s:.3g} s")
        capture, self._capture = self._capture, None
        try:
            learner_steps, files = get(capture, timeout_s=max(timeout_s, 1.0))
        except ray.exceptions.RayError as error:
            raise CaptureError(f"the learner does not answer: {short_line(error)}") from error
        self._files = files
        return learner_steps, files

    def _claim(self, rank: int, control: Any, table: Callable[[], ShardTable], num_gpus: float) -> Started:
        if rank not in self._unclaimed:
            handles = self._actors.start_learners(control, table(), self._files, num_gpus)
            self._first, self._capture = handles[0], None
            meeting = [handles[0].open_rendezvous.remote()] if self._size > 1 else []
            self._unclaimed = {
                number: Started(handle.make.remote(*meeting), handle.run.remote())
                for number, handle in enumerate(handles)
            }
        return self._unclaimed.pop(rank)
