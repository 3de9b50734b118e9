"""`agree`: what learners that train together do next."""

from __future__ import annotations

from typing import NamedTuple

import torch

from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.errors import TrainingError
from amago_ray.learning.batch import Counts
from amago_ray.learning.collective import Collective


class Agreement(NamedTuple):
    """What all learners do next: train on a batch each, stop, or (neither) ask again.

    counts: of all their batches, None where one of them has none.
    """

    counts: Counts | None
    is_over: bool


def agree(collective: Collective, batch: SequenceBatch | None, *, is_over: bool, fingerprint: int = 0) -> Agreement:
    """Tell the others whether this learner has a batch, or is at its end, and learn what all do; one small sum.

    A learner calls it with its batch, or without where it has waited long enough, so that none waits for ever for
    another that gets none. fingerprint: of a state that should be the same for all, below 2^40.

    Raises:
        TrainingError: the fingerprints differ.
        CollectiveError: see `Collective.sum_`.
    """
    own = Counts(0.0, 0.0) if batch is None else Counts.of(batch)
    if collective.size == 1:
        return Agreement(None if batch is None else own, is_over)
    news = [float(batch is not None), float(is_over), own.num_tokens, own.num_transitions, float(fingerprint)]
    # Sums of whole numbers, exact in float64. On the host: where training runs on a device, nobody waits for it.
    sums = torch.tensor(news, dtype=torch.float64)
    collective.sum_(sums)
    num_ready, num_over, num_tokens, num_transitions, fingerprints = sums.tolist()
    if fingerprints != collective.size * float(fingerprint):
        raise TrainingError("the learners hold different weights, which nothing may lead to: do their machines differ?")
    is_ready = num_ready == collective.size and not num_over
    return Agreement(Counts(num_tokens, num_transitions) if is_ready else None, num_over > 0)
