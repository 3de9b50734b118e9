"""Values of an environment's spaces become rows, and stored actions those of the environment; misfits are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from helpers.one_line import one_line

from amago_ray.data.space_specs import read_action_space, read_observation_space
from amago_ray.data.spaces import ActionAdapter, ObservationAdapter, goal_rows
from amago_ray.errors import SpaceError

INT64 = np.iinfo(np.int64)


def adapter_of(space: spaces.Space[Any]) -> ObservationAdapter:
    return ObservationAdapter(read_observation_space(space).leaves)


def row_of(space: spaces.Space[Any], value: Any) -> np.ndarray:
    return adapter_of(space).rows(value)["observation"]


def refused(space: spaces.Space[Any], value: Any, num_rows: int | None = None) -> str:
    with pytest.raises(SpaceError) as error:
        adapter_of(space).rows(value, num_rows)
    return one_line(error)


NESTED = spaces.Dict(
    {
        "a": spaces.Tuple((spaces.MultiBinary(2), spaces.Dict({"deep": spaces.Discrete(3, start=5)}))),
        "b": spaces.Box(-1, 1, (2,), np.float64),
    }
)


def test_rows_share_memory_where_nothing_changes() -> None:
    row = np.asarray([1, 2, 3], np.float32)
    assert np.shares_memory(row_of(spaces.Box(-1, 1, (3,), np.float32), row), row)


@pytest.mark.parametrize(
    "observation",
    [
        {"b": [[0.5, 0.25]] * 2, "a": ([[1, 0], [0, 1]], {"deep": [5, 7]})},
        {"a/0": [[1, 0], [0, 1]], "a/1/deep": np.array([5, 7]), "b": np.full((2, 2), [0.5, 0.25])},
    ],
    ids=["nested", "flat"],
)
def test_observations_come_nested_or_by_leaf_name(observation: dict[str, Any]) -> None:
    rows = adapter_of(NESTED).rows(observation, 2)
    assert list(rows) == ["a/0", "a/1/deep", "b"]
    assert rows["a/0"].tolist() == [[1, 0], [0, 1]]
    assert rows["a/1/deep"].tolist() == [0, 2]
    assert rows["b"].tolist() == [[0.5, 0.25]] * 2
    assert [row.dtype.name for row in rows.values()] == ["int8", "int64", "float32"]


def test_one_observation_may_come_without_its_leading_axis() -> None:
    one = {"a": ([1, 0], {"deep": 6}), "b": [0.5, 0.25]}
    rows = adapter_of(NESTED).rows(one, 1)
    assert [row.tolist() for row in rows.values()] == [[[1, 0]], [1], [[0.5, 0.25]]]


@pytest.mark.parametrize("number", [0, 1])
def test_keys_of_dicts_may_be_numbers(number: int) -> None:
    space = spaces.Dict({0: spaces.Box(-1, 1, (2,), np.float32), 1: spaces.Discrete(3, start=5)})
    rows = adapter_of(space).rows({number: [[0.0, 0.0], 6][number], 1 - number: [6, [0.0, 0.0]][number]})
    assert rows["1"].tolist() == 1


def test_a_tuple_of_one_is_no_bare_leaf() -> None:
    assert adapter_of(spaces.Tuple((spaces.Discrete(3),))).rows((2,))["0"] == 2


def test_unknown_keys_are_named_at_any_depth() -> None:
    adapter = adapter_of(NESTED)
    whole: dict[str, Any] = {"b": [0.0, 0.0], "a": ([1, 0], {"deep": 5})}
    adapter.check_keys(whole | {"action_mask": [1]}, {"action_mask"})
    for extra, name in (
        (whole | {"c": 1}, "'c'"),
        (whole | {"a": ([1, 0], {"deep": 5, "deeper": 1})}, "'a/1/deeper'"),
        (whole | {"a": ([1, 0], {"deep": 5}, 3)}, "'a/2'"),
    ):
        with pytest.raises(SpaceError) as error:
            adapter.check_keys(extra, ())
        assert name in one_line(error)


@pytest.mark.parametrize("missing", ["a", "b"])
def test_a_missing_leaf_is_named(missing: str) -> None:
    whole: dict[str, Any] = {"b": [0.0, 0.0], "a": ([1, 0], {"deep": 5})}
    del whole[missing]
    message = refused(NESTED, whole)
    assert f"observation '{missing}" in message
    assert f"got a mapping with {'ab'.replace(missing, '')}" in message


@pytest.mark.parametrize(
    ("space", "value", "expected"),
    [
        (spaces.Box(-1, 1, (2,), np.float32), [0.0] * 3, "expected shape [2], got [3]"),
        (spaces.Box(-1, 1, (2,), np.float32), [[0.0], [0.0, 1.0]], "expected numbers of one shape, got a list of 2"),
        (spaces.Box(-1, 1, (2,), np.float32), ["a", "b"], "expected numbers, got a list of 2"),
        (spaces.Box(-1, 1, (2,), np.float32), None, "expected numbers, got NoneType"),
        (spaces.Box(-1, 1, (2,), np.float32), [0.0, np.nan], "expected finite numbers, got nan"),
        (spaces.Box(-1, 1, (2,), np.float32), [0.0, np.inf], "expected finite numbers, got inf"),
        (spaces.Box(-1, np.inf, (2,), np.float32), [0.0, -np.inf], "expected finite numbers, got -inf"),
        (spaces.Box(-1, 1, (9000,), np.float32), np.full(9000, np.nan), "expected finite numbers, got nan"),
        (spaces.Box(0, 255, (2, 2, 3), np.uint8), np.full((2, 2, 3), 0.7, np.float32), "from 0 to 255, got 0.7"),
        (spaces.Box(0, 255, (3,), np.uint8), [0, 256, 0], "expected whole numbers from 0 to 255, got 256"),
        (spaces.Box(0, 255, (3,), np.uint8), np.array([0, -1, 0], np.int8), "from 0 to 255, got -1"),
        (spaces.Box(0, 255, (3,), np.uint8), [0.0, np.nan, 0.0], "from 0 to 255, got nan"),
        (spaces.Box(0, 9, (1,), np.uint16), [70_000], "from 0 to 65535, got 70000"),
        (spaces.Box(0, 9, (1,), np.int32), [0.5], "expected whole numbers from -2147483648 to 2147483647, got 0.5"),
        (spaces.Box(0, 9, (1,), np.int64), np.array([2**63], np.uint64), "got 9.22337e+18"),
        (spaces.Box(0, 9, (1,), np.int64), [2.0**63], "got 9.22337e+18"),
        (spaces.Box(0, 9, (1,), np.uint64), [-1], "got -1"),
        (spaces.Box(0, 1, (1,), np.bool_), [2], "expected whole numbers from 0 to 1, got 2"),
        (spaces.Discrete(4, start=10), 14, "expected whole numbers from 10 to 13, got 14"),
        (spaces.Discrete(4, start=10), 9, "expected whole numbers from 10 to 13, got 9"),
        (spaces.Discrete(4), np.uint64(2**64 - 1), "from 0 to 3, got 1.84467e+19"),
        (spaces.Discrete(4), 1.5, "from 0 to 3, got 1.5"),
        (spaces.Discrete(4), [1], "expected shape [], got [1]"),
        (spaces.MultiDiscrete([2, 3], start=[1, -1]), [2, 2], "expected whole numbers from -1 to 1, got 2"),
        (spaces.MultiDiscrete([2, 3], start=[1, -1]), [0, 0], "expected whole numbers from 1 to 2, got 0"),
        (spaces.MultiBinary(2), [0, 2], "expected whole numbers from 0 to 1, got 2"),
        (spaces.MultiBinary(2), [0, -1], "expected whole numbers from 0 to 1, got -1"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(space: spaces.Space[Any], value: Any, expected: str) -> None:
    assert expected in refused(space, value)


def test_a_float_image_under_a_uint8_space_says_how_to_declare_it() -> None:
    message = refused(spaces.Box(0, 255, (12, 12, 3), np.uint8), np.full((12, 12, 3), 0.7, np.float32))
    assert message == (
        "observation 'observation': expected whole numbers from 0 to 255, got 0.7 (float32): "
        "declare a Box of floats, or show round(255 * x) as uint8"
    )


@pytest.mark.parametrize(
    ("space", "value", "stored"),
    [
        (spaces.Box(0, 255, (2,), np.uint8), np.array([0.0, 255.0]), [0, 255]),
        (spaces.Box(0, 255, (2,), np.uint8), [True, False], [1, 0]),
        (spaces.Box(0, 9, (2,), np.int64), [INT64.min, INT64.max], [INT64.min, INT64.max]),
        (spaces.Box(0, 2**62, (1,), np.int64), [1_700_000_000_000_000_001], [1_700_000_000_000_000_001]),
        (spaces.Box(0, 9, (1,), np.uint64), np.array([2**64 - 1], np.uint64), [2**64 - 1]),
        (spaces.Box(0, 1, (2,), np.bool_), [0, 1], [False, True]),
        (spaces.Box(-1, 1, (1,), np.float32), [7.0], [7.0]),
        (spaces.Box(-1, 1, (1,), np.float32), [3], [3.0]),
        (spaces.Box(0, np.inf, (2,), np.float32), [0.0, np.inf], [0.0, np.inf]),
        (spaces.Box(-np.inf, np.inf, (2,), np.float64), [1e25, -1e25], [np.float32(1e25), -np.float32(1e25)]),
        (spaces.Box(-np.inf, np.inf, (2,), np.float64), [1e300, -np.inf], [np.finfo(np.float32).max, -np.inf]),
        (spaces.Box(-np.inf, np.inf, (2,), np.float16), [70_000, -1e9], [65504.0, -65504.0]),
        (spaces.Discrete(4, start=10), 12.0, 2),
        (spaces.Discrete(4), np.uint64(3), 3),
        (spaces.Discrete(2), np.True_, 1),
        (spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 2], [3, 4]]), [[1, 4], [6, 4]], [[0, 2], [3, 0]]),
        (spaces.MultiBinary((2, 2)), np.eye(2, dtype=np.bool_), [[1, 0], [0, 1]]),
    ],
    ids=str,
)
def test_what_fits_is_kept(space: spaces.Space[Any], value: Any, stored: Any) -> None:
    spec = read_observation_space(space).leaves["observation"]
    row = row_of(space, value)
    assert row.tolist() == stored
    assert row.dtype == spec.dtype
    assert adapter_of(space).rows([value, value], 2)["observation"].tolist() == [stored, stored]


def test_every_pixel_of_a_stack_of_frames_keeps_its_frame_and_channel() -> None:
    for shape, axes in (((4, 6, 5, 3), (0, 3, 1, 2)), ((4, 3, 6, 5), (0, 1, 2, 3))):
        frames = np.random.default_rng(0).integers(256, size=(2, *shape), dtype=np.uint8)
        rows = adapter_of(spaces.Box(0, 255, shape, np.uint8)).rows(frames, 2)["observation"]
        assert rows.shape == (2, 12, 6, 5)
        for frame in range(4):
            for channel in range(3):
                one = frames[1].transpose(axes)[frame, channel]
                assert np.array_equal(rows[1, frame * 3 + channel], one)


def test_rows_of_achieved_goals() -> None:
    assert goal_rows(np.zeros(3), 3, "float32").shape == (1, 3)
    assert goal_rows(np.zeros((4, 3)), 3, "float32").shape == (4, 3)
    assert goal_rows([], 3, "float32").shape == (0, 3)
    assert goal_rows(7, 1, "int64").tolist() == [[7]]
    for value, expected in (
        (np.zeros(4), "rows of 3"),
        (np.zeros((3, 4)), "rows of 3"),
        (np.zeros((1, 2, 3)), "rows of 3"),
        ([0.0, np.nan, 0.0], "finite numbers, got nan"),
        ([None] * 3, "expected numbers"),
    ):
        with pytest.raises(SpaceError) as error:
            goal_rows(value, 3, "float32")
        assert expected in one_line(error)
    with pytest.raises(SpaceError, match="whole numbers"):
        goal_rows([0.5, 1], 2, "int32")


ACTIONS = [
    spaces.Discrete(300, start=-7),
    spaces.Discrete(3, start=1, dtype=np.int32),
    spaces.MultiDiscrete([2, 300], start=[1, -1]),
    spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [0, 7]], dtype=np.int32),
    spaces.MultiBinary(3),
    spaces.MultiBinary((2, 2)),
    spaces.Box(-3, 5, (2, 2), np.float32),
    spaces.Box(0, 1, (), np.float32),
    spaces.Box(np.asarray([-1.0, 0.0, 1.0]), np.asarray([1.0, 10.0, 1.0]), dtype=np.float64),
    spaces.Box(0, 10, (3,), np.int64),
    spaces.Box(-(2**40), 2**40, (2,), np.int64),
    spaces.Box(INT64.min, INT64.max, (2,), np.int64),
    spaces.Box(0, 2**64 - 1, (2,), np.uint64),
    spaces.Box(0, 255, (2,), np.uint8),
    spaces.Box(-np.inf, np.inf, (2,), np.float32),
    spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (2,), np.float32),
    spaces.Box(-np.finfo(np.float64).max, np.finfo(np.float64).max, (2,), np.float64),
    spaces.Box(np.array([0.0, -np.inf], np.float32), np.array([np.inf, -5.0], np.float32)),
    spaces.Box(-1, 1, (2,), np.float16),
]


@pytest.mark.parametrize("space", ACTIONS, ids=str)
def test_stored_actions_become_members_of_the_space_a9(space: spaces.Space[Any]) -> None:
    """docs/algorithm.md §14.9."""
    adapter = ActionAdapter(read_action_space(space))
    spec = adapter.spec
    rng = np.random.default_rng(0)
    for number in range(20):
        if spec.kind == "box":
            ends = [-np.ones(spec.shape), np.ones(spec.shape)]
            stored = (ends[number] if number < 2 else rng.uniform(-1, 1, spec.shape)).astype(spec.dtype)
        elif spec.kind == "multi_binary":
            stored = rng.integers(2, size=spec.shape).astype(spec.dtype)
        else:
            stored = rng.integers(spec.num_categories).reshape(spec.shape).astype(spec.dtype)
        single = adapter.to_space(stored)
        assert single.dtype == space.dtype
        assert space.contains(single[()] if spec.kind == "discrete" else single)
        batch = adapter.to_space(np.stack([stored, stored]))
        assert np.array_equal(batch[1], single)
        back = adapter.rows(batch)
        assert back.dtype == spec.dtype
        assert back.shape == (2, *spec.shape)
        if spec.kind != "box":
            assert np.array_equal(back[1], stored)


def test_box_actions_are_rescaled_clipped_and_scaled_back() -> None:
    space = spaces.Box(np.asarray([-2.0, 0.0]), np.asarray([2.0, 1.0]), dtype=np.float64)
    adapter = ActionAdapter(read_action_space(space))
    assert adapter.to_space(np.asarray([-1.0, -1.0], np.float32)).tolist() == [-2.0, 0.0]
    assert adapter.to_space(np.asarray([1.0, 1.0], np.float32)).tolist() == [2.0, 1.0]
    assert adapter.to_space(np.asarray([0.0, 9.0], np.float32)).tolist() == [0.0, 1.0]
    assert adapter.rows([[-2.0, 0.5]]).tolist() == [[-1.0, 0.0]]


def test_infinite_bounds_pass_through_clipped_to_a_finite_one() -> None:
    low, high = np.asarray([-np.inf, 0.5], np.float32), np.asarray([np.inf, np.inf], np.float32)
    adapter = ActionAdapter(read_action_space(spaces.Box(low, high)))
    assert adapter.to_space(np.asarray([-0.25, -0.25], np.float32)).tolist() == [-0.25, 0.5]


def test_masks_are_rows_of_the_action_s_categories() -> None:
    adapter = ActionAdapter(read_action_space(spaces.MultiDiscrete([2, 3])))
    assert adapter.mask_rows([1, 0, 1, 1, 0]).tolist() == [True, False, True, True, False]
    assert adapter.mask_rows((np.ones(2, np.int8), [0, 1, 1])).tolist() == [True, True, False, True, True]
    assert adapter.mask_rows([[1.0, 0.0, 1.0, 1.0, 0.0]] * 2, 2).shape == (2, 5)
    assert adapter.mask_rows(np.ones(5, np.bool_), 1).shape == (1, 5)
    for mask, num_rows, expected in (
        (np.ones(4), None, "expected 5 entries for MultiDiscrete([2, 3]), got 4"),
        (np.ones((2, 4)), 2, "expected 5 entries"),
        (np.ones((5, 2)), 2, "expected shape [2, 5], got [5, 2]"),
        ([1, 0, 1, 2, 0], None, "expected whole numbers from 0 to 1, got 2"),
        ([1, 0, 1, 0.5, 0], None, "expected whole numbers from 0 to 1, got 0.5"),
        (None, None, "expected numbers, got NoneType"),
    ):
        with pytest.raises(SpaceError) as error:
            adapter.mask_rows(mask, num_rows)
        assert expected in one_line(error)
    with pytest.raises(SpaceError) as error:
        ActionAdapter(read_action_space(spaces.Box(-1, 1, (2,)))).mask_rows([])
    assert "expected 0 entries" in one_line(error)
