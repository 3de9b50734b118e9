"""Spaces become flat, sorted leaves and one action."""

import dataclasses

import numpy as np
import pytest
from gymnasium import spaces
from helpers.one_line import one_line
from hypothesis import given, settings
from hypothesis import strategies as st

from amago_ray.data.space_specs import read_action_space, read_observation_space
from amago_ray.data.spaces import ObservationAdapter
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec, difference, space_difference
from amago_ray.errors import SpaceError


def test_bare_space_is_the_leaf_observation() -> None:
    leaves = read_observation_space(spaces.Box(-1, 1, (3,), np.float32)).leaves
    assert leaves == {"observation": ObservationSpec("box", (3,), "float32", low=(-1,), high=(1,), path=())}


def test_nested_leaves_are_named_by_path_and_sorted_a10() -> None:
    """docs/algorithm.md §14.10."""
    space = spaces.Dict(
        {
            "z": spaces.Discrete(4, start=-2),
            "a": spaces.Tuple((spaces.MultiBinary((2, 2)), spaces.Dict({"deep": spaces.MultiDiscrete([3, 5])}))),
            "m": spaces.Box(-1, 1, (2, 3), np.float64),
        }
    )
    leaves = read_observation_space(space).leaves
    assert list(leaves) == ["a/0", "a/1/deep", "m", "z"]
    assert leaves["a/0"] == ObservationSpec("multi_binary", (2, 2), "int8", path=("a", 0))
    assert leaves["a/1/deep"] == ObservationSpec("multi_discrete", (2,), "int64", (3, 5), path=("a", 1, "deep"))
    box = ObservationSpec("box", (2, 3), "float32", low=(-1,), high=(1,), space_dtype="float64", path=("m",))
    assert leaves["m"] == box
    assert leaves["z"] == ObservationSpec("discrete", (), "int64", (4,), (-2,), path=("z",))


def leaf_spaces() -> st.SearchStrategy[spaces.Space]:
    shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)
    return st.one_of(
        st.tuples(shapes, st.sampled_from(["float32", "float64", "int64", "uint8"])).map(
            lambda pair: spaces.Box(0, 9, pair[0], np.dtype(pair[1]).type)
        ),
        st.tuples(st.integers(1, 300), st.integers(-3, 3)).map(lambda pair: spaces.Discrete(pair[0], start=pair[1])),
        st.lists(st.integers(1, 5), min_size=1, max_size=3).map(spaces.MultiDiscrete),
        shapes.filter(bool).map(spaces.MultiBinary),
    )


def nested_spaces() -> st.SearchStrategy[spaces.Space]:
    return st.recursive(
        leaf_spaces(),
        lambda inner: st.one_of(
            st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3).map(spaces.Dict),
            st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        ),
        max_leaves=5,
    )


@settings(max_examples=60)
@given(space=nested_spaces(), seed=st.integers(0, 1000))
def test_every_sample_fits_the_spec(space: spaces.Space, seed: int) -> None:
    specs = read_observation_space(space).leaves
    space.seed(seed)
    leaves = ObservationAdapter(specs).rows(space.sample())
    assert list(leaves) == sorted(specs)
    for name, spec in specs.items():
        assert leaves[name].shape == spec.shape
        assert leaves[name].dtype == spec.dtype
        if spec.num_categories:
            assert (leaves[name] >= 0).all()
            assert (leaves[name].ravel() < np.asarray(spec.num_categories)).all()


