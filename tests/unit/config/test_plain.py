"""Settings made in Python become plain values or one line, and what was accepted is read back as it was."""

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.one_line import one_line
from hypothesis import given, settings
from hypothesis import strategies as st

from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.exploration import EpsilonGreedyConfig
from amago_ray.config.learner import LearnerConfig
from amago_ray.config.load import checked, config_from_dict, config_to_dict, dump_yaml, load_config
from amago_ray.config.model import AutoEncoderConfig, ModelConfig
from amago_ray.config.plain import one_line as on_one_line
from amago_ray.config.plain import plain, show
from amago_ray.config.relabel import HerRelabelConfig
from amago_ray.config.replay import ReplayConfig
from amago_ray.config.yaml_text import read_yaml, write_yaml
from amago_ray.errors import ConfigError


class Colour(enum.Enum):
    RED = 1


class Mode(enum.StrEnum):
    FAST = "fast"


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Settings:
    size: int = 3


class Endless:
    def tolist(self) -> "Endless":
        return self


def recursive() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array(7), 7),
        ((1, (2, 3)), [1, [2, 3]]),
        (Path("a/b"), "a/b"),
        (Mode.FAST, "fast"),
        (Level.HIGH, 3),
        ({np.int64(1): (True, None)}, {1: [True, None]}),
        (2**70, 2**70),
    ],
)
def test_what_has_a_plain_form_takes_it(value: Any, expected: Any) -> None:
    made = plain(value)

    assert made == expected
    assert type(made) is type(expected)
    assert checked(Config(env=EnvConfig(id="A-v0", kwargs={"x": value}))).envs[0].kwargs == {"x": expected}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (lambda: 3, "got an object of class function"),
        (Settings(), "got an object of class Settings"),
        (Settings, "got the class Settings"),
        (Colour.RED, "got an object of class Colour"),
        ({1, 2}, "got an object of class set"),
        (b"x", "got an object of class bytes"),
        (1j, "got an object of class complex"),
        (object(), "got an object of class object"),
        (2**2000, "got an integer of 2001 bits"),
        ({(1, 2): 3}, "got [1, 2]"),
        (np.datetime64("2026-11-22"), "got an object of class date"),
        (recursive(), "expected at most 32 levels, got more"),
        (Endless(), "expected at most 32 levels, got more"),
        ([0] * 200_000, "expected at most 100000 values, got more"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("write", [checked, dump_yaml], ids=["checked", "written"])
def test_what_has_none_is_one_line_with_its_place(write: Callable[[Config], Any], value: Any, found: str) -> None:
    with pytest.raises(ConfigError) as error:
        write(Config(env=EnvConfig(id="A-v0", kwargs={"outer": [{"x": value}]})))

    assert one_line(error).startswith("env.kwargs.outer.0.x")
    assert one_line(error).endswith(found)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(env=5), "env: expected an environment's id, or a mapping with one, got 5"),  # type: ignore[arg-type]
        (Config(env=EnvConfig), "env: expected texts, numbers"),  # type: ignore[arg-type]
        (
            Config(env=EnvConfig(id=lambda: None)),  # type: ignore[arg-type]
            "env.id: expected texts, numbers",
        ),
        (
            Config(env=EnvConfig(id="A"), exploration=HerRelabelConfig()),  # type: ignore[arg-type]
            "exploration: expected texts, numbers",
        ),
        (Config(env=EnvConfig(id="A"), seed=2**63), "seed: expected an integer of at least 0 below 2**63, got"),
        (Config(env=EnvConfig(id="A"), seed=-1), "seed: expected an integer of at least 0, got -1"),
        (Config(env=EnvConfig(id="A"), seed=True), "seed: expected an integer of at least 0, got true"),
        (Config(env=EnvConfig(id="A"), learner=LearnerConfig(learning_rate=math.nan)), "learner.learning_rate: "),
        (
            Config(env=[EnvConfig(id="A"), EnvConfig(id="B", share=np.float32(0))]),  # type: ignore[arg-type]
            "env.1.share: expected a positive number, got 0.0",
        ),
        ("quickstart", 'expected a Config (see load_config), got "quickstart"'),
        ({"env": "A"}, "expected a Config (see load_config), got {env:"),
    ],
)
def test_a_wrong_setting_made_in_python_is_one_line(config: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        checked(config)

    assert one_line(error).startswith(message)


def test_settings_made_in_python_are_those_that_are_read_back() -> None:
    made = Config(
        env=("A-v0", EnvConfig(id="B-v0", share=np.float64(2.0), kwargs={"shape": (3, np.int64(4))})),  # type: ignore[arg-type]
        name="x",
        runs_dir=Path("somewhere"),  # type: ignore[arg-type]
        seed=np.int64(3),  # type: ignore[arg-type]
        exploration=EpsilonGreedyConfig(anneal_env_steps=1e4),  # type: ignore[arg-type]
        replay={"num_shards": 2},  # type: ignore[arg-type]
        model=ModelConfig(timestep_encoder=AutoEncoderConfig(observation_keys=["a", "b"])),  # type: ignore[arg-type]
        checkpoint=None,  # type: ignore[arg-type]
    )

    config = checked(made)

    assert config == config_from_dict(yaml.safe_load(dump_yaml(made)))
    assert config.envs == [EnvConfig(id="A-v0"), EnvConfig(id="B-v0", share=2.0, kwargs={"shape": [3, 4]})]
    assert (config.runs_dir, config.seed, type(config.seed)) == ("somewhere", 3, int)
    assert type(config.exploration.anneal_env_steps) is int  # type: ignore[union-attr]
    assert config.replay == ReplayConfig(num_shards=2)
    assert config.model.timestep_encoder.observation_keys == ("a", "b")
    assert checked(config) == config


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text()
KEYS = st.text() | st.integers() | st.booleans() | st.none()
VALUES = st.recursive(SCALARS, lambda items: st.lists(items) | st.dictionaries(KEYS, items), max_leaves=20)
# Texts that YAML could take for something else.
LIKE_YAML = st.from_regex(r"[-+~!&*?|>%@`'\"#:=<{}\[\],.0-9_eExobnyYN \t\n\r\x85\u2028]{0,8}", fullmatch=True)


@settings(max_examples=40)
@given(st.dictionaries(st.text() | LIKE_YAML, VALUES | LIKE_YAML))
def test_every_accepted_config_is_read_back_as_it_was(kwargs: dict[str, Any]) -> None:
    config = checked(Config(env=EnvConfig(id="A-v0", kwargs=kwargs)))

    assert config.envs[0].kwargs == kwargs
    assert config_from_dict(config_to_dict(config)) == config
    assert config_from_dict(read_yaml(dump_yaml(config), "x")) == config


@given(VALUES | LIKE_YAML)
def test_whatever_is_written_reads_the_same_for_any_yaml_1_1_reader(value: Any) -> None:
    assert yaml.safe_load(write_yaml({"x": value})) == {"x": value}


@given(st.text() | LIKE_YAML | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")))
def test_any_text_as_a_config_or_an_override_is_a_config_or_one_line(text: str) -> None:
    for message in (message_of(read_yaml, text, "x"), message_of(load_config, "quickstart", [text])):
        assert message.isprintable()
        assert len(message) < 500


def message_of(read: Callable[..., Any], *arguments: Any) -> str:
    """The line of the error, nothing where there is none."""
    try:
        read(*arguments)
    except ConfigError as error:
        return str(error)
    return ""


def test_values_are_shown_on_one_short_printable_line() -> None:
    assert show('a\nb\x1b[31m"' + "x" * 10_000) == 'a b\\x1b[31m"'.join(['"', "x" * 44 + "..."])
    assert show({"a": [1, None, True], "b": "x"}) == '{a: [1, null, true], b: "x"}'
    assert show({i: i for i in range(4)}) == "a mapping"
    assert show(10**400) == "an integer of 1329 bits"
    assert on_one_line("x" * 99, 10) == "xxxxxxx..."


@pytest.mark.parametrize(
    "name", ["~", "~x", "a/b", "a\\b", "a\0b", "a\nb", "\ud800", " ", "", "..", "x" * 256, "é" * 128]
)
def test_a_name_that_no_folder_should_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^name: expected a name that can be a folder's, got ") as error:
        checked(replace(load_config("quickstart"), name=name))
    assert one_line(error).isprintable()


@pytest.mark.parametrize("path", ["s3://bucket/runs", "file:///tmp/runs", "", "  ", "a\0b", "~nobody_has_this_name/x"])
def test_a_folder_is_a_path_on_this_machine(path: str) -> None:
    config = load_config("quickstart")
    with pytest.raises(ConfigError, match=r"^runs_dir: expected the path of a folder, got "):
        checked(replace(config, runs_dir=path))
    with pytest.raises(ConfigError, match=r"^replay\.directory: expected the path of a folder, got "):
        checked(replace(config, replay=replace(config.replay, directory=path)))


def test_a_tilde_is_the_reader_s_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    config = load_config("quickstart", ["runs_dir=~/runs", "replay.directory='~'"])
    assert (config.runs_dir, config.replay.directory) == ("/home/someone/runs", "/home/someone")
