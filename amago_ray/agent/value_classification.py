"""`ValueClassification`: the objective whose critics classify values into bins ("multi_task")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.agent.draws import Draws, draw_critics, draw_noise
from amago_ray.agent.objective import Objective
from amago_ray.agent.targets import reduce_ensemble
from amago_ray.agent.terms import Losses, NextValues, Transitions, combine, policy_entries
from amago_ray.agent.value_bins import ValueBins
from amago_ray.config.agent import AgentConfig
from amago_ray.config.model import HeadConfig
from amago_ray.nets.distributions import PolicyDistribution
from amago_ray.nets.heads import Critics, StateActionCritics

if TYPE_CHECKING:
    from jaxtyping import Float


class ValueClassification(Objective):
    """Cross-entropy over value bins, which weighs tasks alike whatever the size of their returns.

    Source: docs/algorithm.md §4.5, §5, §7, §8; AMAGO-2 (arXiv 2411.11188), section 3.
    Differs: the value of the policy's own action uses the current critics, detached, where the original keeps a copy
    that lags one update.
    """

    def __init__(self, config: AgentConfig, distribution: PolicyDistribution, bins: ValueBins) -> None:
        super().__init__(config, distribution)
        self.bins = bins

    def make_critics(self, config: AgentConfig, state_dim: int, head: HeadConfig) -> Critics:
        """Of given actions, with an output for each bin."""
        return StateActionCritics(
            state_dim,
            head,
            num_critics=config.num_critics,
            discounts=config.discounts,
            action_dim=self.distribution.num_features,
            num_outputs=len(self.bins.centers),
        )

    def make_draws(self, config: AgentConfig, num_transitions: int, generator: torch.Generator) -> Draws:
        """See `Objective`."""
        subset = draw_critics(config, num_transitions, generator)
        in_critic, in_policy = config.num_action_samples_in_critic_loss, config.num_action_samples_in_policy_loss
        has_online = config.online_coefficient > 0
        has_filter = config.offline_coefficient > 0 and config.filters_by_advantage
        rows = self.distribution, config, num_transitions
        return Draws(
            subset,
            draw_noise(*rows, in_critic, generator, reparametrized=False),
            policy_action=draw_noise(*rows, in_policy, generator, reparametrized=True) if has_online else None,
            value_action=draw_noise(*rows, in_policy, generator, reparametrized=False) if has_filter else None,
        )

    @torch.no_grad()
    def next_values(
        self,
        agent: ActorCritic,
        config: AgentConfig,
        next_states: Float[Tensor, "R D"],
        transitions: Transitions,
        draws: Draws,
    ) -> NextValues:
        """See `Objective`."""
        assert draws.target_action is not None
        moments = self.next_policy(agent, config, next_states, transitions)
        action = self.distribution.sample(tuple(moment[:, None] for moment in moments), draws.target_action)
        ensemble = self.bins.value(agent.target_critics(next_states, action).float()).mean(2)
        reduced = reduce_ensemble(ensemble, draws.critic_subset, pessimistic=config.online_coefficient > 0)
        return NextValues(policy=moments, raw=ensemble, ensemble=ensemble, reduced=reduced)

    def losses(
        self,
        agent: ActorCritic,
        config: AgentConfig,
        states: Float[Tensor, "R D"],
        transitions: Transitions,
        returns: Float[Tensor, "R G"] | None,
        draws: Draws,
        num_transitions: float,
    ) -> Losses:
        """See `Objective`."""
        bins, distribution, moments = self.bins, self.distribution, self.policy(agent, states, transitions)
        per_sample = tuple(moment[:, None] for moment in moments)
        taken_values = critic_entries = None
        if returns is not None:
            action = distribution.encode(transitions.action, transitions.action_mask)
            log_probs = agent.critics(states, action[:, None, None]).float()[:, :, 0].log_softmax(-1)
            critic_entries = -(bins.label(returns) * log_probs).sum(-1)
            taken_values = bins.value(log_probs.detach())

        online_values = imitation = advantage = weight = log_prob = policy_values = online_samples = None
        if config.offline_coefficient > 0:
            log_prob = imitation = distribution.log_prob(moments, transitions.action[:, None])
            if config.filters_by_advantage:
                assert draws.value_action is not None
                assert taken_values is not None
                with torch.no_grad():
                    sampled = distribution.sample(per_sample, draws.value_action)
                    policy_values = bins.value(agent.critics(states, sampled).float())
                    advantage = taken_values.mean(0) - policy_values.mean((0, 2))
                    weight = self.advantage_filter(advantage)
                imitation = weight * log_prob
        if config.online_coefficient > 0:
            assert draws.policy_action is not None
            reparametrized = distribution.rsample(per_sample, draws.policy_action)
            online_samples = bins.value(self.judges(agent)(states.detach(), reparametrized, frozen=True).float())
            online_values = agent.popart.normalized(online_samples.mean(2).amin(0))
        entries = policy_entries(config, moments, online_values, imitation)
        total, critic, policy = combine(config, transitions, num_transitions, critic_entries, entries)
        return Losses(
            total=total,
            critic=critic,
            policy=policy,
            policy_entries=entries,
            policy_moments=moments,
            critic_entries=critic_entries,
            taken_values=taken_values,
            policy_values=policy_values,
            online_values=online_values,
            online_samples=online_samples,
            advantage=advantage,
            filter=weight,
            log_prob=log_prob,
        )

    def in_return_units(self, agent: ActorCritic, values: Float[Tensor, "R G"]) -> Float[Tensor, "R G"]:
        """See `Objective`."""
        return values
