"""`Draws`: everything random in one evaluation of the objective, made beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from amago_ray.config.agent import AgentConfig
from amago_ray.nets.distributions import PolicyDistribution


@dataclass(frozen=True)
class Draws:
    """Random draws for M transitions, S critics per target, K actions; noise as `PolicyDistribution` defines it.

    critic_subset: `[M, S, G]` int64, critics of each target, drawn with replacement.
    target_action: `[M, K, G, ...]` for the target policy's actions; None where expectations are exact.
    policy_action: `[M, K, G, ...]` for actions of the policy that may carry a gradient.
    value_action: `[M, K, G, ...]` for those that only value the state (multi-task).
    """

    critic_subset: Tensor
    target_action: Tensor | None = None
    policy_action: Tensor | None = None
    value_action: Tensor | None = None

    def rows(self, start: int, stop: int) -> Draws:
        """The draws of transitions `start:stop`."""
        return Draws(
            self.critic_subset[start:stop],
            None if self.target_action is None else self.target_action[start:stop],
            None if self.policy_action is None else self.policy_action[start:stop],
            None if self.value_action is None else self.value_action[start:stop],
        )


def make_draws(
    config: AgentConfig, distribution: PolicyDistribution, num_transitions: int, generator: torch.Generator
) -> Draws:
    """What the objective of `config` needs for M transitions, on the generator's device."""
    num_discounts = len(config.discounts)
    subset = torch.randint(
        config.num_critics,
        (num_transitions, config.num_critics_in_target, num_discounts),
        generator=generator,
        device=generator.device,
    )

    def noise(num_samples: int, *, reparametrized: bool) -> Tensor:
        shape = (num_transitions, num_samples, num_discounts)
        return distribution.draw_noise(shape, generator, reparametrized=reparametrized)

    in_critic, in_policy = config.num_action_samples_in_critic_loss, config.num_action_samples_in_policy_loss
    has_online = config.online_coefficient > 0
    has_filter = config.offline_coefficient > 0 and config.advantage_filter != "none"
    if config.kind == "actor_critic":
        if distribution.is_exact:
            return Draws(subset)
        return Draws(
            subset, noise(in_critic, reparametrized=False), policy_action=noise(in_policy, reparametrized=has_online)
        )
    return Draws(
        subset,
        noise(in_critic, reparametrized=False),
        policy_action=noise(in_policy, reparametrized=True) if has_online else None,
        value_action=noise(in_policy, reparametrized=False) if has_filter else None,
    )
