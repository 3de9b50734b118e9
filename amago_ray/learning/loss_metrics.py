"""What updates report: scalars on the device, by metric name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from amago_ray.agent.actor_critic import ActorCritic
from amago_ray.agent.objective import Objective
from amago_ray.agent.terms import weighted_mean
from amago_ray.learning.batch import DeviceBatch
from amago_ray.learning.gradients import GradientPass


def loss_sums(passes: Sequence[GradientPass]) -> dict[str, Tensor]:
    """Losses of one update, as far as these passes make it up."""
    losses = [terms for each in passes for terms in each.losses]
    return {
        "loss/total": torch.stack([terms.total.detach() for terms in losses]).sum(),
        "loss/critic": torch.stack([terms.critic.detach() for terms in losses]).sum(),
        "loss/policy": torch.stack([terms.policy.detach() for terms in losses]).sum(),
    }


@torch.no_grad()
def column_means(
    agent: ActorCritic,
    objective: Objective,
    batches: Sequence[DeviceBatch],
    passes: Sequence[GradientPass],
    num_transitions: float,
) -> dict[str, Tensor]:
    """What the acting discount's critics and policy are up to, as shares of means over `num_transitions`."""
    means: dict[str, Tensor] = {}
    for batch, each in zip(batches, passes, strict=True):
        for name, column in _columns(agent, objective, each).items():
            mean = weighted_mean(column[:, -1:], batch.transitions.weight, num_transitions, 1)
            means[name] = means[name] + mean if name in means else mean
    return means


def statistics_metrics(agent: ActorCritic, passes: Sequence[GradientPass]) -> dict[str, Tensor]:
    """What the agent keeps of the targets; nothing where none were computed."""
    has_targets = agent.popart.enabled and any(each.returns is not None for each in passes)
    return {"loss/target_std": agent.popart.std[-1]} if has_targets else {}


def _columns(agent: ActorCritic, objective: Objective, computed: GradientPass) -> dict[str, Tensor]:
    """What is averaged, each `[M, G]`."""
    columns: dict[str, Tensor] = {}
    if computed.returns is not None:
        columns["loss/target_mean"] = computed.returns
    for name in ("advantage", "filter", "log_prob"):
        entries = [getattr(terms, name) for terms in computed.losses]
        if entries[0] is not None:
            columns[f"loss/{name}_mean"] = torch.cat(entries)
    values = [terms.taken_values.mean(0) for terms in computed.losses if terms.taken_values is not None]
    if values:
        columns["loss/value_mean"] = objective.in_return_units(agent, torch.cat(values))
    return columns