@pytest.mark.parametrize(
    ("shape", "stored", "channel_axis"),
    [
        ((8, 6, 3), (3, 8, 6), 2),
        ((8, 8, 8), (8, 8, 8), 2),
        ((3, 3, 3), (3, 3, 3), 2),
        ((4, 8, 6), (4, 8, 6), 0),
        ((84, 84, 1), (1, 84, 84), 2),
        ((1, 84, 84), (1, 84, 84), 0),
        ((84, 84), (1, 84, 84), None),
        ((4, 12, 12, 3), (12, 12, 12), 3),
        ((4, 3, 12, 12), (12, 12, 12), 1),
        ((2, 3, 3, 3), (6, 3, 3), 3),
    ],
)
def test_images_are_stored_channels_first(
    shape: tuple[int, ...], stored: tuple[int, ...], channel_axis: int | None
) -> None:
    specs = read_observation_space(spaces.Box(0, 255, shape, np.uint8)).leaves
    spec = specs["observation"]
    assert spec.is_pixels
    assert (spec.shape, spec.channel_axis) == (stored, channel_axis)
    image = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    batch = ObservationAdapter(specs).rows(np.stack([image, image]), 2)["observation"]
    expected = image if channel_axis is None else np.moveaxis(image, channel_axis, -3)
    assert np.array_equal(batch[1], expected.reshape(stored))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 12, (8, 8), np.uint8),
        spaces.Box(0, 255, (5,), np.uint8),
        spaces.Box(0, 255, (2, 2, 6, 6, 3), np.uint8),
        spaces.Box(0, 255, (8, 8, 3), np.uint16),
        spaces.Box(0, 1, (3, 8, 8), np.float32),
    ],
    ids=str,
)
def test_other_boxes_are_no_images(space: spaces.Box) -> None:
    spec = read_observation_space(space).leaves["observation"]
    assert not spec.is_pixels
    assert spec.shape == space.shape


def test_goals_are_an_instruction_and_the_policy_never_sees_the_achieved() -> None:
    space = spaces.Dict(
        {
            "observation": spaces.Box(-1, 1, (2,), np.float32),
            "achieved_goal": spaces.Box(-1, 1, (3,), np.float64),
            "desired_goal": spaces.Box(-1, 1, (3,), np.float64),
        }
    )
    read = read_observation_space(space)
    assert list(read.leaves) == ["desired_goal", "observation"]
    assert read.leaves["desired_goal"].shape == (1, 3)
    assert (read.goal_dim, read.goal_dtype, read.has_achieved_goal) == (3, "float32", True)
    assert ObservationAdapter(read.leaves).rows(space.sample())["desired_goal"].shape == (1, 3)


def test_goals_of_another_width_are_refused() -> None:
    box = spaces.Box(-1, 1, (3,), np.float32)
    with pytest.raises(SpaceError) as error:
        read_observation_space(spaces.Dict({"achieved_goal": spaces.Box(-1, 1, (2,)), "desired_goal": box}))
    assert "achieved_goal" in one_line(error)


def test_action_mask_is_no_leaf() -> None:
    read = read_observation_space(spaces.Dict({"x": spaces.Discrete(2), "action_mask": spaces.MultiBinary(5)}))
    assert list(read.leaves) == ["x"]
    assert read.mask_size == 5


@pytest.mark.parametrize(
    "space",
    [spaces.Text(5), spaces.Sequence(spaces.Discrete(2)), spaces.Graph(spaces.Box(0, 1, (1,)), None)],
)
def test_unsupported_spaces_are_named(space: spaces.Space) -> None:
    with pytest.raises(SpaceError) as error:
        read_observation_space(spaces.Dict({"good": spaces.Discrete(2), "inner": spaces.Dict({"bad": space})}))
    assert "'inner/bad'" in one_line(error)
    assert type(space).__name__ in one_line(error)
    with pytest.raises(SpaceError) as error:
        read_action_space(space)
    assert "action" in one_line(error)


