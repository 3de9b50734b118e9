"""The agent: actor-critic assembly, objective, PopArt, targets, weights.

Offers `ActorCritic`, `build_actor_critic`, `make_objective`, and for objectives of one's own `Objective`,
`ValueRegression`, `ValueClassification`, `ValueBins`, `Draws`, `Losses`, `NextValues`, `Transitions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amago_ray._lazy import importer

if TYPE_CHECKING:
    from amago_ray.agent.actor_critic import ActorCritic
    from amago_ray.agent.draws import Draws
    from amago_ray.agent.make import build_actor_critic, make_objective
    from amago_ray.agent.objective import Objective
    from amago_ray.agent.terms import Losses, NextValues, Transitions
    from amago_ray.agent.value_bins import ValueBins
    from amago_ray.agent.value_classification import ValueClassification
    from amago_ray.agent.value_regression import ValueRegression


__all__ = [
    "ActorCritic",
    "Draws",
    "Losses",
    "NextValues",
    "Objective",
    "Transitions",
    "ValueBins",
    "ValueClassification",
    "ValueRegression",
    "build_actor_critic",
    "make_objective",
]

__getattr__ = importer(
    __name__,
    {
        "ActorCritic": "actor_critic",
        "Draws": "draws",
        "Losses": "terms",
        "NextValues": "terms",
        "Objective": "objective",
        "Transitions": "terms",
        "ValueBins": "value_bins",
        "ValueClassification": "value_classification",
        "ValueRegression": "value_regression",
        "build_actor_critic": "make",
        "make_objective": "make",
    },
)
