"""Specs as JSON: read back exactly, whatever the spaces."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from gymnasium import spaces
from helpers.one_line import one_line
from hypothesis import given

from amago_ray.data.goal_rule import GoalRule
from amago_ray.data.space_specs import read_action_space, read_observation_space
from amago_ray.data.spec_json import spec_from_json, spec_to_json
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.envs.make import make_spec
from amago_ray.envs.registry import BUILT_INS
from amago_ray.errors import DataError

SPEC = EnvSpec(
    "some/env-v0",
    {
        "desired_goal": ObservationSpec("box", (2, 3), "int32"),
        "inner/a": ObservationSpec("multi_discrete", (2,), "int64", (3, 300)),
        "picture": ObservationSpec("box", (3, 8, 8), "uint8"),
    },
    ActionSpec("box", (2,), (), (-np.inf, -0.1), (np.inf, 1e-30)),
    horizon=40,
    goal_dim=3,
    goal_dtype="int32",
    goal_rule=GoalRule(match="within", tolerance=0.05, reward=2.0, marker=None, terminates=False, persistent=True),
    has_action_mask=True,
)


def round_trip(spec: EnvSpec) -> EnvSpec:
    return spec_from_json(spec_to_json(spec))


def test_every_field_is_read_back_exactly() -> None:
    read = round_trip(SPEC)
    assert read == SPEC
    assert isinstance(read.observations["inner/a"].num_categories, tuple)
    assert isinstance(read.action.low, tuple)
    assert read.observations["picture"].is_pixels
    assert hash(read.action) == hash(SPEC.action)


def test_a10_the_order_of_leaves_is_kept() -> None:
    """docs/algorithm.md §14.10."""
    assert list(round_trip(SPEC).observations) == ["desired_goal", "inner/a", "picture"]


@pytest.mark.parametrize("env_id", sorted(BUILT_INS))
def test_built_in_environments(env_id: str) -> None:
    from amago_ray.config.env import EnvConfig

    spec = make_spec([EnvConfig(id=env_id)])
    assert round_trip(spec) == spec


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(300, start=5),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(4),
        spaces.Box(np.float32(-0.1), np.float32(0.3), (2, 2)),
        spaces.Box(-np.inf, np.inf, (3,)),
    ],
    ids=str,
)
def test_specs_of_gymnasium_spaces(space: spaces.Space[Any]) -> None:
    """What the adapter makes is plain data, without NumPy's own numbers."""
    leaves = read_observation_space(spaces.Dict({"x": space, "y": spaces.Tuple([space])})).leaves
    spec = EnvSpec("gym", leaves, read_action_space(space))
    assert round_trip(spec) == spec


def test_a_spec_of_version_1_is_read_as_it_was_recorded() -> None:
    read = spec_from_json((Path(__file__).parent / "recorded" / "env_spec_v1.json").read_text())
    assert read.observations["card"] == ObservationSpec("discrete", (), "int64", (4,), start=None)
    assert read.observations["camera"] == ObservationSpec("box", (3, 6, 5), "uint8", start=None)
    assert read.action == ActionSpec("box", (2,), low=(-2.0, 0.0), high=(2.0, 1.0), start=None)
    assert (read.name, read.horizon, read.goal_rule) == ("old", 9, None)


def test_a_spec_of_a_later_version_is_one_line() -> None:
    text = json.dumps({**json.loads(spec_to_json(SPEC)), "version": 3})
    with pytest.raises(DataError) as error:
        spec_from_json(text)
    assert "version: expected at most 2, got 3" in one_line(error)


@given(
    horizon=st.none() | st.integers(1, 10**9),
    name=st.text(),
    low=st.lists(st.floats(allow_nan=False), min_size=1, max_size=3),
    marker=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
def test_any_numbers(horizon: int | None, name: str, low: list[float], marker: float | None) -> None:
    action = ActionSpec("box", (len(low),), (), tuple(low), tuple(low))
    spec = replace(SPEC, name=name, horizon=horizon, action=action, goal_rule=GoalRule(marker=marker))
    assert round_trip(spec) == spec


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", "{}", '"text"', json.dumps({**json.loads(spec_to_json(SPEC)), "extra": 1})],
)
def test_what_is_no_spec_is_one_line(text: str) -> None:
    with pytest.raises(DataError, match="expected an environment's spec as JSON") as error:
        spec_from_json(text)
    one_line(error)


@pytest.mark.parametrize("missing", ["name", "action", "observations", "goal_rule"])
def test_a_missing_field_is_one_line(missing: str) -> None:
    plain = json.loads(spec_to_json(SPEC))
    del plain[missing]
    with pytest.raises(DataError) as error:
        spec_from_json(json.dumps(plain))
    assert missing in one_line(error)
