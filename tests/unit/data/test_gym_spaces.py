"""Observations become flat, sorted leaves; stored actions become those of the environment."""

import numpy as np
import pytest
from gymnasium import spaces
from helpers.one_line import one_line
from hypothesis import given, settings
from hypothesis import strategies as st

from amago_ray.data.gym_spaces import ActionAdapter, ObservationAdapter, action_mask_size
from amago_ray.data.specs import ActionSpec, ObservationSpec
from amago_ray.errors import SpaceError


def test_bare_space_is_the_leaf_observation() -> None:
    adapter = ObservationAdapter(spaces.Box(-1, 1, (3,), np.float32))
    assert adapter.specs == {"observation": ObservationSpec("box", (3,), "float32")}
    row = np.asarray([1, 2, 3], np.float32)
    assert np.shares_memory(adapter.leaves(row)["observation"], row)


def test_nested_leaves_are_named_by_path_and_sorted_a10() -> None:
    space = spaces.Dict(
        {
            "z": spaces.Discrete(4, start=-2),
            "a": spaces.Tuple((spaces.MultiBinary((2, 2)), spaces.Dict({"deep": spaces.MultiDiscrete([3, 5])}))),
            "m": spaces.Box(-1, 1, (2, 3), np.float64),
        }
    )
    adapter = ObservationAdapter(space)
    assert list(adapter.specs) == ["a/0", "a/1/deep", "m", "z"]
    assert adapter.specs["a/0"] == ObservationSpec("multi_binary", (2, 2), "int8")
    assert adapter.specs["a/1/deep"] == ObservationSpec("multi_discrete", (2,), "int64", (3, 5))
    assert adapter.specs["m"] == ObservationSpec("box", (2, 3), "float32")
    assert adapter.specs["z"] == ObservationSpec("discrete", (), "int64", (4,))
    shuffled = {"m": np.ones((2, 3)), "z": -2, "a": (np.ones((2, 2), np.int8), {"deep": np.asarray([2, 4])})}
    leaves = adapter.leaves(shuffled)
    assert list(leaves) == list(adapter.specs)
    assert leaves["z"] == 0
    assert leaves["a/1/deep"].tolist() == [2, 4]
    assert leaves["m"].dtype == np.float32


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


@settings(max_examples=60, deadline=None)
@given(space=nested_spaces(), seed=st.integers(0, 1000))
def test_every_sample_fits_the_spec(space: spaces.Space, seed: int) -> None:
    adapter = ObservationAdapter(space)
    space.seed(seed)
    leaves = adapter.leaves(space.sample())
    assert list(leaves) == sorted(adapter.specs)
    for name, spec in adapter.specs.items():
        assert leaves[name].shape == spec.shape
        assert leaves[name].dtype == spec.dtype
        if spec.num_categories:
            assert (leaves[name] >= 0).all()
            assert (leaves[name].ravel() < np.asarray(spec.num_categories)).all()


@pytest.mark.parametrize(
    ("shape", "stored"),
    [((8, 6, 3), (3, 8, 6)), ((8, 8, 8), (8, 8, 8)), ((4, 8, 6), (4, 8, 6)), ((84, 84, 1), (1, 84, 84))],
)
def test_images_are_stored_channels_first(shape: tuple[int, ...], stored: tuple[int, ...]) -> None:
    adapter = ObservationAdapter(spaces.Box(0, 255, shape, np.uint8))
    spec = adapter.specs["observation"]
    assert spec.is_pixels
    assert spec.shape == stored
    image = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    batch = adapter.leaves(np.stack([image, image]))["observation"]
    assert batch.shape == (2, *stored)
    expected = image if shape == stored and shape[2] > shape[0] else np.transpose(image, (2, 0, 1))
    assert np.array_equal(batch[1], expected)


def test_goals_are_an_instruction_and_the_policy_never_sees_the_achieved() -> None:
    space = spaces.Dict(
        {
            "observation": spaces.Box(-1, 1, (2,), np.float32),
            "achieved_goal": spaces.Box(-1, 1, (3,), np.float64),
            "desired_goal": spaces.Box(-1, 1, (3,), np.float64),
        }
    )
    adapter = ObservationAdapter(space)
    assert list(adapter.specs) == ["desired_goal", "observation"]
    assert adapter.specs["desired_goal"].shape == (1, 3)
    assert (adapter.goal_dim, adapter.goal_dtype, adapter.has_achieved_goal) == (3, "float32", True)
    sample = space.sample()
    assert adapter.leaves(sample)["desired_goal"].shape == (1, 3)
    assert adapter.achieved_goals(sample["achieved_goal"]).shape == (1, 3)
    assert adapter.achieved_goals(np.zeros((4, 3))).shape == (4, 3)
    assert adapter.achieved_goals([]).shape == (0, 3)
    with pytest.raises(SpaceError) as error:
        adapter.achieved_goals(np.zeros(4))
    assert "rows of 3" in one_line(error)


