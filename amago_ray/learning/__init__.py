"""Learning: updates of the agent from packed batches, optimizer, schedules, training state, import of AMAGO weights.

Offers `Learner` and `StepReport`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amago_ray._lazy import importer

if TYPE_CHECKING:
    from amago_ray.learning.learner import Learner, StepReport


__all__ = ["Learner", "StepReport"]

__getattr__ = importer(__name__, {"Learner": "learner", "StepReport": "learner"})
