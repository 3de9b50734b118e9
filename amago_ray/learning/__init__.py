"""Learning: updates of the agent from packed batches, optimizer, schedules, training state, import of AMAGO weights.

Offers `Learner`, `StepReport`, `save_training_state`, `load_training_state`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amago_ray.learning.learner import Learner, StepReport
    from amago_ray.learning.training_state import load_training_state, save_training_state

_HOMES = {
    "Learner": "learner",
    "StepReport": "learner",
    "load_training_state": "training_state",
    "save_training_state": "training_state",
}

__all__ = ["Learner", "StepReport", "load_training_state", "save_training_state"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
