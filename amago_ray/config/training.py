"""Settings of the run: when it stops, evaluates, checkpoints and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from amago_ray.config.env import EnvConfig
from amago_ray.config.ranges import (
    COUNT,
    FINITE,
    POSITIVE,
    POSITIVE_INTEGER,
    POSITIVE_OR_INFINITE,
    PROBABILITY,
)


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    """The run ends when the first of these is reached; at least one must be set."""

    env_steps: Annotated[int, POSITIVE_INTEGER] | None = None
    """Environment steps summed over all runners."""
    learner_steps: Annotated[int, POSITIVE_INTEGER] | None = None
    """Updates."""
    time_s: Annotated[float, POSITIVE_OR_INFINITE] | None = None
    """Seconds of wall time of this session."""
    eval_success_rate: Annotated[float, PROBABILITY] | None = None
    """Success of an evaluation."""
    eval_return: Annotated[float, FINITE] | None = None
    """Mean return of an evaluation."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Evaluation: a fixed number of whole episodes in environments of its own, never written to replay."""

    num_episodes: Annotated[int, COUNT] = 100
    """Episodes per evaluation and environment; 0 switches evaluation off."""
    interval_env_steps: Annotated[int, POSITIVE_INTEGER] = 20_000
    """Env steps between evaluations."""
    at_start: bool = True
    """Evaluate the untrained agent once."""
    num_envs: Annotated[int, POSITIVE_INTEGER] = 50
    """Environments stepped together."""
    greedy: bool = False
    """Take the most likely action; the default samples, as the original does."""
    film_at_end: bool = False
    """Write a GIF of a few episodes when training ends."""
    env: EnvConfig | list[EnvConfig] | None = None
    """Environments to evaluate in; None takes those of training."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Checkpoints of everything needed to go on."""

    interval_s: Annotated[float, POSITIVE_OR_INFINITE] = 300.0
    """Seconds between checkpoints over Ray."""
    interval_learner_steps: Annotated[int, POSITIVE_INTEGER] | None = None
    """Updates between checkpoints instead of seconds; `--local` always counts updates (1000 where None)."""
    keep: Annotated[int, POSITIVE_INTEGER] = 3
    """Newest checkpoints kept; the best by evaluation stays too."""


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Metrics."""

    interval_s: Annotated[float, POSITIVE] = 2.0
    """Seconds between reports."""
    loggers: tuple[Literal["console", "jsonl", "tensorboard"], ...] = ("console", "jsonl", "tensorboard")
    """Where metrics go."""
