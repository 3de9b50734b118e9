"""`EvaluatorActor`: a process that evaluates snapshots while training goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from amago_ray.config import Config
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.runtime.actors import get


class EvaluatorActor:
    """A thin shell around `Evaluator`."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def make(self) -> None:
        """Make the environments and the policy: before the first evaluation, so that the caller learns why not."""
        # Imported here, not above: the driver, which names this class, needs no torch.
        import torch

        from amago_ray.acting.evaluation import Evaluator

        torch.set_num_threads(1)
        self._evaluator = Evaluator(self._config)

    def evaluate(self, number: int, snapshot: Sequence[Any]) -> tuple[int, list[EpisodeStats], bytes] | None:
        """Evaluate the snapshot (one reference, in a list): its learner steps, the episodes, its file.

        None where the snapshot is lost: the control actor, which owned it, died.
        """
        from amago_ray.agent.weights import snapshot_to_bytes

        try:
            weights = get(snapshot[0])
        except (ray.exceptions.OwnerDiedError, ray.exceptions.ObjectLostError):
            return None
        episodes = self._evaluator.evaluate(number, weights)
        return weights.version.learner_steps, episodes, snapshot_to_bytes(weights)

    def __repr__(self) -> str:
        """The name in logs and in the Ray dashboard."""
        return "Evaluator"
