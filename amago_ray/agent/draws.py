"""`Draws`: everything random in one evaluation of the objective, made beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from amago_ray.config.agent import AgentConfig
from amago_ray.nets.distributions import PolicyDistribution

if TYPE_CHECKING:
    from jaxtyping import Int, Shaped


@dataclass(frozen=True)
class Draws:
    """Random draws for M transitions, S critics per target, K actions; noise as `PolicyDistribution` defines it.

    critic_subset: `[M, S, G]` int64, critics of each target, drawn with replacement.
    target_action: `[M, K, G, ...]` for the target policy's actions; None where expectations are exact.
    policy_action: `[M, K, G, ...]` for actions of the policy that may carry a gradient.
    value_action: `[M, K, G, ...]` for those that only value the state (multi-task).
    """

    critic_subset: Int[Tensor, "M S G"]
    target_action: Shaped[Tensor, "M K G ..."] | None = None
    policy_action: Shaped[Tensor, "M K G ..."] | None = None
    value_action: Shaped[Tensor, "M K G ..."] | None = None

    def rows(self, start: int, stop: int) -> Draws:
        """The draws of transitions `start:stop`."""
        return Draws(
            self.critic_subset[start:stop],
            None if self.target_action is None else self.target_action[start:stop],
            None if self.policy_action is None else self.policy_action[start:stop],
            None if self.value_action is None else self.value_action[start:stop],
        )


def draw_critics(config: AgentConfig, num_transitions: int, generator: torch.Generator) -> Int[Tensor, "M S G"]:
    """Which critics each target is made of."""
    shape = (num_transitions, config.num_critics_in_target, len(config.discounts))
    return torch.randint(config.num_critics, shape, generator=generator, device=generator.device)


def draw_noise(
    distribution: PolicyDistribution,
    config: AgentConfig,
    num_transitions: int,
    num_samples: int,
    generator: torch.Generator,
    *,
    reparametrized: bool,
) -> Shaped[Tensor, "M K G ..."]:
    """Noise for K actions in each state and for each discount."""
    shape = (num_transitions, num_samples, len(config.discounts))
    return distribution.draw_noise(shape, generator, reparametrized=reparametrized)
