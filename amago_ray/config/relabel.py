"""Settings of hindsight relabeling of sampled episodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from amago_ray.config.ranges import MODULE_ATTR, NON_NEGATIVE, PROBABILITY


@dataclass(frozen=True, kw_only=True)
class NoRelabelConfig:
    """Episodes as they were."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True)
class InstructionRelabelConfig:
    """Goals of an instruction replaced by achieved ones; needs an environment that declares a goal rule."""

    kind: Literal["instruction"] = "instruction"
    strategy: Literal["all", "some", "all_or_nothing", "none"] = "some"
    """How many of the k - n unmet goals are replaced: all; uniform in 0..k-n; all with `all_probability` else none;
    none."""
    all_probability: Annotated[float, PROBABILITY] = 0.8
    """"all_or_nothing": probability of replacing all."""
    weighting: Literal["uniform", "rarity_per_step", "rarity_per_episode"] = "uniform"
    """Which achieved goals become new ones: any, or rare ones more often, rarity counted per step or per episode."""
    rarity_exponent: Annotated[float, NON_NEGATIVE] = 4.0
    """Weight of a goal is (-log10 of its frequency) to this power."""


@dataclass(frozen=True, kw_only=True)
class HerRelabelConfig:
    """A single goal replaced by an achieved one; needs an environment that declares a goal rule."""

    kind: Literal["her"] = "her"
    her_strategy: Literal["future", "final"] = "future"
    """The new goal is one achieved later in the episode, or the last one."""
    her_probability: Annotated[float, PROBABILITY] = 0.8
    """Probability that a sampled episode is relabeled."""


@dataclass(frozen=True, kw_only=True)
class CustomRelabelConfig:
    """A relabeler of one's own."""

    kind: Annotated[str, MODULE_ATTR]
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to it by name."""


RelabelConfig = NoRelabelConfig | InstructionRelabelConfig | HerRelabelConfig | CustomRelabelConfig
