"""`Objective`: what the critics learn, and what that makes of targets and losses; one class for each `agent.kind`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.agent.draws import Draws
from amago_ray.agent.filters import make_filter
from amago_ray.agent.targets import n_step_returns
from amago_ray.agent.terms import Losses, NextValues, Transitions, per_discount
from amago_ray.config.agent import AgentConfig
from amago_ray.config.model import HeadConfig
from amago_ray.nets.distributions import Moments, PolicyDistribution
from amago_ray.nets.heads import Critics

if TYPE_CHECKING:
    from jaxtyping import Float


class Objective(nn.Module, ABC):
    """What critics learn. Its functions are pure: they change no module, and everything random comes in as `Draws`.

    A custom one is named `module:attr` in `agent.kind`, where `attr` is called with
    `(config: CustomAgentConfig, distribution: PolicyDistribution, **config.kwargs)`; most are short subclasses of
    `ValueRegression` or `ValueClassification`. `config` is everywhere that of the update, as the weights of its terms
    may follow a schedule; parameters belong to the critics, not to the objective. Between targets and losses the caller
    updates PopArt with the targets (statistics first, then the loss).
    """

    def __init__(self, config: AgentConfig, distribution: PolicyDistribution) -> None:
        super().__init__()
        self.distribution = distribution
        self.advantage_filter = make_filter(config.advantage_filter)

    @abstractmethod
    def make_critics(self, config: AgentConfig, state_dim: int, head: HeadConfig) -> Critics:
        """Fresh critics of states `[R, D]`."""

    @abstractmethod
    def make_draws(self, config: AgentConfig, num_transitions: int, generator: torch.Generator) -> Draws:
        """What `next_values` and `losses` need for M transitions, on the generator's device."""

    @abstractmethod
    def next_values(
        self,
        agent: ActorCritic,
        config: AgentConfig,
        next_states: Float[Tensor, "R D"],
        transitions: Transitions,
        draws: Draws,
    ) -> NextValues:
        """Values of the states that R transitions lead to, without gradient, with PopArt's statistics as they are."""

    @abstractmethod
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
        """Losses of R transitions from their states and targets in return units (None: critics left out).

        num_transitions: what the losses are averaged over, which is R only where these are all of an update's rows.
        """

    @abstractmethod
    def in_return_units(self, agent: ActorCritic, values: Float[Tensor, "R G"]) -> Float[Tensor, "R G"]:
        """What `Losses.taken_values` mean."""

    def judges(self, agent: ActorCritic) -> Critics:
        """The critics that value the policy's own actions for the online term, without gradient to their parameters."""
        return agent.critics

    def next_policy(
        self, agent: ActorCritic, config: AgentConfig, next_states: Float[Tensor, "R D"], transitions: Transitions
    ) -> Moments:
        """Moments `[R, G, ...]` of the policy whose actions targets value."""
        policy_head = agent.target_policy_head if config.use_target_policy else agent.policy_head
        mask = per_discount(transitions.next_action_mask)
        return self.distribution.moments(policy_head(next_states).float(), mask)

    def policy(self, agent: ActorCritic, states: Float[Tensor, "R D"], transitions: Transitions) -> Moments:
        """Moments `[R, G, ...]` of the policy."""
        mask = per_discount(transitions.action_mask)
        return self.distribution.moments(agent.policy_head(states).float(), mask)


@torch.no_grad()
def compute_returns(
    agent: ActorCritic, config: AgentConfig, transitions: Transitions, next_values: Float[Tensor, "M G"]
) -> Float[Tensor, "M G"]:
    """Targets in return units of M transitions, whole sequences, from the values of what they lead to."""
    return n_step_returns(
        config.reward_multiplier * transitions.reward,
        transitions.terminated,
        next_values,
        agent.discounts,
        n_step=config.n_step,
        steps_left=transitions.steps_left,
    )
