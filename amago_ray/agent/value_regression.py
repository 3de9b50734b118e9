"""The objective whose critics regress PopArt-normalised values ("actor_critic").

Source: AMAGO (arXiv 2310.09971), section 3 and appendix A; formulas 3.3-3.11 of the reference.
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
from amago_ray.nets.distributions import Moments
from amago_ray.nets.heads import StateActionCritics, StateCritics

Critics = StateCritics | StateActionCritics


@torch.no_grad()
def compute_next_values(agent: ActorCritic, next_states: Tensor, transitions: Transitions, draws: Draws) -> NextValues:
    """Values of the states `[R, D]` that R transitions lead to, with PopArt's statistics as they are."""
    config = agent.config
    policy_head = agent.target_policy_head if config.use_target_policy else agent.policy_head
    moments = agent.distribution.moments(policy_head(next_states).float(), _per_discount(transitions.next_action_mask))
    raw = _policy_values(agent, agent.target_critics, next_states, moments, draws.target_action, gradient=False)
    ensemble = agent.popart.denormalized_output(raw)
    reduced = reduce_ensemble(ensemble, draws.critic_subset, pessimistic=config.online_coefficient > 0)
    return NextValues(policy=moments, raw=raw, ensemble=ensemble, reduced=reduced)


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

    returns: None leaves the critics out. value_critics: what values the policy's own actions, without gradient to
    their parameters; None is the agent's own.
    """
    config, popart, distribution = agent.config, agent.popart, agent.distribution
    moments = distribution.moments(agent.policy_head(states).float(), _per_discount(transitions.action_mask))
    taken_values = policy_values = critic_entries = None
    if returns is not None:
        taken_values, policy_values = _values(agent, states, transitions, moments, draws, value_critics)
        critic_entries = (popart.normalized_output(taken_values) - popart.normalized(returns)).square()

    online_values = imitation = advantage = weight = log_prob = None
    if config.online_coefficient > 0:
        assert policy_values is not None
        online_values = popart.normalized_output(policy_values.amin(0))
    if config.offline_coefficient > 0:
        log_prob = imitation = distribution.log_prob(moments, transitions.action[:, None])
        if config.advantage_filter != "none":
            assert taken_values is not None
            assert policy_values is not None
            advantage = (taken_values.detach() - policy_values.detach()).mean(0)
            weight = filter_weight(advantage, config)
            imitation = weight * log_prob
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
        advantage=advantage,
        filter=weight,
        log_prob=log_prob,
    )


def _values(
    agent: ActorCritic,
    states: Tensor,
    transitions: Transitions,
    moments: Moments,
    draws: Draws,
    value_critics: Critics | None,
) -> tuple[Tensor, Tensor]:
    """Raw values `[C, R, G]` of the actions taken, and of the policy's own."""
    action = agent.distribution.encode(transitions.action, transitions.action_mask)
    has_gradient = agent.config.online_coefficient > 0
    if isinstance(agent.critics, StateCritics):
        action_values = agent.critics(states).float()
        taken_values = (action_values * action[:, None]).sum(-1)
        if value_critics is None:
            # One forward serves both: the policy's own actions are valued by the same outputs, detached.
            return taken_values, (action_values.detach() * moments[0]).sum(-1)
    else:
        taken_values = agent.critics(states, action[:, None, None]).float()[:, :, 0, :, 0]
    critics = value_critics or agent.critics
    noise = draws.policy_action
    return taken_values, _policy_values(agent, critics, states.detach(), moments, noise, gradient=has_gradient)


def _policy_values(
    agent: ActorCritic, critics: Critics, states: Tensor, moments: Moments, noise: Tensor | None, *, gradient: bool
) -> Tensor:
    """Raw values `[C, R, G]` of the policy's own actions: exact for discrete ones, else the mean over samples."""
    if isinstance(critics, StateCritics):
        action_values: Tensor = critics(states, frozen=True).float()
        return (action_values * moments[0]).sum(-1)
    assert noise is not None
    per_sample = tuple(moment[:, None] for moment in moments)
    with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
        sample = agent.distribution.rsample if gradient else agent.distribution.sample
        values: Tensor = critics(states, sample(per_sample, noise), frozen=True).float()
        return values.squeeze(-1).mean(2)


def _per_discount(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask[:, None]
