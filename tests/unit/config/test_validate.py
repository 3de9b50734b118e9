import math
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from typing import Any

import pytest
from helpers.one_line import one_line

from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.hints import alternatives, hints_of, is_env, range_of
from amago_ray.config.kinds import family_of
from amago_ray.config.load import checked, config_from_dict
from amago_ray.config.validate import validate, validate_horizon, validate_storage
from amago_ray.errors import ConfigError


def config(path: str = "", value: Any = None) -> Config:
    tree: dict[str, Any] = {"env": {"id": "A-v0"}, "evaluation": {"env": {"id": "A-v0"}}}
    if path:
        node = tree
        *sections, key = path.split(".")
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = value
    return config_from_dict(tree)


def settings(kind: type = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and annotation of every setting."""
    for name, hint in hints_of(kind).items():
        if is_dataclass(hint) or family_of(hint):
            for section in family_of(hint) or (hint,):
                yield from settings(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint
            if is_env(hint) and not prefix:
                yield from settings(EnvConfig, f"{name}.")


NUMERIC = {
    path: hint
    for path, hint in settings()
    if {int, float, tuple[int, ...], tuple[float, ...]} & set(alternatives(hint))
}


@pytest.mark.parametrize("path", NUMERIC)
def test_every_numeric_setting_has_a_range_and_nan_is_in_none(path: str) -> None:
    in_range = range_of(NUMERIC[path])

    assert in_range is not None
    if float in alternatives(NUMERIC[path]):
        assert not in_range.holds(math.nan)
    if tuple[float, ...] in alternatives(NUMERIC[path]):
        assert not in_range.holds((math.nan,))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("rollout.min_env_runners", 2, "rollout.min_env_runners: expected at most num_env_runners (1), got 2"),
        ("rollout.max_env_runners", 0, "rollout.max_env_runners: expected a positive integer, got 0"),
        ("replay.capacity_timesteps", 0, "replay.capacity_timesteps: expected a positive integer, got 0"),
        ("agent.acting_discount", 1.0, "agent.acting_discount: expected a discount above 0 and below 1, got 1.0"),
        (
            "agent.auxiliary_discounts",
            [0.5, 1.0],
            "agent.auxiliary_discounts: expected a list of discounts above 0 and below 1, got [0.5, 1.0]",
        ),
        ("exploration.epsilon_start", 1.5, "exploration.epsilon_start: expected a number from 0 to 1, got 1.5"),
        ("learner.learning_rate", math.nan, "learner.learning_rate: expected a positive number, got nan"),
        ("env.share", -1, "env.share: expected a positive number, got -1.0"),
        ("evaluation.env.share", -1, "evaluation.env.share: expected a positive number, got -1.0"),
        ("name", "a/b", 'name: expected a name that can be a folder\'s, got "a/b"'),
        ("name", "..", 'name: expected a name that can be a folder\'s, got ".."'),
        (
            "relabel.kind",
            "hindsight",
            'relabel.kind: expected one of "none", "instruction", "her", or module:attr, got "hindsight"',
        ),
        (
            "model.sequence_model.d_model",
            65,
            "model.sequence_model.d_model: expected a multiple of num_heads (8), got 65",
        ),
        (
            "model.sequence_model.context_length",
            0,
            "model.sequence_model.context_length: expected a positive integer, got 0",
        ),
        (
            "model.sequence_model",
            {"positions": "rotary", "d_model": 24},
            "model.sequence_model.d_model: expected an even width per head for rotary positions, "
            "got 3 (24 over 8 heads)",
        ),
        (
            "model.timestep_encoder.cnn_strides",
            [4, 2],
            "model.timestep_encoder.cnn_strides: expected as many as cnn_channels (3), got [4, 2]",
        ),
        (
            "agent",
            {"kind": "multi_task", "min_return": 1e6},
            "agent.min_return: expected less than max_return (100000.0), got 1000000.0",
        ),
        (
            "agent.advantage_filter",
            {"kind": "exponential", "advantage_low": 6},
            "agent.advantage_filter.advantage_low: expected less than advantage_high (5.0), got 6.0",
        ),
        (
            "agent",
            {"online_coefficient": 0, "offline_coefficient": 0},
            "agent: expected a positive online_coefficient or offline_coefficient, got 0 for both",
        ),
        (
            "agent",
            {"online_coefficient_final": 0, "offline_coefficient_final": 0},
            "agent: expected a positive online or offline coefficient after annealing, got 0 for both",
        ),
        (
            "model.timestep_encoder",
            {"token_low": 3, "token_high": 3},
            "model.timestep_encoder.token_high: expected more than token_low (3), got 3",
        ),
        (
            "stop",
            {"env_steps": None},
            "stop: expected at least one of env_steps, learner_steps, time_s, eval_success_rate, eval_return, got none",
        ),
        (
            "replay.min_timesteps",
            10_000_000,
            "replay.min_timesteps: expected at most capacity_timesteps (5000000), got 10000000",
        ),
    ],
)
def test_a_wrong_value_gets_one_line(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(path, value)

    assert one_line(error) == message


def test_a_run_that_stops_by_evaluation_must_evaluate() -> None:
    stopping = config("stop", {"eval_success_rate": 0.9})

    with pytest.raises(ConfigError, match=r"^evaluation\.num_episodes: expected a positive integer, as the run stops"):
        validate(replace(stopping, evaluation=replace(stopping.evaluation, num_episodes=0)))


def test_an_empty_mixture_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^env: expected at least one environment"):
        validate(Config(env=[]))


@pytest.mark.parametrize("value", ["my_package.my_module:Thing", "module:Outer.Inner"])
def test_custom_parts_are_named_as_module_attr(value: str) -> None:
    assert config("relabel.kind", value).relabel.kind == value


def test_each_environment_of_a_mixture_has_the_ranges_of_its_fields() -> None:
    with pytest.raises(ConfigError, match=r"^env\.1\.share: expected a positive number, got 0\.0"):
        checked(Config(env=[EnvConfig(id="A-v0"), EnvConfig(id="B-v0", share=0.0)]))


def test_a_context_below_the_horizon_is_legal_and_rolls() -> None:
    validate_horizon(config("model.sequence_model.context_length", 5), horizon=1000, env_name="A-v0")
    assert config("model.sequence_model.context_length", 5).model.sequence_model.context_length == 5


@pytest.mark.parametrize(
    ("table", "horizon", "message"),
    [
        (
            100,
            100,
            'model.sequence_model.max_time_index: expected at least 101 (the horizon of "A-v0" + 1) for learned '
            "positions, got 100",
        ),
        (
            None,
            None,
            'model.sequence_model.max_time_index: expected a table size for learned positions, as "A-v0" has no known '
            "horizon, got null",
        ),
    ],
)
def test_learned_positions_must_cover_the_horizon(table: int | None, horizon: int | None, message: str) -> None:
    short = config("model.sequence_model", {"positions": "learned", "max_time_index": table})

    with pytest.raises(ConfigError) as error:
        validate_horizon(short, horizon, "A-v0")

    assert one_line(error) == message
    validate_horizon(config("model.sequence_model", {"positions": "learned", "max_time_index": 101}), 100, "A-v0")


@pytest.mark.parametrize("kind", ["bilevel", "last_step"])
def test_exploration_within_the_episode_needs_a_horizon(kind: str) -> None:
    with pytest.raises(ConfigError, match=rf'^exploration\.horizon: expected a number of steps for "{kind}"'):
        validate_horizon(config("exploration.kind", kind), None, "A-v0")
    validate_horizon(config("exploration.horizon", 50), None, "A-v0")
    validate_horizon(config("exploration.kind", "none"), None, "A-v0")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"env": {"id": "A-v0", "autoreset_mode": "same_step"}},
            "env.autoreset_mode: expected null without vector_entry_point, as other environments are reset by their "
            'runner, got "same_step"',
        ),
        (
            {"evaluation": {"env": ["A-v0", {"id": "B-v0", "autoreset_mode": "disabled"}]}},
            "evaluation.env.1.autoreset_mode: expected null without vector_entry_point, as other environments are "
            'reset by their runner, got "disabled"',
        ),
        (
            {"cluster": {"address": "auto", "num_cpus": 3}},
            'cluster.num_cpus: expected null, as Ray at "auto" has its own, got 3',
        ),
    ],
)
def test_a_setting_that_does_not_apply_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config_from_dict({"env": "A-v0", **sections})

    assert one_line(error) == message


def test_every_segment_must_hold_a_row() -> None:
    for num_shards, least in ((1, 160), (3, 480)):
        sections = {"num_shards": num_shards, "capacity_bytes": least}
        validate_storage(config("replay", sections), 10, "A-v0")
        with pytest.raises(ConfigError, match=rf"^replay\.capacity_bytes: expected at least {least}, for") as error:
            validate_storage(config("replay", {**sections, "capacity_bytes": least - 1}), 10, "A-v0")
        assert '"A-v0"' in one_line(error)
    validate_storage(config(), 10**9, "A-v0")


def test_the_most_env_runners_are_at_least_those_to_begin_with() -> None:
    expected = r"^rollout\.max_env_runners: expected at least num_env_runners \(4\), got 3"
    with pytest.raises(ConfigError, match=expected):
        config("rollout", {"num_env_runners": 4, "max_env_runners": 3})
    rollout = config("rollout", {"num_env_runners": 4}).rollout
    assert (rollout.fewest_env_runners, rollout.most_env_runners) == (4, 4)
    rollout = config("rollout", {"num_env_runners": 4, "min_env_runners": 1, "max_env_runners": 9}).rollout
    assert (rollout.fewest_env_runners, rollout.most_env_runners) == (1, 9)
