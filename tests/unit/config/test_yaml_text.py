"""What people write into YAML files, by hand and by accident: settings, or one line."""

from pathlib import Path
from typing import Any

import pytest
from helpers.one_line import one_line

from amago_ray.config.env import EnvConfig
from amago_ray.config.load import load_config
from amago_ray.config.training import StopConfig
from amago_ray.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.yaml"


@pytest.mark.parametrize(
    ("text", "place", "value"),
    [
        ("name: 2026-11-22", "name", "2026-11-22"),
        ("name: 2026-11-22T10:00:00Z", "name", "2026-11-22T10:00:00Z"),
        ("name: =", "name", "="),
        ("seed: 0x10", "seed", 16),
        ("seed: 010", "seed", 8),
        ("seed: 1_000", "seed", 1000),
        ("seed: 9223372036854775807", "seed", 2**63 - 1),
        ("learner: {compile: yes}", "learner.compile", True),
        ("evaluation: {at_start: Off}", "evaluation.at_start", False),
        ("stop:\nmodel:\nreplay: ~", "stop", StopConfig(env_steps=1_000_000)),
        ("learner: {<<: {batch_size: 3}, prefetch: 2}", "learner.batch_size", 3),
        ("name: b\r\nseed: 3\r\n", "seed", 3),
    ],
)
def test_what_is_meant_is_read(file: Path, text: str, place: str, value: Any) -> None:
    file.write_text(f"env: A-v0\n{text}", newline="")

    found: Any = load_config(file)
    for name in place.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_a_file_may_begin_with_a_byte_order_mark(file: Path) -> None:
    file.write_text("env: A-v0", encoding="utf-8-sig")

    assert load_config(file).env == EnvConfig(id="A-v0")


def test_a_mapping_that_merges_another_may_itself_be_merged(file: Path) -> None:
    file.write_text(
        "env:\n- &a {id: A-v0, share: 2}\n- &b {<<: *a, id: B-v0}\n- {<<: *b, share: 3}\nevaluation: {env: {<<: *b}}"
    )

    config = load_config(file)
    assert [(env.id, env.share) for env in config.envs] == [("A-v0", 2.0), ("B-v0", 2.0), ("B-v0", 3.0)]
    assert config.evaluation.env == EnvConfig(id="B-v0", share=2.0)