def test_names_that_collide_are_refused() -> None:
    space = spaces.Dict({"a/b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(2)})})
    with pytest.raises(SpaceError) as error:
        read_observation_space(space)
    assert "'a/b'" in one_line(error)


def test_actions_keep_what_the_environment_takes() -> None:
    assert read_action_space(spaces.Discrete(3, start=1)) == ActionSpec("discrete", (), (3,), start=(1,))
    multi = spaces.MultiDiscrete([[2, 3]], start=[[0, 4]], dtype=np.int32)
    expected = ActionSpec("multi_discrete", (2,), (2, 3), start=(0, 4), space_shape=(1, 2), space_dtype="int32")
    assert read_action_space(multi) == expected
    box = spaces.Box(np.asarray([-2.0, 0.0]), np.asarray([2.0, 1.0]), dtype=np.float64)
    expected = ActionSpec("box", (2,), low=(-2.0, 0.0), high=(2.0, 1.0), space_dtype="float64")
    assert read_action_space(box) == expected


def spec_of(observation: spaces.Space, action: spaces.Space) -> EnvSpec:
    return EnvSpec("env", read_observation_space(observation).leaves, read_action_space(action))


VECTOR = spaces.Box(-1, 1, (4,), np.float32)
TWO = spaces.Discrete(2)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (
            (VECTOR, TWO),
            (spaces.Discrete(4), TWO),
            "'observation': expected Box(-1, 1, [4], float32), got Discrete(4)",
        ),
        ((VECTOR, TWO), (spaces.Box(-1, 1, (2, 2)), TWO), "got Box(-1, 1, [2, 2], float32)"),
        (
            (VECTOR, TWO),
            (spaces.Dict({"x": VECTOR}), TWO),
            "'observation': expected Box(-1, 1, [4], float32), got no such",
        ),
        ((VECTOR, TWO), (VECTOR, spaces.MultiDiscrete([2])), "action: expected Discrete(2), got MultiDiscrete([2])"),
        ((VECTOR, TWO), (VECTOR, spaces.Discrete(2, start=1)), "got Discrete(2, start=1)"),
        ((VECTOR, spaces.Box(-1, 1, (2,))), (VECTOR, spaces.Box(-2, 2, (2,))), "got Box(-2, 2, [2], float32)"),
        ((VECTOR, spaces.Box(-1, 1, (2,))), (VECTOR, spaces.Box(-1, 1, (2,), np.int8)), "got Box(-1, 1, [2], int8)"),
        ((spaces.Discrete(4), TWO), (spaces.Discrete(4, start=10), TWO), "got Discrete(4, start=10)"),
        ((spaces.MultiBinary(4), TWO), (spaces.Box(0, 1, (4,), np.int8), TWO), "got Box(0, 1, [4], int8)"),
    ],
    ids=str,
)
def test_other_spaces_are_named(one: tuple[spaces.Space, ...], other: tuple[spaces.Space, ...], expected: str) -> None:
    for find in (space_difference, difference):
        assert expected in find(spec_of(*one), spec_of(*other))
        assert not find(spec_of(*other), spec_of(*other))


@pytest.mark.parametrize(
    "other",
    [spaces.Box(-1, 1, (4,), np.float64), spaces.Box(-9, np.inf, (4,), np.float32)],
    ids=str,
)
def test_precision_and_bounds_of_observations_are_no_difference(other: spaces.Space) -> None:
    assert not difference(spec_of(VECTOR, TWO), spec_of(other, TWO))


def test_what_version_1_did_not_know_is_not_compared() -> None:
    known = spec_of(spaces.Discrete(4, start=10), spaces.Box(-3, 3, (2,), np.int64))
    leaves = {"observation": ObservationSpec("discrete", (), "int64", (4,), None)}
    old = EnvSpec("env", leaves, ActionSpec("box", (2,), low=(-3.0, -3.0), high=(3.0, 3.0), start=None))
    assert not difference(old, known)


def test_goals_and_masks_count_for_what_is_stored_together_alone() -> None:
    spec = spec_of(VECTOR, TWO)
    masked = dataclasses.replace(spec, has_action_mask=True)
    assert not space_difference(spec, masked)
    assert difference(spec, masked) == "has_action_mask: expected False, got True"
