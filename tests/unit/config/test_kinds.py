"""Sections that come in kinds: each has its own settings; those of another are refused, or passed over at defaults."""

import sys
import types
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.one_line import one_line

from amago_ray.config import Config
from amago_ray.config.advantage_filter import ExponentialFilterConfig, LeakyFilterConfig, NoFilterConfig
from amago_ray.config.exploration import (
    BilevelConfig,
    CustomExplorationConfig,
    EpsilonGreedyConfig,
    LastStepConfig,
    NoExplorationConfig,
)
from amago_ray.config.hints import hints_of
from amago_ray.config.kinds import Registry, class_of, family_of, in_words, names_of
from amago_ray.config.load import config_from_dict, config_to_dict, load_config
from amago_ray.config.relabel import CustomRelabelConfig, HerRelabelConfig, InstructionRelabelConfig, NoRelabelConfig
from amago_ray.config.tree import expand_aliases
from amago_ray.errors import ConfigError, EnvError

FAMILIES = {name: family_of(hint) for name, hint in hints_of(Config).items() if family_of(hint)}


def load(**sections: Any) -> Config:
    return config_from_dict({"env": "A-v0", **sections})


@pytest.mark.parametrize("name", FAMILIES)
def test_the_first_class_of_a_family_is_the_default_and_no_kind_is_named_twice(name: str) -> None:
    (entry,) = (each for each in fields(Config) if each.name == name)
    assert isinstance(entry.default_factory, Callable)  # type: ignore[arg-type]
    assert type(entry.default_factory()) is FAMILIES[name][0]
    kinds = [kind for each in FAMILIES[name] for kind in names_of(each)]
    assert sorted(set(kinds)) == sorted(kinds)
    assert [class_of(FAMILIES[name], kind) for each in FAMILIES[name] for kind in names_of(each)] == [
        each for each in FAMILIES[name] for _ in names_of(each)
    ]


@pytest.mark.parametrize(
    ("section", "tree", "expected"),
    [
        ("exploration", None, BilevelConfig()),
        ("exploration", {"epsilon_start": 0.5}, BilevelConfig(epsilon_start=0.5)),
        ("exploration", {"kind": "epsilon_greedy"}, EpsilonGreedyConfig()),
        ("exploration", {"kind": "last_step", "horizon": 9}, LastStepConfig(horizon=9)),
        ("exploration", {"kind": "none"}, NoExplorationConfig()),
        ("exploration", {"kind": "a.b:C"}, CustomExplorationConfig(kind="a.b:C")),
        ("relabel", None, NoRelabelConfig()),
        ("relabel", {"kind": "instruction", "strategy": "all"}, InstructionRelabelConfig(strategy="all")),
        ("relabel", {"kind": "her"}, HerRelabelConfig()),
        ("relabel", {"kind": "m:a.b", "kwargs": {"x": 1}}, CustomRelabelConfig(kind="m:a.b", kwargs={"x": 1})),
    ],
)
def test_a_section_is_of_the_class_of_its_kind(section: str, tree: Any, expected: Any) -> None:
    config = load(**{section: tree})

    assert getattr(config, section) == expected
    assert config_from_dict(config_to_dict(config)) == config


@pytest.mark.parametrize(
    ("section", "tree", "message"),
    [
        (
            "exploration",
            {"kind": "epsilon_greedy", "horizon": 50},
            'exploration.horizon: expected only with kind "bilevel" or "last_step", got 50 with kind "epsilon_greedy"',
        ),
        (
            "exploration",
            {"kind": "none", "epsilon_start": 0.5},
            'exploration.epsilon_start: expected only with kind "bilevel", "epsilon_greedy", or "last_step", '
            'got 0.5 with kind "none"',
        ),
        (
            "relabel",
            {"kind": "her", "kwargs": {"x": 1}},
            'relabel.kwargs: expected only with kind module:attr, got {x: 1} with kind "her"',
        ),
        (
            "relabel",
            {"kind": "m:a", "her_probability": "x"},
            'relabel.her_probability: expected only with kind "her", got "x" with kind "m:a"',
        ),
        (
            "relabel",
            {"kind": None},
            'relabel.kind: expected one of "none", "instruction", "her", or module:attr, got null',
        ),
        (
            "relabel",
            {"kind": ["her"]},
            'relabel.kind: expected one of "none", "instruction", "her", or module:attr, got ["her"]',
        ),
        ("relabel", {"kind": "her", "strategi": "all"}, 'relabel.strategi: unknown key; did you mean "her_strategy"?'),
        ("relabel", "her", 'relabel: expected a mapping of settings, got "her"'),
        ("relabel", {"kind": "m:a", "kwargs": [1]}, "relabel.kwargs: expected a mapping with texts as keys, got [1]"),
    ],
)
def test_what_belongs_to_another_kind_is_one_line(section: str, tree: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(**{section: tree})

    assert one_line(error) == message


def test_what_belongs_to_another_kind_passes_at_its_default_there() -> None:
    assert load(exploration={"kind": "none", "epsilon_start": 1, "horizon": None}).exploration == NoExplorationConfig()
    assert load(relabel={"kind": "m:a", "strategy": "some"}).relabel == CustomRelabelConfig(kind="m:a")
    assert load(relabel={"kind": "her", "kwargs": {}}).relabel == HerRelabelConfig()


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "older").glob("*.yaml")), ids=lambda path: path.stem)
def test_settings_resolved_when_each_section_named_the_fields_of_all_kinds_still_load(path: Path) -> None:
    def common(of: Any, other: Any) -> Any:
        """The settings that both have, with the values of the first."""
        if isinstance(of, dict) and isinstance(other, dict):
            return {key: common(of[key], other[key]) for key in of if key in other}
        return of

    then, now = yaml.safe_load(path.read_text()), config_to_dict(load_config(path))
    expand_aliases(then)
    assert common(then, now) == common(now, then)
    assert set(now) >= set(then)


