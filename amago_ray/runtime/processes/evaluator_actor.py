"""`EvaluatorActor`: a process that evaluates snapshots while training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amago_ray.config import Config
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.envs.hang_watch import hung_call
from amago_ray.runtime.protocol.actors import get_unless_lost
from amago_ray.runtime.protocol.pulse import start_pulses


class EvaluatorActor:
    """A thin shell around `Evaluator`."""

    def __init__(self, config: Config, control: Any) -> None:
        self._config = config
        self._pulses = start_pulses(config, "evaluator", control, hung=hung_call)

    def make(self) -> None:
        """Make the environments and the policy: before the first evaluation, so that the caller learns why not."""
        # Imported here, not above: the driver, which names this class, needs no torch.
        import torch

        from amago_ray.acting.evaluation import Evaluator

        torch.set_num_threads(1)
        with self._pulses.working("making environments and policy"):
            self._evaluator = Evaluator(self._config)

    def evaluate(self, number: int, snapshot: Sequence[Any]) -> tuple[int, list[EpisodeStats], bytes] | None:
        """Evaluate the snapshot (one reference, in a list): its learner steps, the episodes, its file.

        None where the snapshot is lost, as when the control actor died, which owned it, or does not come.
        """
        from amago_ray.agent.weights import snapshot_to_bytes

        self._pulses.waits("waiting for weights")
        weights = get_unless_lost(snapshot[0], self._config.supervision.dead_after_s)
        if weights is None:
            return None
        with self._pulses.working("evaluating"):
            episodes = self._evaluator.evaluate(number, weights, self._goes_on)
        return weights.version.learner_steps, episodes, snapshot_to_bytes(weights)

    def _goes_on(self) -> bool:
        """Asked before every step whether to end here; each is a piece of work of its own."""
        self._pulses.works("evaluating")
        return False

    def __repr__(self) -> str:
        """The name in logs and in the Ray dashboard."""
        return "Evaluator"
