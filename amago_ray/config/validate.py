"""What the values of settings must be: ranges of single fields, and rules between fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from typing import Any

from amago_ray.config.config import Config
from amago_ray.config.tree import show
from amago_ray.errors import ConfigError


@dataclass(frozen=True)
class Range:
    """A range of values: how an error message calls it, and the test."""

    expected: str
    holds: Callable[[Any], bool]


POSITIVE_INTEGER = Range("a positive integer", lambda x: x > 0)
INTEGER = Range("an integer", lambda x: True)
COUNT = Range("an integer of at least 0", lambda x: x >= 0)
POSITIVE = Range("a positive number", lambda x: x > 0 and isfinite(x))
POSITIVE_OR_INFINITE = Range("a positive number", lambda x: x > 0)
NON_NEGATIVE = Range("a number of at least 0", lambda x: x >= 0 and isfinite(x))
FINITE = Range("a finite number", isfinite)
PROBABILITY = Range("a number from 0 to 1", lambda x: 0 <= x <= 1)
STEP_SIZE = Range("a number above 0 and at most 1", lambda x: 0 < x <= 1)
DISCOUNT = Range("a discount above 0 and below 1", lambda x: 0 < x < 1)
DISCOUNTS = Range("a list of discounts above 0 and below 1", lambda xs: all(0 < x < 1 for x in xs))
POSITIVE_INTEGERS = Range("a list of positive integers", lambda xs: len(xs) > 0 and all(x > 0 for x in xs))
NOT_EMPTY = Range("a text that is not empty", lambda x: bool(x.strip()))
FOLDER_NAME = Range(
    "a name that can be a folder's", lambda x: bool(x) and x not in (".", "..") and not set(x) & set("/\\\0")
)

RANGES: dict[str, Range] = {
    "env.id": NOT_EMPTY,
    "env.share": POSITIVE,
    "env.max_episode_steps": POSITIVE_INTEGER,
    "env.step_timeout_s": POSITIVE,
    "name": FOLDER_NAME,
    "runs_dir": NOT_EMPTY,
    "seed": COUNT,
    "stop.env_steps": POSITIVE_INTEGER,
    "stop.learner_steps": POSITIVE_INTEGER,
    "stop.time_s": POSITIVE_OR_INFINITE,
    "stop.eval_success_rate": PROBABILITY,
    "stop.eval_return": FINITE,
    "rollout.num_env_runners": POSITIVE_INTEGER,
    "rollout.num_envs_per_env_runner": POSITIVE_INTEGER,
    "rollout.num_cpus_per_env_runner": NON_NEGATIVE,
    "rollout.num_gpus_per_env_runner": NON_NEGATIVE,
    "rollout.episodes_per_add": POSITIVE_INTEGER,
    "rollout.max_unacknowledged_adds": POSITIVE_INTEGER,
    "rollout.stuck_policy_alarm_s": POSITIVE_OR_INFINITE,
    "exploration.epsilon_start": PROBABILITY,
    "exploration.epsilon_final": PROBABILITY,
    "exploration.episode_end_epsilon_start": PROBABILITY,
    "exploration.episode_end_epsilon_final": PROBABILITY,
    "exploration.anneal_env_steps": POSITIVE_INTEGER,
    "exploration.horizon": POSITIVE_INTEGER,
    "replay.num_shards": POSITIVE_INTEGER,
    "replay.capacity_timesteps": POSITIVE_INTEGER,
    "replay.capacity_bytes": POSITIVE_INTEGER,
    "replay.segment_bytes": POSITIVE_INTEGER,
    "replay.min_timesteps": POSITIVE_INTEGER,
    "replay.samples_per_insert": POSITIVE,
    "replay.samples_per_insert_tolerance": POSITIVE,
    "replay.num_cpus_per_shard": NON_NEGATIVE,
    "relabel.all_probability": PROBABILITY,
    "relabel.rarity_exponent": NON_NEGATIVE,
    "relabel.her_probability": PROBABILITY,
    "model.timestep_encoder.num_layers": COUNT,
    "model.timestep_encoder.hidden_dim": POSITIVE_INTEGER,
    "model.timestep_encoder.output_dim": POSITIVE_INTEGER,
    "model.timestep_encoder.token_low": INTEGER,
    "model.timestep_encoder.token_high": INTEGER,
    "model.timestep_encoder.token_embedding_dim": POSITIVE_INTEGER,
    "model.timestep_encoder.token_hidden_dim": POSITIVE_INTEGER,
    "model.timestep_encoder.token_output_dim": POSITIVE_INTEGER,
    "model.timestep_encoder.cnn_channels": POSITIVE_INTEGERS,
    "model.timestep_encoder.cnn_kernel_sizes": POSITIVE_INTEGERS,
    "model.timestep_encoder.cnn_strides": POSITIVE_INTEGERS,
    "model.timestep_encoder.image_dim": POSITIVE_INTEGER,
    "model.timestep_encoder.rl2_dim": POSITIVE_INTEGER,
    "model.timestep_encoder.random_shift_pixels": COUNT,
    "model.sequence_model.context_length": POSITIVE_INTEGER,
    "model.sequence_model.d_model": POSITIVE_INTEGER,
    "model.sequence_model.num_layers": POSITIVE_INTEGER,
    "model.sequence_model.num_heads": POSITIVE_INTEGER,
    "model.sequence_model.d_ff": POSITIVE_INTEGER,
    "model.sequence_model.dropout": Range("a number from 0 to below 1", lambda x: 0 <= x < 1),
    "model.sequence_model.attention_window": POSITIVE_INTEGER,
    "model.sequence_model.max_time_index": POSITIVE_INTEGER,
    "model.sequence_model.gru_hidden_dim": POSITIVE_INTEGER,
    "model.policy_head.num_layers": COUNT,
    "model.policy_head.hidden_dim": POSITIVE_INTEGER,
    "model.critic.num_layers": COUNT,
    "model.critic.hidden_dim": POSITIVE_INTEGER,
    "agent.auxiliary_discounts": DISCOUNTS,
    "agent.acting_discount": DISCOUNT,
    "agent.reward_multiplier": POSITIVE,
    "agent.num_critics": POSITIVE_INTEGER,
    "agent.num_critics_in_target": POSITIVE_INTEGER,
    "agent.online_coefficient": NON_NEGATIVE,
    "agent.offline_coefficient": NON_NEGATIVE,
    "agent.online_coefficient_final": NON_NEGATIVE,
    "agent.offline_coefficient_final": NON_NEGATIVE,
    "agent.coefficient_anneal_steps": POSITIVE_INTEGER,
    "agent.critic_coefficient": POSITIVE,
    "agent.binary_filter_threshold": FINITE,
    "agent.exponential_filter_beta": POSITIVE,
    "agent.exponential_filter_clip_low": FINITE,
    "agent.exponential_filter_clip_high": FINITE,
    "agent.exponential_filter_weight_low": NON_NEGATIVE,
    "agent.exponential_filter_weight_high": POSITIVE,
    "agent.leaky_filter_scale": POSITIVE,
    "agent.leaky_filter_offset": FINITE,
    "agent.leaky_filter_slope": NON_NEGATIVE,
    "agent.leaky_filter_weight_at_zero": FINITE,
    "agent.leaky_filter_weight_low": NON_NEGATIVE,
    "agent.leaky_filter_weight_high": POSITIVE,
    "agent.num_action_samples_in_critic_loss": POSITIVE_INTEGER,
    "agent.num_action_samples_in_policy_loss": POSITIVE_INTEGER,
    "agent.n_step": POSITIVE_INTEGER,
    "agent.tau": STEP_SIZE,
    "agent.num_bins": Range("an integer of at least 2", lambda x: x >= 2),
    "agent.min_return": FINITE,
    "agent.max_return": FINITE,
    "agent.discrete_probability_low": Range("a number from 0 to below 1", lambda x: 0 <= x < 1),
    "agent.discrete_probability_high": Range("a number above 0 and at most 1", lambda x: 0 < x <= 1),
    "learner.batch_size": POSITIVE_INTEGER,
    "learner.learning_rate": POSITIVE,
    "learner.weight_decay": NON_NEGATIVE,
    "learner.max_grad_norm": POSITIVE_OR_INFINITE,
    "learner.warmup_steps": COUNT,
    "learner.batches_per_update": POSITIVE_INTEGER,
    "learner.max_consecutive_nonfinite_updates": POSITIVE_INTEGER,
    "learner.num_cpus_per_learner": NON_NEGATIVE,
    "learner.num_threads": POSITIVE_INTEGER,
    "learner.num_gpus_per_learner": NON_NEGATIVE,
    "learner.prefetch": POSITIVE_INTEGER,
    "learner.broadcast_interval": POSITIVE_INTEGER,
    "learner.metrics_interval": POSITIVE_INTEGER,
    "evaluation.num_episodes": COUNT,
    "evaluation.interval_env_steps": POSITIVE_INTEGER,
    "evaluation.num_envs": POSITIVE_INTEGER,
    "checkpoint.interval_s": POSITIVE_OR_INFINITE,
    "checkpoint.interval_learner_steps": POSITIVE_INTEGER,
    "checkpoint.keep": POSITIVE_INTEGER,
    "report.interval_s": POSITIVE,
    "cluster.num_cpus": POSITIVE_INTEGER,
}
"""The range of each numeric field by its dotted path. A null where the type allows it needs no range."""

KINDS: dict[str, tuple[str, ...]] = {
    "exploration.kind": ("bilevel", "epsilon_greedy", "last_step", "none"),
    "relabel.kind": ("none", "instruction", "her"),
    "model.timestep_encoder.kind": ("auto", "mlp", "cnn"),
    "model.sequence_model.kind": ("transformer", "gru", "feed_forward"),
}
"""Built-in parts of fields that also take a `module:attr`."""


def range_path(path: str) -> str:
    """The path under which `RANGES` knows a field: without list indices, evaluation's environments as `env`."""
    plain = ".".join(key for key in path.split(".") if not key.isdecimal())
    return plain.removeprefix("evaluation.") if plain.startswith("evaluation.env") else plain