def test_a_filter_that_was_once_a_name_beside_its_numbers_is_read_as_its_section(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("env: A-v0\nagent: {advantage_filter: exponential, exponential_filter_clip_high: 3}\n")

    assert load_config(path).agent.advantage_filter == ExponentialFilterConfig(advantage_high=3.0)
    for overrides, expected in (
        (["agent.exponential_filter_beta=2"], ExponentialFilterConfig(advantage_high=3.0, beta=2.0)),
        (["agent.advantage_filter.beta=2"], ExponentialFilterConfig(advantage_high=3.0, beta=2.0)),
        (["agent.advantage_filter=none"], NoFilterConfig()),
        (["agent.advantage_filter={kind: leaky, scale: 1}"], LeakyFilterConfig(scale=1.0)),
    ):
        if expected.kind != "exponential":
            path.write_text("env: A-v0\n")
        assert load_config(path, overrides).agent.advantage_filter == expected
    with pytest.raises(ConfigError, match=r"agent.advantage_filter.kind: expected one of .* got \"nothing\""):
        load_config(path, ["agent.advantage_filter=nothing"])


def test_the_kind_given_on_the_command_line_takes_the_place_of_the_file_s(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("env: A-v0\nexploration: {kind: bilevel, epsilon_start: 0.5, horizon: 50}\n")

    greedy = EpsilonGreedyConfig(epsilon_start=0.5, epsilon_final=0.1)
    for overrides in (["exploration.epsilon_final=0.1"], []):
        overrides = [*overrides, "exploration.kind=epsilon_greedy", *(["exploration.epsilon_final=0.1"])]
        assert load_config(path, overrides).exploration == greedy
    assert load_config(path, ["exploration.kind=none"]).exploration == NoExplorationConfig()
    assert load_config(path, ["exploration={kind: none}"]).exploration == NoExplorationConfig()
    with pytest.raises(ConfigError, match=r"^command line: exploration\.horizon: expected only with kind"):
        load_config(path, ["exploration.horizon=3", "exploration.kind=none"])
    with pytest.raises(ConfigError, match=r'^command line: exploration\.kind: expected one of .* got "nothing"'):
        load_config(path, ["exploration.kind=nothing"])


class Part:
    def __init__(self, config: Any, number: int, *, share: float = 1.0) -> None:
        self.made = (config.kind, number, share)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Registry[Part]:
    module = types.ModuleType("own_parts")
    module.Part = Part  # type: ignore[attr-defined]

    def raising(error: BaseException) -> Callable[..., Part]:
        def make(config: Any, number: int) -> Part:
            raise error

        return make

    module.fails = raising(ValueError("two\nlines"))  # type: ignore[attr-defined]
    module.leaves = raising(SystemExit(3))  # type: ignore[attr-defined]
    module.refuses = raising(EnvError("the environment lacks it"))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_parts", module)
    return Registry("relabel.kind", {HerRelabelConfig: Part})


def test_built_in_and_custom_parts_are_called_alike_and_custom_ones_get_their_kwargs(parts: Registry[Part]) -> None:
    assert parts.make(HerRelabelConfig(), 3).made == ("her", 3, 1.0)
    custom = CustomRelabelConfig(kind="own_parts:Part", kwargs={"share": 0.5})
    assert parts.make(custom, 3).made == ("own_parts:Part", 3, 0.5)


@pytest.mark.parametrize(
    ("attribute", "kwargs", "words"),
    [
        ("Part", {"shares": 1}, "TypeError"),
        ("fails", {}, "ValueError: two lines"),
        ("leaves", {}, "SystemExit: 3"),
        ("__name__", {}, "TypeError"),
    ],
)
def test_a_custom_part_that_cannot_be_made_is_one_line(
    parts: Registry[Part], attribute: str, kwargs: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as error:
        parts.make(CustomRelabelConfig(kind=f"own_parts:{attribute}", kwargs=kwargs), 3)

    assert one_line(error).startswith(f'relabel.kind: cannot make "own_parts:{attribute}": {words}')


def test_a_custom_part_that_is_something_else_is_one_line() -> None:
    registry: Registry[Any] = Registry("exploration.kind", {}, has=("begin", "apply"))
    with pytest.raises(ConfigError) as error:
        registry.make(CustomExplorationConfig(kind="builtins:repr"))

    assert one_line(error).startswith(
        'exploration.kind: expected "builtins:repr" to make an object with begin, apply, got "Custom'
    )
    assert one_line(error).endswith("without begin, apply")


def test_a_custom_part_s_own_line_is_left_as_it_is(parts: Registry[Part]) -> None:
    with pytest.raises(EnvError, match=r"^the environment lacks it$"):
        parts.make(CustomRelabelConfig(kind="own_parts:refuses"), 3)


def test_kinds_in_words() -> None:
    assert in_words((NoRelabelConfig,)) == '"none"'
    assert in_words((NoRelabelConfig, HerRelabelConfig)) == '"none" or "her"'
    assert in_words((NoRelabelConfig, HerRelabelConfig, CustomRelabelConfig)) == '"none", "her", or module:attr'


@pytest.mark.parametrize("kind", ["actor_critic", "multi_task"])
def test_value_bins_may_stand_where_the_agent_is_chosen_later(kind: str) -> None:
    config = config_from_dict({"env": "CartPole-v1", "agent": {"kind": kind, "num_bins": 8}})

    assert (config.agent.kind, config.agent.num_bins) == (kind, 8)
