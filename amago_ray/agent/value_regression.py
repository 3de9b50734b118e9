"""`ValueRegression`: the objective whose critics regress PopArt-normalised values ("actor_critic")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.agent.draws import Draws, draw_critics, draw_noise
from amago_ray.agent.objective import Objective
from amago_ray.agent.targets import reduce_ensemble
from amago_ray.agent.terms import Losses, NextValues, Transitions, combine, policy_entries
from amago_ray.config.agent import AgentConfig
from amago_ray.config.model import HeadConfig
from amago_ray.nets.distributions import Moments
from amago_ray.nets.heads import Critics, StateActionCritics, StateCritics

if TYPE_CHECKING:
    from jaxtyping import Float


class ValueRegression(Objective):
    """Squared errors of values that PopArt normalises; exact expectations over discrete actions.

    Source: docs/algorithm.md §4.4, §5-8; AMAGO (arXiv 2310.09971), section 3 and appendix A.
    Differs: the value of the policy's own action uses the current critics, detached, where the original keeps a copy
    that lags one update.
    """

    def make_critics(self, config: AgentConfig, state_dim: int, head: HeadConfig) -> Critics:
        """Of all actions at once where these can be summed over, else of given ones."""
        if self.distribution.is_exact:
            return StateCritics(
                state_dim,
                head,
                num_critics=config.num_critics,
                num_discounts=len(config.discounts),
                num_actions=self.distribution.num_features,
            )
        return StateActionCritics(
            state_dim,
            head,
            num_critics=config.num_critics,
            discounts=config.discounts,
            action_dim=self.distribution.num_features,
        )

    def make_draws(self, config: AgentConfig, num_transitions: int, generator: torch.Generator) -> Draws:
        """See `Objective`."""
        subset = draw_critics(config, num_transitions, generator)
        if self.distribution.is_exact:
            return Draws(subset)
        in_critic, in_policy = config.num_action_samples_in_critic_loss, config.num_action_samples_in_policy_loss
        has_online = config.online_coefficient > 0
        rows = self.distribution, config, num_transitions
        return Draws(
            subset,
            draw_noise(*rows, in_critic, generator, reparametrized=False),
            policy_action=draw_noise(*rows, in_policy, generator, reparametrized=has_online),
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
        moments = self.next_policy(agent, config, next_states, transitions)
        raw = self._policy_values(agent.target_critics, next_states, moments, draws.target_action, gradient=False)
        ensemble = agent.popart.denormalized_output(raw)
        reduced = reduce_ensemble(ensemble, draws.critic_subset, pessimistic=config.online_coefficient > 0)
        return NextValues(policy=moments, raw=raw, ensemble=ensemble, reduced=reduced)

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
        popart, moments = agent.popart, self.policy(agent, states, transitions)
        taken_values = policy_values = critic_entries = None
        if returns is not None:
            taken_values, policy_values = self._values(agent, config, states, transitions, moments, draws)
            critic_entries = self.critic_entries(popart.normalized_output(taken_values), popart.normalized(returns))

        online_values = imitation = advantage = weight = log_prob = None
        if config.online_coefficient > 0:
            assert policy_values is not None
            online_values = popart.normalized_output(policy_values.amin(0))
        if config.offline_coefficient > 0:
            log_prob = imitation = self.distribution.log_prob(moments, transitions.action[:, None])
            if config.filters_by_advantage:
                assert taken_values is not None
                assert policy_values is not None
                advantage = (taken_values.detach() - policy_values.detach()).mean(0)
                weight = self.advantage_filter(advantage)
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

    def in_return_units(self, agent: ActorCritic, values: Float[Tensor, "R G"]) -> Float[Tensor, "R G"]:
        """See `Objective`."""
        return agent.popart.denormalized_output(values)

    def critic_entries(self, values: Float[Tensor, "C R G"], targets: Float[Tensor, "R G"]) -> Float[Tensor, "C R G"]:
        """What each critic loses by its values, both normalised."""
        return (values - targets).square()

    def _values(
        self,
        agent: ActorCritic,
        config: AgentConfig,
        states: Float[Tensor, "R D"],
        transitions: Transitions,
        moments: Moments,
        draws: Draws,
    ) -> tuple[Float[Tensor, "C R G"], Float[Tensor, "C R G"]]:
        """Raw values of the actions taken, and of the policy's own."""
        action = self.distribution.encode(transitions.action, transitions.action_mask)
        judges, has_gradient = self.judges(agent), config.online_coefficient > 0
        if isinstance(agent.critics, StateCritics):
            action_values = agent.critics(states).float()
            taken_values = (action_values * action[:, None]).sum(-1)
            if judges is agent.critics:
                # One forward serves both: the policy's own actions are valued by the same outputs, detached.
                return taken_values, (action_values.detach() * moments[0]).sum(-1)
        else:
            taken_values = agent.critics(states, action[:, None, None]).float()[:, :, 0, :, 0]
        noise = draws.policy_action
        return taken_values, self._policy_values(judges, states.detach(), moments, noise, gradient=has_gradient)

    def _policy_values(
        self,
        critics: Critics,
        states: Float[Tensor, "R D"],
        moments: Moments,
        noise: Tensor | None,
        *,
        gradient: bool,
    ) -> Float[Tensor, "C R G"]:
        """Raw values of the policy's own actions: exact for discrete ones, else the mean over samples."""
        if isinstance(critics, StateCritics):
            action_values: Tensor = critics(states, frozen=True).float()
            return (action_values * moments[0]).sum(-1)
        assert noise is not None
        per_sample = tuple(moment[:, None] for moment in moments)
        with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
            sample = self.distribution.rsample if gradient else self.distribution.sample
            values: Tensor = critics(states, sample(per_sample, noise), frozen=True).float()
            return values.squeeze(-1).mean(2)