LAUGHS = "".join(f"- &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: {{x}}", "line 2: not readable as YAML: a key must be a text or a number"),
        ("[1, 2]: 3", "line 2: not readable as YAML: a key must be a text or a number"),
        ("learner: {prefetch: 1, prefetch: 2}", 'line 2: not readable as YAML: "prefetch" is given twice'),
        ("\tname: x", "line 2: not readable as YAML: found character '\\t' that cannot start any token"),
        ("---\nenv: B", "line 2: not readable as YAML: but found another document"),
        ("name: *x", "line 2: not readable as YAML: found undefined alias 'x'"),
        (
            "name: !!python/name:os.system",
            "line 2: not readable as YAML: could not determine a constructor for the tag",
        ),
        ("name: !!int x", "not readable as YAML: "),
        ("name: !!bool maybe", "not readable as YAML: "),
        ("name: !!timestamp x", "not readable as YAML: "),
        ("seed: 0b_", "not readable as YAML: "),
        (f"seed: {'9' * 5000}", "not readable as YAML: "),
        (f"seed: {'9' * 400}", "seed: expected integers of at most 1024 bits, got an integer of 1329 bits"),
        ("name: !!set {a, b}", "name: expected texts, numbers, true, false, null, and lists"),
        ("name: !!binary aGk=", "name: expected texts, numbers, true, false, null, and lists"),
        ("x: &x [*x]", "x.0.0.0.0"),
        ("x: &x {y: *x}", "x.y.y.y.y"),
        (f"x: {'[' * 5000}", "not readable as YAML: nested too deeply"),
        (f"x:\n- &a0 [1]\n{LAUGHS}", "x."),
        ("~: 1", "null: unknown key; known here are env, name"),
        ("5: 1", "5: unknown key; known here are env, name"),
        ('"a\\nb\\e[31m": 1', "a b\\x1b[31m: unknown key; known here are env, name"),
        (f"? {'k' * 10_000}\n: 1", f"{'k' * 57}...: unknown key; known here are env, name"),
        (f"seed: {'k' * 10_000}", f'seed: expected an integer of at least 0, got "{"k" * 56}...'),
        ("seed: 9223372036854775808", "seed: expected an integer of at least 0 below 2**63, got 9223372036854775808"),
        ("seed: -1", "seed: expected an integer of at least 0, got -1"),
        ("seed: .inf", "seed: expected an integer of at least 0, got inf"),
        ("stop: {env_steps: 1e30}", "stop.env_steps: expected a positive integer or null"),
        ("learner: {learning_rate: .inf}", "learner.learning_rate: expected a positive number, got inf"),
        ("stop: {time_s: .nan}", "stop.time_s: expected a positive number, got nan"),
        ("name: on", "name: expected a name that can be a folder's, got true"),
        ("name: ~", "name: expected a name that can be a folder's, got null"),
        (f"# {'x' * 2_000_000}", "expected settings of at most 1,000,000 bytes, got 2,000,012"),
    ],
    ids=lambda text: text[:20],
)
def test_what_cannot_be_meant_is_one_line(file: Path, text: str, message: str) -> None:
    file.write_text(f"env: A-v0\n{text}")

    with pytest.raises(ConfigError) as error:
        load_config(file)

    line = one_line(error)
    assert line.startswith(f"{file}: {message}")
    assert line.isprintable()
    assert len(line.removeprefix(str(file))) < 300


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("name={{x}}", "name: line 1: not readable as YAML: a key must be a text or a number"),
        ("name=\udcff", "name: not readable as YAML: special characters are not allowed"),
        ("\udcff=1", "\\udcff: unknown key"),
        ("a\nb=1", "a b: unknown key"),
        (f"{'k' * 10_000}=1", f"{'k' * 57}...: unknown key"),
        (f"env.kwargs.{'.'.join('a' * 5000)}=1", "env.kwargs.a.a"),
        ("a..b=1", 'expected section.key=value, got "a..b=1"'),
        ("env.kwargs.items.5=1", 'env.kwargs.items.5: expected an index of the 2 entries of env.kwargs.items, got "5"'),
        (
            "env.kwargs.items.-1=1",
            'env.kwargs.items.-1: expected an index of the 2 entries of env.kwargs.items, got "-1"',
        ),
        ("exploration.kind.x=1", 'exploration.kind.x: exploration.kind is "none", which has no keys'),
        ("relabel.kind=!!set {a}", "relabel.kind: expected texts, numbers"),
    ],
    ids=lambda text: text[:20],
)
def test_an_override_that_cannot_be_meant_is_one_line(file: Path, override: str, message: str) -> None:
    file.write_text("env: {id: A-v0, kwargs: {items: [1, 2]}}\nexploration: {kind: none}")

    with pytest.raises(ConfigError) as error:
        load_config(file, [override])

    assert one_line(error).startswith(f"command line: {message}")
    assert len(one_line(error)) < 300


def test_overrides_reach_through_lists_and_keys_that_are_numbers(file: Path) -> None:
    file.write_text("env: {id: A-v0, kwargs: {items: [1, {x: 2}], table: {1: a}}}")

    config = load_config(file, ["env.kwargs.items.1.x=3", "env.kwargs.items.0=4", "env.kwargs.table.1=b"])

    assert config.envs[0].kwargs == {"items": [4, {"x": 3}], "table": {1: "b"}}


def test_a_path_that_no_file_can_have_is_no_config() -> None:
    for path in ("x" * 10_000, "a\0b", "."):
        with pytest.raises(ConfigError, match=r"expected a config file or one of .*, got no such file$") as error:
            load_config(path)
        assert one_line(error).isprintable()
