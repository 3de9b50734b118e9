"""The objective whose critics classify values into bins ("multi_task").

Source: AMAGO-2 (arXiv 2411.11188), section 3; formulas 3.3-3.11 of the reference.
Differs: the value of the policy's own action uses the current critics, detached, where the original keeps a copy that
lags one update; `value_critics` takes such a copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.agent.draws import Draws
from amago_ray.agent.filters import filter_weight
from amago_ray.agent.targets import reduce_ensemble
from amago_ray.agent.terms import Losses, NextValues, Transitions, combine, policy_entries
from amago_ray.nets.heads import StateActionCritics, StateCritics

Critics = StateCritics | StateActionCritics


@torch.no_grad()
def compute_next_values(agent: ActorCritic, next_states: Tensor, transitions: Transitions, draws: Draws) -> NextValues:
    """Values of the states `[R, D]` that R transitions lead to."""
    config, distribution = agent.config, agent.distribution
    assert draws.target_action is not None
    policy_head = agent.target_policy_head if config.use_target_policy else agent.policy_head
    moments = distribution.moments(policy_head(next_states).float(), _per_discount(transitions.next_action_mask))
    action = distribution.sample(tuple(moment[:, None] for moment in moments), draws.target_action)
    ensemble = agent.value_bins.value(agent.target_critics(next_states, action).float()).mean(2)
    reduced = reduce_ensemble(ensemble, draws.critic_subset, pessimistic=config.online_coefficient > 0)
    return NextValues(policy=moments, raw=ensemble, ensemble=ensemble, reduced=reduced)


def compute_losses(
    agent: ActorCritic,
    states: Tensor,
    transitions: Transitions,
    returns: Tensor | None,
    draws: Draws,
    num_transitions: float,
    value_critics: Critics | None = None,
) -> Losses:
    """Losses of R transitions from their states `[R, D]` and targets `[R, G]`, averaged over `num_transitions`.

    returns: None leaves the critics out. value_critics: what values the policy's own actions in the online term,
    without gradient to their parameters; None is the agent's own.
    """
    config, bins, distribution = agent.config, agent.value_bins, agent.distribution
    moments = distribution.moments(agent.policy_head(states).float(), _per_discount(transitions.action_mask))
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
        if config.advantage_filter != "none":
            assert draws.value_action is not None
            assert taken_values is not None
            with torch.no_grad():
                sampled = distribution.sample(per_sample, draws.value_action)
                policy_values = bins.value(agent.critics(states, sampled).float())
                advantage = taken_values.mean(0) - policy_values.mean((0, 2))
                weight = filter_weight(advantage, config)
            imitation = weight * log_prob
    if config.online_coefficient > 0:
        assert draws.policy_action is not None
        critics = value_critics or agent.critics
        reparametrized = distribution.rsample(per_sample, draws.policy_action)
        online_samples = bins.value(critics(states.detach(), reparametrized, frozen=True).float())
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


def _per_discount(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask[:, None]
