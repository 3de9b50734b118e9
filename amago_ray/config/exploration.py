"""Settings of exploration: noise on the policy's actions while collecting; evaluation never explores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from amago_ray.config.ranges import MODULE_ATTR, POSITIVE_INTEGER, PROBABILITY


@dataclass(frozen=True, kw_only=True)
class EpsilonConfig:
    """What all epsilon schedules have."""

    kind: str
    epsilon_start: Annotated[float, PROBABILITY] = 1.0
    """Epsilon at an episode's first step when training starts."""
    epsilon_final: Annotated[float, PROBABILITY] = 0.05
    """Epsilon at an episode's first step after annealing."""
    anneal_env_steps: Annotated[int, POSITIVE_INTEGER] = 1_000_000
    """Length of the annealing in env steps summed over all runners."""
    randomize_per_episode: bool = True
    """Multiply epsilon with a uniform(0, 1) factor drawn for each episode."""


@dataclass(frozen=True, kw_only=True)
class EpisodeEndConfig(EpsilonConfig):
    """What schedules within the episode have."""

    episode_end_epsilon_start: Annotated[float, PROBABILITY] = 0.8
    """Epsilon at the horizon when training starts."""
    episode_end_epsilon_final: Annotated[float, PROBABILITY] = 0.01
    """Epsilon at the horizon after annealing."""
    horizon: Annotated[int, POSITIVE_INTEGER] | None = None
    """The episode's length; None takes the environment's horizon."""


@dataclass(frozen=True, kw_only=True)
class BilevelConfig(EpisodeEndConfig):
    """Epsilon annealed over training and within the episode."""

    kind: Literal["bilevel"] = "bilevel"


@dataclass(frozen=True, kw_only=True)
class EpsilonGreedyConfig(EpsilonConfig):
    """Epsilon annealed over training."""

    kind: Literal["epsilon_greedy"] = "epsilon_greedy"


@dataclass(frozen=True, kw_only=True)
class LastStepConfig(EpisodeEndConfig):
    """Epsilon annealed over training, with one of its own for an episode's last step."""

    kind: Literal["last_step"] = "last_step"


@dataclass(frozen=True, kw_only=True)
class NoExplorationConfig:
    """The policy's own actions."""

    kind: Literal["none"] = "none"


@dataclass(frozen=True, kw_only=True)
class CustomExplorationConfig:
    """An exploration of one's own."""

    kind: Annotated[str, MODULE_ATTR]
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to it by name."""


ExplorationConfig = BilevelConfig | EpsilonGreedyConfig | LastStepConfig | NoExplorationConfig | CustomExplorationConfig
