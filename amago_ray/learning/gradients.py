"""One pass of the objective over one batch: forward, targets, statistics, losses, gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.agent.draws import Draws
from amago_ray.agent.objective import Objective, compute_returns
from amago_ray.agent.terms import Losses, NextValues
from amago_ray.config.agent import AgentConfig
from amago_ray.learning.batch import DeviceBatch


@dataclass(frozen=True, eq=False)
class GradientPass:
    """What one pass computed: states `[N, D]`, targets `[M, G]` and, for each chunk of rows, what led there."""

    states: Tensor
    returns: Tensor | None
    next_values: list[NextValues]
    losses: list[Losses]


def accumulate_gradients(
    agent: ActorCritic,
    objective: Objective,
    config: AgentConfig,
    batch: DeviceBatch,
    draws: Draws,
    *,
    num_transitions: float,
    rows_per_chunk: int | None = None,
    precision: torch.dtype = torch.float32,
) -> GradientPass:
    """Add the gradients of the batch's loss to the agent's parameters; running statistics move on the way.

    num_transitions: what losses are averaged over (those of the whole update). rows_per_chunk: heads and losses run
    forward and backward on so many transitions at a time, which keeps their activations in cache; None runs all at
    once. precision: what networks run in.
    """
    autocast = torch.autocast(batch.layout.device.type, precision, enabled=precision != torch.float32)
    transitions, rows = batch.transitions, batch.layout.transition_rows
    step = rows_per_chunk or len(transitions)
    chunks = [(start, min(start + step, len(transitions))) for start in range(0, len(transitions), step)]
    with autocast:
        states = agent.states(batch.tokens, batch.layout, batch.token_weight)
        inputs = states.detach()
        next_values = []
        if config.trains_critics:
            for start, stop in chunks:
                next_states, part = inputs[rows[start:stop] + 1], transitions.rows(start, stop)
                next_values.append(objective.next_values(agent, config, next_states, part, draws.rows(start, stop)))
    returns = None
    if next_values:
        returns = compute_returns(agent, config, transitions, torch.cat([values.reduced for values in next_values]))
        agent.popart.update(returns, transitions.weight)

    losses = []
    state_gradient = torch.zeros_like(states)
    for start, stop in chunks:
        chunk_inputs = inputs[rows[start:stop]].requires_grad_()
        with autocast:
            terms = objective.losses(
                agent,
                config,
                chunk_inputs,
                transitions.rows(start, stop),
                None if returns is None else returns[start:stop],
                draws.rows(start, stop),
                num_transitions,
            )
        terms.total.backward()  # type: ignore[no-untyped-call]
        assert chunk_inputs.grad is not None
        state_gradient[rows[start:stop]] = chunk_inputs.grad
        losses.append(terms)
    _GivenGradient.apply(states, state_gradient).backward()  # type: ignore[no-untyped-call]
    return GradientPass(states, returns, next_values, losses)


class _GivenGradient(torch.autograd.Function):
    """A scalar whose gradient with respect to the input is given.

    `Tensor.backward(gradient)` would do, but imports the compiler's symbolic shapes (half a second) on its first call.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return x.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient, None
