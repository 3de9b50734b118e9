from dataclasses import is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml
from helpers.one_line import one_line

from amago_ray.config import Config
from amago_ray.config.describe import describe_fields
from amago_ray.config.env import EnvConfig
from amago_ray.config.kinds import family_of
from amago_ray.config.load import (
    config_from_dict,
    config_to_dict,
    dump_yaml,
    find_config,
    load_config,
    shipped_configs,
)
from amago_ray.errors import ConfigError

SHIPPED = [
    "dark_key_door",
    "masked_maze",
    "maze_runner",
    "mixture",
    "pendulum",
    "quickstart",
    "t_maze",
    "t_maze_100",
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text("env: CartPole-v1\nreplay: {num_shards: 2}\n")
    return path


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return path


def test_the_shipped_configs_are_known_by_name() -> None:
    assert sorted(shipped_configs()) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_config_loads_and_survives_a_round_trip(name: str) -> None:
    config = load_config(name)

    assert config.name == name
    assert config_from_dict(config_to_dict(config)) == config
    assert config_from_dict(yaml.safe_load(dump_yaml(config))) == config


def test_every_override_of_the_quickstart_reaches_its_field() -> None:
    config = load_config(
        "quickstart",
        ["learner.learning_rate=1e-5", "report.loggers=[jsonl]", "stop.env_steps=1e4", "env.kwargs.size=9", "seed=3"],
    )

    assert config.learner.learning_rate == 1e-5
    assert config.report.loggers == ("jsonl",)
    assert config.stop.env_steps == 10_000
    assert config.stop.eval_success_rate == 0.95
    assert config.envs[0].kwargs == {"size": 9, "num_goals": 1, "episode_length": 50}
    assert config.seed == 3


@pytest.mark.parametrize("text", ["5_000_000", "5000000", "5e6", "5.0e+6", "5000000.0"])
def test_whole_numbers_are_read_in_every_spelling(file: Path, text: str) -> None:
    capacity = load_config(file, [f"replay.capacity_timesteps={text}"]).replay.capacity_timesteps

    assert capacity == 5_000_000
    assert type(capacity) is int


def test_an_environment_may_be_an_id_a_mapping_or_a_list(tmp_path: Path) -> None:
    for text, expected in (
        ("env: A-v0", EnvConfig(id="A-v0")),
        ("env: {id: A-v0, share: 2}", EnvConfig(id="A-v0", share=2.0)),
        ("env: [A-v0, {id: B-v0, kwargs: {k: 1.0}}]", [EnvConfig(id="A-v0"), EnvConfig(id="B-v0", kwargs={"k": 1.0})]),
    ):
        assert load_config(written(tmp_path, text)).env == expected


def test_overrides_reach_into_bare_ids_lists_and_absent_sections(tmp_path: Path) -> None:
    path = written(tmp_path, "env: [A-v0, B-v0]")

    config = load_config(path, ["env.1.kwargs.size=9", "evaluation.env.id=C-v0", "stop.time_s=5"])

    assert config.env == [EnvConfig(id="A-v0"), EnvConfig(id="B-v0", kwargs={"size": 9})]
    assert config.evaluation.env == EnvConfig(id="C-v0")
    assert config.stop.time_s == 5.0


def test_max_seq_len_is_another_name_of_context_length(tmp_path: Path) -> None:
    path = written(tmp_path, "env: A-v0\nmodel: {sequence_model: {max_seq_len: 7}}")

    assert load_config(path).model.sequence_model.context_length == 7
    # The command line wins over the file, whichever of the two names each uses.
    assert load_config(path, ["model.sequence_model.context_length=8"]).model.sequence_model.context_length == 8
    assert load_config(path, ["model.sequence_model.max_seq_len=9"]).model.sequence_model.context_length == 9


def test_the_given_tree_is_not_changed() -> None:
    tree = {"env": "A-v0", "model": {"sequence_model": {"max_seq_len": 7}}}

    config_from_dict(tree)

    assert tree == {"env": "A-v0", "model": {"sequence_model": {"max_seq_len": 7}}}


def test_floats_are_dumped_so_that_every_yaml_reader_takes_them_for_floats() -> None:
    config = config_from_dict({"env": "A-v0", "learner": {"learning_rate": 1e-5, "weight_decay": 1e-20}})

    assert yaml.safe_load(dump_yaml(config))["learner"]["learning_rate"] == 1e-5
    assert yaml.safe_load(dump_yaml(config))["learner"]["weight_decay"] == 1e-20


FILE_ERRORS = [
    ("replay: {num_shards: 1}", "env: expected an environment's id or mapping or a list of them, got nothing"),
    ("env: A-v0\nreplay: {capacity_timesteps: 5M}", 'replay.capacity_timesteps: expected a positive integer, got "5M"'),
    ("env: A-v0\nlearner: {batch_size: true}", "learner.batch_size: expected a positive integer, got true"),
    ("env: A-v0\nlearner: {batch_size: 1.5}", "learner.batch_size: expected a positive integer, got 1.5"),
    ("env: A-v0\nlearner: 5", "learner: expected a mapping of settings, got 5"),
    ("env: A-v0\nname: 5", "name: expected a name that can be a folder's, got 5"),
    ("env: A-v0\nreplay: {fsync: now}", 'replay.fsync: expected one of "never", "segment", "add", got "now"'),
    (
        "env: A-v0\nreport: {loggers: [wandb]}",
        'report.loggers: expected a list of one of "console", "jsonl", "tensorboard", got ["wandb"]',
    ),
    (
        "env: A-v0\nmodel: {sequence_model: {attention_backend: xformers}}",
        'model.sequence_model.attention_backend: expected one of "auto", "sdpa", "native", "varlen", "flash_attn", '
        'got "xformers"',
    ),
    ("env: A-v0\nreplay: {capacity: 5}", 'replay.capacity: unknown key; did you mean "capacity_bytes"?'),
    ("env: A-v0\nlerner: {batch_size: 5}", 'lerner: unknown key; did you mean "learner"?'),
    (
        "env: A-v0\ncontext_length: 5",
        'context_length: unknown key; did you mean "model.sequence_model.context_length"?',
    ),
    ("env: [A-v0, {share: 2}]", "env.1.id: expected a text that is not empty, got nothing"),
    ("env: 5", "env: expected an environment's id, or a mapping with one, got 5"),
    (
        "env: A-v0\nmodel: {sequence_model: {max_seq_len: 7, context_length: 8}}",
        "model.sequence_model.max_seq_len and model.sequence_model.context_length are the same setting; give one",
    ),
    ("env: A-v0\nenv: B-v0", 'line 2: not readable as YAML: "env" is given twice'),
    ("- A-v0", 'expected a mapping of settings, got ["A-v0"]'),
    ("", "expected a mapping of settings, got nothing"),
]


@pytest.mark.parametrize(("text", "message"), FILE_ERRORS)
def test_a_wrong_file_gets_one_line_with_its_name(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)

    with pytest.raises(ConfigError) as error:
        load_config(path)

    assert one_line(error) == f"{path}: {message}"


def test_malformed_yaml_gets_one_line_with_its_line_number(tmp_path: Path) -> None:
    path = written(tmp_path, "env: A-v0\nreplay: {num_shards: 2\n")

    with pytest.raises(ConfigError) as error:
        load_config(path)

    assert one_line(error).startswith(f"{path}: line 3: not readable as YAML")


OVERRIDE_ERRORS = [
    ("replay.capacity_timesteps=5M", 'replay.capacity_timesteps: expected a positive integer, got "5M"'),
    ("lerner.batch_size=3", 'lerner: unknown key; did you mean "learner"?'),
    ("seed", 'expected section.key=value, got "seed"'),
    (".seed=3", 'expected section.key=value, got ".seed=3"'),
    ("seed.x=3", "seed: expected an integer of at least 0, got {x: 3}"),
    ("replay.num_shards.x=3", "replay.num_shards.x: replay.num_shards is 2, which has no keys"),
    (
        "model.sequence_model.num_heads=7",
        "model.sequence_model.d_model: expected a multiple of num_heads (7), got 256",
    ),
]


@pytest.mark.parametrize(("override", "message"), OVERRIDE_ERRORS)
def test_a_wrong_override_gets_one_line_that_blames_the_command_line(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(file, [override])

    assert one_line(error) == f"command line: {message}"


def test_an_index_past_the_end_of_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(written(tmp_path, "env: [A-v0]"), ["env.1.id=B-v0"])

    assert one_line(error) == 'command line: env.1.id: expected an index of the 1 entries of env, got "1"'


def test_an_error_in_the_file_is_not_blamed_on_overrides(tmp_path: Path) -> None:
    path = written(tmp_path, "env: A-v0\nseed: -1")

    with pytest.raises(ConfigError, match=r"x\.yaml: seed: expected an integer of at least 0, got -1"):
        load_config(path, ["name=other"])


def test_an_unknown_config_gets_one_line_with_the_shipped_names() -> None:
    with pytest.raises(ConfigError) as error:
        find_config("quikstart")

    assert one_line(error) == (f"quikstart: expected a config file or one of {', '.join(SHIPPED)}, got no such file")


def test_every_setting_is_described() -> None:
    described = {field.path: field for field in describe_fields()}

    assert [path for path, field in described.items() if not field.meaning] == []
    assert described["learner.batch_size"].default == "24"
    assert described["env.id"].default == "required"
    assert set(described) == {*_paths(Config, ""), *_paths(EnvConfig, "env.")}


def _paths(kind: type, prefix: str) -> list[str]:
    paths = []
    for name, hint in get_type_hints(kind).items():
        sections = family_of(hint) or (hint,)
        if all(is_dataclass(section) for section in sections):
            for section in sections:
                paths += _paths(section, f"{prefix}{name}.")
        else:
            paths.append(f"{prefix}{name}")
    return paths