def test_goals_of_another_width_are_refused() -> None:
    box = spaces.Box(-1, 1, (3,), np.float32)
    with pytest.raises(SpaceError) as error:
        ObservationAdapter(spaces.Dict({"achieved_goal": spaces.Box(-1, 1, (2,)), "desired_goal": box}))
    assert "achieved_goal" in one_line(error)


def test_action_mask_is_no_leaf() -> None:
    space = spaces.Dict({"x": spaces.Discrete(2), "action_mask": spaces.MultiBinary(5)})
    adapter = ObservationAdapter(space)
    assert list(adapter.specs) == ["x"]
    assert adapter.has_action_mask
    assert action_mask_size(space) == 5
    ActionAdapter(spaces.Discrete(5)).check_mask(5)
    ActionAdapter(spaces.MultiDiscrete([2, 3])).check_mask(5)
    with pytest.raises(SpaceError) as error:
        ActionAdapter(spaces.Discrete(4)).check_mask(5)
    assert "expected 4" in one_line(error)


@pytest.mark.parametrize(
    "space",
    [spaces.Text(5), spaces.Sequence(spaces.Discrete(2)), spaces.Graph(spaces.Box(0, 1, (1,)), None)],
)
def test_unsupported_spaces_are_named(space: spaces.Space) -> None:
    with pytest.raises(SpaceError) as error:
        ObservationAdapter(spaces.Dict({"good": spaces.Discrete(2), "inner": spaces.Dict({"bad": space})}))
    assert "'inner/bad'" in one_line(error)
    assert type(space).__name__ in one_line(error)
    with pytest.raises(SpaceError) as error:
        ActionAdapter(space)
    assert "action" in one_line(error)


def test_names_that_collide_are_refused() -> None:
    space = spaces.Dict({"a/b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(2)})})
    with pytest.raises(SpaceError) as error:
        ObservationAdapter(space)
    assert "'a/b'" in one_line(error)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(300, start=-7),
        spaces.MultiDiscrete([2, 300], start=[1, -1]),
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.MultiBinary(3),
        spaces.MultiBinary((2, 2)),
        spaces.Box(-3, 5, (2, 2), np.float32),
        spaces.Box(np.asarray([-1.0, 0.0]), np.asarray([1.0, 10.0]), dtype=np.float64),
        spaces.Box(0, 10, (3,), np.int64),
        spaces.Box(-np.inf, np.inf, (2,), np.float32),
    ],
    ids=str,
)
def test_stored_actions_become_members_of_the_space_a9(space: spaces.Space) -> None:
    adapter = ActionAdapter(space)
    spec = adapter.spec
    rng = np.random.default_rng(0)
    for _ in range(20):
        if spec.kind == "box":
            stored = rng.uniform(-1, 1, spec.shape).astype(spec.dtype)
        elif spec.kind == "multi_binary":
            stored = rng.integers(2, size=spec.shape).astype(spec.dtype)
        else:
            stored = rng.integers(spec.num_categories).reshape(spec.shape).astype(spec.dtype)
        single = adapter.to_env(stored)
        assert space.contains(single[()] if single.ndim == 0 else single)
        batch = adapter.to_env(np.stack([stored, stored]))
        assert np.array_equal(batch[1], single)


def test_box_actions_are_rescaled_and_clipped() -> None:
    adapter = ActionAdapter(spaces.Box(np.asarray([-2.0, 0.0]), np.asarray([2.0, 1.0]), dtype=np.float64))
    assert adapter.spec == ActionSpec("box", (2,), low=(-2.0, 0.0), high=(2.0, 1.0))
    assert adapter.to_env(np.asarray([-1.0, -1.0], np.float32)).tolist() == [-2.0, 0.0]
    assert adapter.to_env(np.asarray([1.0, 1.0], np.float32)).tolist() == [2.0, 1.0]
    assert adapter.to_env(np.asarray([0.0, 9.0], np.float32)).tolist() == [0.0, 1.0]


def test_infinite_bounds_pass_through_clipped_to_a_finite_one() -> None:
    low, high = np.asarray([-np.inf, 0.5], np.float32), np.asarray([np.inf, np.inf], np.float32)
    adapter = ActionAdapter(spaces.Box(low, high))
    assert adapter.to_env(np.asarray([-0.25, -0.25], np.float32)).tolist() == [-0.25, 0.5]


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_box_actions_agree_with_those_of_a_loaded_policy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(-5, 0, 3).astype(np.float32)
    high = np.where(rng.random(3) < 0.3, np.inf, rng.uniform(1, 5, 3)).astype(np.float32)
    adapter = ActionAdapter(spaces.Box(low, high))
    stored = rng.uniform(0, 1, (4, 3)).astype(np.float32)
    assert np.allclose(adapter.to_env(stored), adapter.spec.to_environment(stored), atol=1e-6)
