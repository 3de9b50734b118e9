"""Settings of acting: env runners and exploration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from amago_ray.config.ranges import NON_NEGATIVE, POSITIVE_INTEGER, POSITIVE_OR_INFINITE, PROBABILITY


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """Env runners: processes that step a batch of environments with one forward per step."""

    num_env_runners: Annotated[int, POSITIVE_INTEGER] = 1
    """Processes; under `--local` one runner in the driver's process."""
    num_envs_per_env_runner: Annotated[int, POSITIVE_INTEGER] = 16
    """E, environments stepped together by one runner."""
    num_cpus_per_env_runner: Annotated[float, NON_NEGATIVE] = 1.0
    """Logical CPUs that Ray reserves for each runner; the runner uses one thread."""
    num_gpus_per_env_runner: Annotated[float, NON_NEGATIVE] = 0.0
    """Share of a GPU that Ray reserves for each runner; above 0, policy and cache live there. Under `--local` all is on
    the CPU."""
    kv_cache_dtype: Literal["float16", "float32"] = "float16"
    """What collecting keeps a Transformer's keys and values in, where the compiled kernel reads them (on the CPU;
    elsewhere float32). All is computed in float32; float16 rounds what is kept to 11 bits and halves what each step has
    to read. Evaluation and loaded policies always keep float32."""
    episodes_per_add: Annotated[int, POSITIVE_INTEGER] = 8
    """Finished episodes are sent to replay in groups of at most this many."""
    max_unacknowledged_adds: Annotated[int, POSITIVE_INTEGER] = 4
    """A runner waits when this many groups are not acknowledged yet."""
    stuck_policy_alarm_s: Annotated[float, POSITIVE_OR_INFINITE] = 120.0
    """Warn when a runner has not taken newer weights for this long though there are some."""


@dataclass(frozen=True, kw_only=True)
class ExplorationConfig:
    """Exploration noise while collecting; evaluation never explores."""

    kind: str = "bilevel"
    """"bilevel" (epsilon annealed over training and within the episode), "epsilon_greedy" (over training only),
    "last_step" (over training, with an epsilon of its own for an episode's last step), "none", or `module:attr`."""
    epsilon_start: Annotated[float, PROBABILITY] = 1.0
    """Epsilon at an episode's first step when training starts."""
    epsilon_final: Annotated[float, PROBABILITY] = 0.05
    """Epsilon at an episode's first step after annealing."""
    episode_end_epsilon_start: Annotated[float, PROBABILITY] = 0.8
    """Bilevel and last step: epsilon at the horizon when training starts."""
    episode_end_epsilon_final: Annotated[float, PROBABILITY] = 0.01
    """Bilevel and last step: epsilon at the horizon after annealing."""
    anneal_env_steps: Annotated[int, POSITIVE_INTEGER] = 1_000_000
    """Length of the annealing in env steps summed over all runners."""
    randomize_per_episode: bool = True
    """Multiply epsilon with a uniform(0, 1) factor drawn for each episode."""
    horizon: Annotated[int, POSITIVE_INTEGER] | None = None
    """Bilevel and last step: the episode's length; None takes the environment's horizon."""
