"""The agent: actor-critic assembly, objective, PopArt, targets, weights.

Offers `ActorCritic`, `build_actor_critic`, `Draws`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amago_ray.agent.actor_critic import ActorCritic, build_actor_critic
    from amago_ray.agent.draws import Draws

_HOMES = {
    "ActorCritic": "actor_critic",
    "Draws": "draws",
    "build_actor_critic": "actor_critic",
}

__all__ = ["ActorCritic", "Draws", "build_actor_critic"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
