"""What settings must be beside their ranges: rules between fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from amago_ray.config.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.exploration import EpisodeEndConfig
from amago_ray.config.model import ImagesConfig, ModelConfig, TokensConfig, TransformerConfig
from amago_ray.config.plain import show
from amago_ray.config.replay import MIN_SEGMENTS
from amago_ray.errors import ConfigError


def validate(config: Config) -> None:
    """Check every rule between fields, whose own types and ranges hold.

    Raises:
        ConfigError: the first broken rule: the field's dotted path, what was expected, what was found.
    """
    if not config.envs:
        raise ConfigError("env: expected at least one environment, got []")
    if config.evaluation.env == []:
        raise ConfigError("evaluation.env: expected at least one environment, or null, got []")
    for path, env in _env_paths(config):
        if env.autoreset_mode is not None and not env.vector_entry_point:
            raise ConfigError(
                f"{path}.autoreset_mode: expected null without vector_entry_point, as other environments are reset "
                f'by their runner, got "{env.autoreset_mode}"'
            )
    if config.cluster.address is not None and config.cluster.num_cpus is not None:
        raise ConfigError(
            f"cluster.num_cpus: expected null, as Ray at {show(config.cluster.address)} has its own, "
            f"got {config.cluster.num_cpus}"
        )
    rollout = config.rollout
    if rollout.fewest_env_runners > rollout.num_env_runners:
        raise ConfigError(
            f"rollout.min_env_runners: expected at most num_env_runners ({rollout.num_env_runners}), "
            f"got {rollout.min_env_runners}"
        )
    if rollout.most_env_runners < rollout.num_env_runners:
        raise ConfigError(
            f"rollout.max_env_runners: expected at least num_env_runners ({rollout.num_env_runners}), "
            f"got {rollout.max_env_runners}"
        )
    stop = config.stop
    if all(getattr(stop, criterion.name) is None for criterion in fields(stop)):
        names = ", ".join(criterion.name for criterion in fields(stop))
        raise ConfigError(f"stop: expected at least one of {names}, got none")
    if config.evaluation.num_episodes == 0 and not (stop.eval_success_rate is None and stop.eval_return is None):
        raise ConfigError(
            "evaluation.num_episodes: expected a positive integer, as the run stops by an evaluation, got 0"
        )
    _validate_model(config.model)
    agent = config.agent
    if agent.online_coefficient == 0 and agent.offline_coefficient == 0:
        raise ConfigError("agent: expected a positive online_coefficient or offline_coefficient, got 0 for both")
    last = agent.after(agent.coefficient_anneal_steps)
    if last.online_coefficient == 0 and last.offline_coefficient == 0:
        raise ConfigError("agent: expected a positive online or offline coefficient after annealing, got 0 for both")
    for section, path, low, high in (
        (agent, "agent", "min_return", "max_return"),
        (agent, "agent", "discrete_probability_low", "discrete_probability_high"),
        (agent.advantage_filter, "agent.advantage_filter", "advantage_low", "advantage_high"),
        (agent.advantage_filter, "agent.advantage_filter", "weight_low", "weight_high"),
        (agent.advantage_filter, "agent.advantage_filter", "ramp_low", "ramp_high"),
    ):
        low_value, high_value = getattr(section, low, None), getattr(section, high, None)
        if low_value is not None and high_value is not None and not low_value < high_value:
            raise ConfigError(f"{path}.{low}: expected less than {high} ({high_value}), got {low_value}")
    if config.replay.min_timesteps > config.replay.capacity_timesteps:
        raise ConfigError(
            f"replay.min_timesteps: expected at most capacity_timesteps ({config.replay.capacity_timesteps}), "
            f"got {config.replay.min_timesteps}"
        )


def validate_horizon(config: Config, horizon: int | None, env_name: str) -> None:
    """Check the settings that depend on the environment's longest episode (`horizon`, None where unknown).

    A `context_length` below the horizon is legal: training then sees windows of an episode and the acting cache
    rolls. A learned position table that is shorter than an episode is an error.

    Raises:
        ConfigError: learned positions or exploration's schedule within the episode lack a horizon, or fall short of it.
    """
    model = config.model.sequence_model
    if isinstance(model, TransformerConfig) and model.positions == "learned":
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
    exploration = config.exploration
    needs_horizon = isinstance(exploration, EpisodeEndConfig) and exploration.horizon is None
    if needs_horizon and horizon is None:
        raise ConfigError(
            f'exploration.horizon: expected a number of steps for "{exploration.kind}", as "{env_name}" has no known '
            "horizon (set it, or env.max_episode_steps), got null"
        )


def validate_storage(config: Config, row_bytes: int, env_name: str) -> None:
    """Check that every segment of replay can hold a row, which takes `row_bytes` or more.

    Raises:
        ConfigError: `capacity_bytes` is too small for that.
    """
    replay = config.replay
    needed = replay.num_shards * MIN_SEGMENTS * row_bytes
    if replay.capacity_bytes is not None and replay.capacity_bytes < needed:
        raise ConfigError(
            f'replay.capacity_bytes: expected at least {needed}, for a row of "{env_name}" in each of '
            f"{MIN_SEGMENTS} segments of each shard, got {replay.capacity_bytes}"
        )


def _validate_model(model: ModelConfig) -> None:
    sequence = model.sequence_model
    if isinstance(sequence, TransformerConfig):
        width, num_heads = sequence.d_model, sequence.num_heads
        if width % num_heads:
            raise ConfigError(
                f"model.sequence_model.d_model: expected a multiple of num_heads ({num_heads}), got {width}"
            )
        if sequence.positions == "rotary" and width // num_heads % 2:
            raise ConfigError(
                "model.sequence_model.d_model: expected an even width per head for rotary positions, "
                f"got {width // num_heads} ({width} over {num_heads} heads)"
            )
    encoder = model.timestep_encoder
    if isinstance(encoder, ImagesConfig):
        count = len(encoder.cnn_channels)
        for name, entries in (("cnn_kernel_sizes", encoder.cnn_kernel_sizes), ("cnn_strides", encoder.cnn_strides)):
            if entries is not None and len(entries) != count:
                raise ConfigError(
                    f"model.timestep_encoder.{name}: expected as many as cnn_channels ({count}), got {show(entries)}"
                )
    if isinstance(encoder, TokensConfig) and encoder.token_high is not None and encoder.token_high <= encoder.token_low:
        raise ConfigError(
            f"model.timestep_encoder.token_high: expected more than token_low ({encoder.token_low}), "
            f"got {encoder.token_high}"
        )


def _env_paths(config: Config) -> Iterator[tuple[str, EnvConfig]]:
    """Each environment with its dotted path."""
    for path, envs in (("env", config.env), ("evaluation.env", config.evaluation.env)):
        if isinstance(envs, list):
            yield from ((f"{path}.{index}", env) for index, env in enumerate(envs))
        elif envs is not None:
            yield path, envs