def validate(config: Config) -> None:
    """Check every range and every rule between fields.

    Raises:
        ConfigError: the first broken rule: the field's dotted path, what was expected, what was found.
    """
    for path, value in _walk(config, ""):
        check = RANGES.get(range_path(path))
        if value is not None and check is not None and not check.holds(value):
            raise ConfigError(f"{path}: expected {check.expected}, got {show(value)}")
        kinds = KINDS.get(path)
        if kinds is not None and value not in kinds and not _is_module_attr(value):
            names = ", ".join(f'"{kind}"' for kind in kinds)
            raise ConfigError(f"{path}: expected one of {names}, or module:attr, got {show(value)}")
    _validate_relations(config)


def validate_horizon(config: Config, horizon: int | None, env_name: str) -> None:
    """Check the settings that depend on the environment's longest episode (`horizon`, None where unknown).

    A `context_length` below the horizon is legal: training then sees windows of an episode and the acting cache
    rolls. A learned position table that is shorter than an episode is an error.

    Raises:
        ConfigError: learned positions or exploration's schedule within the episode lack a horizon, or fall short of it.
    """
    model = config.model.sequence_model
    if model.kind == "transformer" and model.positions == "learned":
        # Row T of an episode of T = horizon steps is embedded too.
        needed = None if horizon is None else horizon + 1
        if model.max_time_index is None and needed is None:
            raise ConfigError(
                f'model.sequence_model.max_time_index: expected a table size for learned positions, as "{env_name}" '
                f"has no known horizon, got null"
            )
        if model.max_time_index is not None and needed is not None and model.max_time_index < needed:
            raise ConfigError(
                f"model.sequence_model.max_time_index: expected at least {needed} (the horizon of "
                f'"{env_name}" + 1) for learned positions, got {model.max_time_index}'
            )
    kind = config.exploration.kind
    if kind in ("bilevel", "last_step") and config.exploration.horizon is None and horizon is None:
        raise ConfigError(
            f'exploration.horizon: expected a number of steps for "{kind}", as "{env_name}" has no known horizon '
            "(set it, or env.max_episode_steps), got null"
        )


