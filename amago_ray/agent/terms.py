"""What the objective reads and returns: transitions, targets, losses."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from amago_ray.config.agent import AgentConfig
from amago_ray.nets.distributions import Moments

EPSILON = 1e-5
"""Added to the number of entries that a loss is averaged over, as in the original."""


@dataclass(frozen=True)
class Transitions:
    """M transitions of a packed batch.

    action: storage form `[M, ...]`; reward `[M]` as the environment gave it; terminated `[M]` bool.
    weight `[M]` or None where all count alike. steps_left `[M]`: transitions to the end of the sequence, this one
    included (None where targets are one-step). action_mask and next_action_mask `[M, mask_size]` bool or None.
    """

    action: Tensor
    reward: Tensor
    terminated: Tensor
    weight: Tensor | None = None
    steps_left: Tensor | None = None
    action_mask: Tensor | None = None
    next_action_mask: Tensor | None = None

    def __len__(self) -> int:
        """M."""
        return len(self.reward)

    def rows(self, start: int, stop: int) -> Transitions:
        """Transitions `start:stop`."""
        chosen = slice(start, stop)
        columns = {column.name: getattr(self, column.name) for column in fields(self)}
        return replace(self, **{name: column[chosen] for name, column in columns.items() if column is not None})


@dataclass(frozen=True)
class NextValues:
    """What R transitions lead to, by the target networks.

    policy: moments `[R, G, ...]` of the target policy at the next states. ensemble `[C, R, G]`: the target critics'
    values of the next states in return units; raw: the same before de-normalisation. reduced `[R, G]`: over the
    critics drawn.
    """

    policy: Moments
    raw: Tensor
    ensemble: Tensor
    reduced: Tensor


@dataclass(frozen=True)
class Losses:
    """Losses of R transitions as shares of a mean over `num_transitions`, with their terms per entry.

    critic, policy: scalars that add up over the chunks of a batch; total = policy + coefficient * critic.
    critic_entries `[C, R, G]` and policy_entries `[R, G]`: before averaging.
    taken_values `[C, R, G]`: the critics' raw output for the actions taken (decoded, where they classify);
    policy_values: that for the policy's own actions, `[C, R, G]` or `[C, R, K, G]`.
    online_values `[R, G]`: what the policy-gradient term maximises; online_samples `[C, R, K, G]`: the decoded values
    of sampled actions behind it, where critics classify. advantage, filter, log_prob `[R, G]`.
    Whatever the settings leave out is None.
    """

    total: Tensor
    critic: Tensor
    policy: Tensor
    policy_entries: Tensor
    policy_moments: Moments
    critic_entries: Tensor | None = None
    taken_values: Tensor | None = None
    policy_values: Tensor | None = None
    online_values: Tensor | None = None
    online_samples: Tensor | None = None
    advantage: Tensor | None = None
    filter: Tensor | None = None
    log_prob: Tensor | None = None


def weighted_mean(entries: Tensor, weight: Tensor | None, num_transitions: float, num_per_transition: int) -> Tensor:
    """Sum of `entries [..., R, G]`, rows counting by `weight [R]`, over the number of entries plus epsilon."""
    total = entries.sum() if weight is None else (entries * weight[:, None]).sum()
    return total / (num_transitions * num_per_transition + EPSILON)


def combine(
    config: AgentConfig,
    transitions: Transitions,
    num_transitions: float,
    critic_entries: Tensor | None,
    policy_entries: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """(total, critic, policy) losses of entries `[C, R, G]` and `[R, G]`."""
    num_discounts = policy_entries.shape[-1]
    policy = weighted_mean(policy_entries, transitions.weight, num_transitions, num_discounts)
    if critic_entries is None:
        return policy, policy.new_zeros(()), policy
    per_transition = num_discounts * len(critic_entries)
    critic = weighted_mean(critic_entries, transitions.weight, num_transitions, per_transition)
    return policy + config.critic_coefficient * critic, critic, policy


def policy_entries(
    config: AgentConfig, moments: Moments, online_values: Tensor | None, imitation: Tensor | None
) -> Tensor:
    """-online * value - offline * f(A) log pi(a) per entry `[R, G]`; a term that is left out is None."""
    entries = torch.zeros_like(moments[0][..., 0])
    if online_values is not None:
        entries = entries - config.online_coefficient * online_values
    if imitation is not None:
        entries = entries - config.offline_coefficient * imitation
    return entries
