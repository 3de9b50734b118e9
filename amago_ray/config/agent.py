"""Settings of the objective."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self

from amago_ray.config.advantage_filter import AdvantageFilterConfig, BinaryFilterConfig, NoFilterConfig
from amago_ray.config.ranges import (
    ABOVE_ZERO_TO_ONE,
    AT_LEAST_TWO,
    BELOW_ONE,
    DISCOUNT,
    DISCOUNTS,
    FINITE,
    MODULE_ATTR,
    NON_NEGATIVE,
    POSITIVE,
    POSITIVE_INTEGER,
)


@dataclass(frozen=True, kw_only=True)
class SpaceDistributionConfig:
    """The family that fits the action space: softmax, bits, or a squashed Gaussian."""

    kind: Literal["auto"] = "auto"


@dataclass(frozen=True, kw_only=True)
class CustomDistributionConfig:
    """A policy distribution of one's own."""

    kind: Annotated[str, MODULE_ATTR]
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to it by name."""


PolicyDistributionConfig = SpaceDistributionConfig | CustomDistributionConfig


@dataclass(frozen=True, kw_only=True)
class CommonAgentConfig:
    """What all agents have. Defaults are those of the AMAGO paper."""

    kind: str
    auxiliary_discounts: Annotated[tuple[float, ...], DISCOUNTS] = (0.1, 0.9, 0.95, 0.97, 0.99, 0.995)
    """Discounts learned beside the acting one."""
    acting_discount: Annotated[float, DISCOUNT] = 0.999
    """The discount whose policy acts; the last of the G discounts."""
    reward_multiplier: Annotated[float, POSITIVE] = 10.0
    """Factor on rewards in targets; 100 suits sparse tasks."""
    num_critics: Annotated[int, POSITIVE_INTEGER] = 4
    """C, critics of the ensemble."""
    num_critics_in_target: Annotated[int, POSITIVE_INTEGER] = 2
    """Critics drawn (with replacement) for each target."""
    online_coefficient: Annotated[float, NON_NEGATIVE] = 1.0
    """Weight of the policy-gradient-through-the-critic term."""
    offline_coefficient: Annotated[float, NON_NEGATIVE] = 0.1
    """Weight of the filtered behaviour-cloning term."""
    online_coefficient_final: Annotated[float, NON_NEGATIVE] | None = None
    """Online weight after `coefficient_anneal_steps` updates, reached linearly; None keeps `online_coefficient`."""
    offline_coefficient_final: Annotated[float, NON_NEGATIVE] | None = None
    """Offline weight after `coefficient_anneal_steps` updates, reached linearly; None keeps `offline_coefficient`."""
    coefficient_anneal_steps: Annotated[int, POSITIVE_INTEGER] = 100_000
    """Learner steps over which the two weights above go from their first to their final value."""
    critic_coefficient: Annotated[float, POSITIVE] = 10.0
    """Weight of the critics' loss."""
    advantage_filter: AdvantageFilterConfig = field(default_factory=BinaryFilterConfig)
    num_action_samples_in_critic_loss: Annotated[int, POSITIVE_INTEGER] = 1
    """K, sampled actions for the target's expectation (continuous actions, multi-task)."""
    num_action_samples_in_policy_loss: Annotated[int, POSITIVE_INTEGER] = 1
    """K, sampled actions for the policy's value (the paper's multi-task agent uses 3)."""
    n_step: Annotated[int, POSITIVE_INTEGER] = 1
    """Rewards summed before bootstrapping."""
    tau: Annotated[float, ABOVE_ZERO_TO_ONE] = 0.003
    """Step size of the target networks."""
    use_target_policy: bool = True
    """Targets take actions from a slow copy of the policy head."""
    popart: bool = True
    """Normalise targets by running moments while preserving outputs."""
    discrete_probability_low: Annotated[float, BELOW_ONE] = 0.001
    """Discrete policies: probabilities are clamped from below, then renormalised."""
    discrete_probability_high: Annotated[float, ABOVE_ZERO_TO_ONE] = 0.99
    """Discrete policies: probabilities are clamped from above, then renormalised."""
    num_bins: Annotated[int, AT_LEAST_TWO] = 128
    """Value bins of critics that classify: the multi-task agent's, and those of objectives of one's own."""
    min_return: Annotated[float, FINITE] = -1e5
    """Lowest bin, in (multiplied) return units."""
    max_return: Annotated[float, FINITE] = 1e5
    """Highest bin, in (multiplied) return units."""
    labels: Literal["two_hot", "hl_gauss"] = "two_hot"
    """How a scalar target becomes a distribution over bins."""
    policy_distribution: PolicyDistributionConfig = field(default_factory=SpaceDistributionConfig)

    def after(self, learner_steps: int) -> Self:
        """These settings with the weights that the update after so many others has; each update treats them as fixed.

        So targets are pessimistic, and critics trained, as long as the weights of the moment ask for it.
        """
        if self.online_coefficient_final is None and self.offline_coefficient_final is None:
            return self
        progress = min(learner_steps / self.coefficient_anneal_steps, 1.0)
        return replace(
            self,
            online_coefficient=_between(self.online_coefficient, self.online_coefficient_final, progress),
            offline_coefficient=_between(self.offline_coefficient, self.offline_coefficient_final, progress),
            online_coefficient_final=None,
            offline_coefficient_final=None,
        )

    @property
    def trains_critics(self) -> bool:
        """Whether anything in the policy's loss reads the critics."""
        return self.online_coefficient > 0 or self.filters_by_advantage

    @property
    def filters_by_advantage(self) -> bool:
        """Whether what is imitated depends on how good it was."""
        return not isinstance(self.advantage_filter, NoFilterConfig)

    @property
    def discounts(self) -> tuple[float, ...]:
        """G discounts, the acting one last."""
        return (*self.auxiliary_discounts, self.acting_discount)


@dataclass(frozen=True, kw_only=True)
class ActorCriticConfig(CommonAgentConfig):
    """Critics regress PopArt-normalised values."""

    kind: Literal["actor_critic"] = "actor_critic"


@dataclass(frozen=True, kw_only=True)
class MultiTaskConfig(CommonAgentConfig):
    """Critics classify over value bins, which tells tasks of unlike returns apart."""

    kind: Literal["multi_task"] = "multi_task"


@dataclass(frozen=True, kw_only=True)
class CustomAgentConfig(CommonAgentConfig):
    """An objective of one's own."""

    kind: Annotated[str, MODULE_ATTR]
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to it by name."""


AgentConfig = ActorCriticConfig | MultiTaskConfig | CustomAgentConfig


def _between(first: float, final: float | None, progress: float) -> float:
    return first if final is None else (1.0 - progress) * first + progress * final
