"""`Learners`: the learner of a run, as the driver sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from amago_ray.runtime.actors import get, wait_any
from amago_ray.runtime.endings import short_line
from amago_ray.runtime.run_actors import RunActors
from amago_ray.runtime.supervisor import Started, Supervisor
from amago_ray.training.ports import CaptureError


class Learners:
    """Starts the learner, again from the newest checkpoint when it dies, and asks it for its files."""

    def __init__(self, actors: RunActors, supervisor: Supervisor, files: Mapping[str, bytes] | None) -> None:
        """files: a checkpoint's, from which the first one goes on."""
        self._actors = actors
        self._supervisor = supervisor
        self._files = files
        self._capture: Any = None
        """The answer of a capture that is under way."""

    def start(self, control: Any, shards: Sequence[Any], num_gpus: float) -> None:
        """Start the learner, and keep it running."""

        def start() -> Started:
            self._capture = None
            self._learner = self._actors.start_learner(control, shards, self._files, num_gpus)
            return Started(self._learner.make.remote(), self._learner.run.remote())

        self._supervisor.start("learner", start)

    def broadcast(self) -> None:
        """Let the weights be pushed once more: the control actor lost them."""
        self._learner.broadcast.remote()

    def capture(self, timeout_s: float, *, anew: bool) -> tuple[int, Mapping[str, bytes]]:
        """Learner steps and the files of a checkpoint, from which a learner that starts goes on now.

        anew: do not take the answer to an earlier call that came too late for it.

        Raises:
            CaptureError: the learner is dead, or does not answer in time; unless `anew`, a later call takes the answer.
        """
        if self._capture is None or anew:
            self._capture = self._learner.capture.remote()
        if not wait_any([self._capture], timeout_s):
            raise CaptureError(f"the learner did not answer within {timeout_s:.3g} s")
        capture, self._capture = self._capture, None
        try:
            learner_steps, files = get(capture, timeout_s=max(timeout_s, 1.0))
        except ray.exceptions.RayError as error:
            raise CaptureError(f"the learner does not answer: {short_line(error)}") from error
        self._files = files
        return learner_steps, files
