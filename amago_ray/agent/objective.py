"""The objective: values of next states, targets, then losses, of the kind that the settings ask for.

All functions are pure: they change no module, and everything random comes in as `Draws`. Between targets and losses the
caller updates PopArt with the targets (statistics first, then the loss).
"""

from __future__ import annotations

import torch
from torch import Tensor

from amago_ray.agent import value_classification, value_regression
from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.agent.draws import Draws
from amago_ray.agent.targets import n_step_returns
from amago_ray.agent.terms import Losses, NextValues, Transitions
from amago_ray.agent.value_regression import Critics


def compute_next_values(agent: ActorCritic, next_states: Tensor, transitions: Transitions, draws: Draws) -> NextValues:
    """Values of the states `[R, D]` that R transitions lead to, without gradient."""
    if agent.config.kind == "multi_task":
        return value_classification.compute_next_values(agent, next_states, transitions, draws)
    return value_regression.compute_next_values(agent, next_states, transitions, draws)


@torch.no_grad()
def compute_returns(agent: ActorCritic, transitions: Transitions, next_values: Tensor) -> Tensor:
    """Targets `[M, G]` in return units of M transitions, whole sequences, from `next_values [M, G]`."""
    return n_step_returns(
        agent.config.reward_multiplier * transitions.reward,
        transitions.terminated,
        next_values,
        agent.discounts,
        n_step=agent.config.n_step,
        steps_left=transitions.steps_left,
    )


def compute_losses(
    agent: ActorCritic,
    states: Tensor,
    transitions: Transitions,
    returns: Tensor | None,
    draws: Draws,
    num_transitions: float,
    value_critics: Critics | None = None,
) -> Losses:
    """Losses of R transitions from their states `[R, D]` and targets `[R, G]` in return units (None: critics left out).

    num_transitions: what the losses are averaged over, which is R only where these are all of an update's rows.
    value_critics: what values the policy's own actions, without gradient to their parameters; None is the agent's own.
    """
    arguments = (agent, states, transitions, returns, draws, num_transitions, value_critics)
    if agent.config.kind == "multi_task":
        return value_classification.compute_losses(*arguments)
    return value_regression.compute_losses(*arguments)
