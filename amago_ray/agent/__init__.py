"""The agent: actor-critic assembly, objective, PopArt, targets, weights.

Offers `ActorCritic`, `build_actor_critic`, `Draws`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amago_ray._lazy import importer

if TYPE_CHECKING:
    from amago_ray.agent.actor_critic import ActorCritic, build_actor_critic
    from amago_ray.agent.draws import Draws


__all__ = ["ActorCritic", "Draws", "build_actor_critic"]

__getattr__ = importer(
    __name__,
    {
        "ActorCritic": "actor_critic",
        "Draws": "draws",
        "build_actor_critic": "actor_critic",
    },
)
