"""What the objective reads and returns: transitions, targets, losses."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from amago_ray.config.agent import AgentConfig
from amago_ray.nets.distributions import Moments

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped

EPSILON = 1e-5
"""Added to the number of entries that a loss is averaged over, as in the original."""


@dataclass(frozen=True)
class Transitions:
    """M transitions of a packed batch.

    action: in storage form; reward: as the environment gave it. weight: None where all count alike. steps_left:
    transitions to the end of the sequence, this one included (None where targets are one-step).
    """

    action: Shaped[Tensor, "M ..."]
    reward: Float[Tensor, " M"]
    terminated: Bool[Tensor, " M"]
    weight: Float[Tensor, " M"] | None = None
    steps_left: Int[Tensor, " M"] | None = None
    action_mask: Bool[Tensor, "M mask_size"] | None = None
    next_action_mask: Bool[Tensor, "M mask_size"] | None = None

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

    policy: moments `[R, G, ...]` of the target policy at the next states. ensemble: the target critics' values of the
    next states in return units; raw: the same before de-normalisation. reduced: over the critics drawn.
    """

    policy: Moments
    raw: Float[Tensor, "C R G"]
    ensemble: Float[Tensor, "C R G"]
    reduced: Float[Tensor, "R G"]


@dataclass(frozen=True)
class Losses:
    """Losses of R transitions as shares of a mean over `num_transitions`, with their terms per entry.

    critic, policy: these add up over the chunks of a batch; total = policy + coefficient * critic.
    critic_entries and policy_entries: before averaging.
    taken_values: the critics' raw output for the actions taken (decoded, where they classify); policy_values: that for
    the policy's own actions, `[C, R, G]` or `[C, R, K, G]`.
    online_values: what the policy-gradient term maximises; online_samples: the decoded values of sampled actions behind
    it, where critics classify. Whatever the settings leave out is None.
    """

    total: Float[Tensor, ""]
    critic: Float[Tensor, ""]
    policy: Float[Tensor, ""]
    policy_entries: Float[Tensor, "R G"]
    policy_moments: Moments
    critic_entries: Float[Tensor, "C R G"] | None = None
    taken_values: Float[Tensor, "C R G"] | None = None
    policy_values: Float[Tensor, "C R *K G"] | None = None
    online_values: Float[Tensor, "R G"] | None = None
    online_samples: Float[Tensor, "C R K G"] | None = None
    advantage: Float[Tensor, "R G"] | None = None
    filter: Float[Tensor, "R G"] | None = None
    log_prob: Float[Tensor, "R G"] | None = None


def per_discount(mask: Bool[Tensor, "R mask_size"] | None) -> Bool[Tensor, "R 1 mask_size"] | None:
    """A mask beside moments, which have an axis of discounts."""
    return None if mask is None else mask[:, None]


def weighted_mean(
    entries: Float[Tensor, "*C R G"],
    weight: Float[Tensor, " R"] | None,
    num_transitions: float,
    num_per_transition: int,
) -> Float[Tensor, ""]:
    """Sum of `entries`, rows counting by `weight`, over the number of entries plus epsilon."""
    total = entries.sum() if weight is None else (entries * weight[:, None]).sum()
    return total / (num_transitions * num_per_transition + EPSILON)


def combine(
    config: AgentConfig,
    transitions: Transitions,
    num_transitions: float,
    critic_entries: Float[Tensor, "C R G"] | None,
    policy_entries: Float[Tensor, "R G"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """(total, critic, policy) losses."""
    num_discounts = policy_entries.shape[-1]
    policy = weighted_mean(policy_entries, transitions.weight, num_transitions, num_discounts)
    if critic_entries is None:
        return policy, policy.new_zeros(()), policy
    per_transition = num_discounts * len(critic_entries)
    critic = weighted_mean(critic_entries, transitions.weight, num_transitions, per_transition)
    return policy + config.critic_coefficient * critic, critic, policy


def policy_entries(
    config: AgentConfig,
    moments: Moments,
    online_values: Float[Tensor, "R G"] | None,
    imitation: Float[Tensor, "R G"] | None,
) -> Float[Tensor, "R G"]:
    """-online * value - offline * f(A) log pi(a) per entry; a term that is left out is None."""
    entries = torch.zeros_like(moments[0][..., 0])
    if online_values is not None:
        entries = entries - config.online_coefficient * online_values
    if imitation is not None:
        entries = entries - config.offline_coefficient * imitation
    return entries