def _validate_relations(config: Config) -> None:
    if not config.envs:
        raise ConfigError("env: expected at least one environment, got []")
    if config.evaluation.env == []:
        raise ConfigError("evaluation.env: expected at least one environment, or null, got []")
    stop = config.stop
    if all(getattr(stop, criterion.name) is None for criterion in fields(stop)):
        names = ", ".join(criterion.name for criterion in fields(stop))
        raise ConfigError(f"stop: expected at least one of {names}, got none")
    if config.evaluation.num_episodes == 0 and not (stop.eval_success_rate is None and stop.eval_return is None):
        raise ConfigError(
            "evaluation.num_episodes: expected a positive integer, as the run stops by an evaluation, got 0"
        )
    model = config.model.sequence_model
    if model.kind == "transformer" and model.d_model % model.num_heads:
        raise ConfigError(
            f"model.sequence_model.d_model: expected a multiple of num_heads ({model.num_heads}), got {model.d_model}"
        )
    if model.kind == "transformer" and model.positions == "rotary" and model.d_model // model.num_heads % 2:
        raise ConfigError(
            "model.sequence_model.d_model: expected an even width per head for rotary positions, "
            f"got {model.d_model // model.num_heads} ({model.d_model} over {model.num_heads} heads)"
        )
    if model.kind in ("gru", "feed_forward") and model.attention_window is not None:
        raise ConfigError(
            f'model.sequence_model.attention_window: expected null, as "{model.kind}" has no attention, '
            f"got {model.attention_window}"
        )
    encoder = config.model.timestep_encoder
    if not len(encoder.cnn_channels) == len(encoder.cnn_kernel_sizes) == len(encoder.cnn_strides):
        raise ConfigError(
            "model.timestep_encoder: expected cnn_channels, cnn_kernel_sizes and cnn_strides of equal length, got "
            f"{len(encoder.cnn_channels)}, {len(encoder.cnn_kernel_sizes)} and {len(encoder.cnn_strides)}"
        )
    if encoder.token_high is not None and encoder.token_high <= encoder.token_low:
        raise ConfigError(
            f"model.timestep_encoder.token_high: expected more than token_low ({encoder.token_low}), "
            f"got {encoder.token_high}"
        )
    agent = config.agent
    if agent.online_coefficient == 0 and agent.offline_coefficient == 0:
        raise ConfigError("agent: expected a positive online_coefficient or offline_coefficient, got 0 for both")
    last = agent.after(agent.coefficient_anneal_steps)
    if last.online_coefficient == 0 and last.offline_coefficient == 0:
        raise ConfigError("agent: expected a positive online or offline coefficient after annealing, got 0 for both")
    for low, high in (
        ("min_return", "max_return"),
        ("discrete_probability_low", "discrete_probability_high"),
        ("exponential_filter_clip_low", "exponential_filter_clip_high"),
        ("exponential_filter_weight_low", "exponential_filter_weight_high"),
        ("leaky_filter_weight_low", "leaky_filter_weight_high"),
    ):
        low_value, high_value = getattr(agent, low), getattr(agent, high)
        if low_value is not None and high_value is not None and not low_value < high_value:
            raise ConfigError(f"agent.{low}: expected less than {high} ({high_value}), got {low_value}")
    if config.replay.min_timesteps > config.replay.capacity_timesteps:
        raise ConfigError(
            f"replay.min_timesteps: expected at most capacity_timesteps ({config.replay.capacity_timesteps}), "
            f"got {config.replay.min_timesteps}"
        )


def _walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted paths and values of all fields that are not sections."""
    for entry in fields(node):
        value = getattr(node, entry.name)
        path = f"{prefix}{entry.name}"
        if is_dataclass(value):
            yield from _walk(value, f"{path}.")
        elif isinstance(value, list) and value and is_dataclass(value[0]):
            for index, item in enumerate(value):
                yield from _walk(item, f"{path}.{index}.")
        else:
            yield path, value


def _is_module_attr(text: str) -> bool:
    module, separator, attr = text.partition(":")
    return bool(separator) and all(part.isidentifier() for part in [*module.split("."), *attr.split(".")])
