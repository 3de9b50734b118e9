"""Learning: updates of the agent from packed batches, optimizer, schedules, training state, import of AMAGO weights.

Offers `Learner`, `StepReport`, `save_training_state`, `load_training_state`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amago_ray._lazy import importer

if TYPE_CHECKING:
    from amago_ray.learning.learner import Learner, StepReport
    from amago_ray.learning.training_state import load_training_state, save_training_state


__all__ = ["Learner", "StepReport", "load_training_state", "save_training_state"]

__getattr__ = importer(
    __name__,
    {
        "Learner": "learner",
        "StepReport": "learner",
        "load_training_state": "training_state",
        "save_training_state": "training_state",
    },
)
