"""`Policy.act` speaks the spaces of the environment that it was trained in, both ways, and names what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from helpers.one_line import one_line
from helpers.scripted import make_agent, make_config, snapshot_of

from amago_ray.acting.policy import Policy
from amago_ray.data.space_specs import read_action_space, read_observation_space
from amago_ray.data.spec_json import spec_from_json, spec_to_json
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import DataError

VECTOR = spaces.Box(-1, 1, (2,), np.float32)
TWO = spaces.Discrete(2)
NESTED = spaces.Dict(
    {
        "card": spaces.Discrete(4, start=10),
        "inner": spaces.Dict({"pair": spaces.Tuple((spaces.MultiBinary(2), spaces.Box(0, 9, (), np.float64)))}),
    }
)
GOALS = spaces.Dict({"observation": VECTOR, "achieved_goal": VECTOR, "desired_goal": VECTOR})
MASKED = spaces.Dict({"x": VECTOR, "action_mask": spaces.MultiBinary(3)})


def make_policy(observation: spaces.Space[Any], action: spaces.Space[Any] = TWO) -> Policy:
    """A policy as it is loaded: its spec has been a file."""
    read = read_observation_space(observation)
    written = EnvSpec(
        "env", read.leaves, read_action_space(action), goal_dim=read.goal_dim, has_action_mask=bool(read.mask_size)
    )
    spec = spec_from_json(spec_to_json(written))
    config = make_config()
    policy = Policy(config, spec)
    policy.load(snapshot_of(make_agent(config, spec)))
    return policy


def act(policy: Policy, observations: Any, batch_size: int, **given: Any) -> np.ndarray:
    return policy.act(observations, policy.initial_state(batch_size), greedy=True, **given)[0]


def refused(policy: Policy, observations: Any, batch_size: int = 2, **given: Any) -> str:
    with pytest.raises(DataError) as error:
        act(policy, observations, batch_size, **given)
    return one_line(error)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=1),
        spaces.Discrete(5, start=-2, dtype=np.int32),
        spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[1, 0], [-5, 7]]),
        spaces.MultiBinary([2, 2]),
        spaces.Box(0.0, 1.0, (), np.float32),
        spaces.Box(np.array([0.0, 1.0]), np.array([1.0, 1.0]), dtype=np.float64),
        spaces.Box(-(2**40), 2**40, (2,), np.int64),
        spaces.Box(0, 255, (2,), np.uint8),
        spaces.Box(np.array([0.0, -np.inf], np.float32), np.array([np.inf, -5.0], np.float32)),
        spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (2,), np.float32),
    ],
    ids=str,
)
def test_actions_are_of_the_environment_s_space(space: spaces.Space[Any]) -> None:
    policy = make_policy(VECTOR, space)
    state = policy.initial_state(5)
    rng = np.random.default_rng(0)
    for greedy in (True, False, False):
        actions, state = policy.act(rng.normal(size=(5, 2)), state, greedy=greedy)
        assert actions.dtype == space.dtype
        assert actions.shape == (5, *space.shape)
        for action in actions:
            assert space.contains(np.asarray(action) if isinstance(space, spaces.Box) else action)


def test_every_action_of_a_shifted_space_is_taken() -> None:
    policy = make_policy(VECTOR, spaces.Discrete(3, start=1))
    actions, _ = policy.act(np.zeros((300, 2)), policy.initial_state(300))
    assert set(actions.tolist()) == {1, 2, 3}


def test_observations_of_a_shifted_space_are_counted_from_its_start() -> None:
    shifted, plain = make_policy(spaces.Discrete(4, start=10)), make_policy(spaces.Discrete(4))
    assert np.array_equal(act(shifted, [10, 11, 12, 13], 4), act(plain, [0, 1, 2, 3], 4))
    assert "expected whole numbers from 10 to 13, got 3" in refused(shifted, [10, 3])
    assert "expected whole numbers from 10 to 13, got 14" in refused(shifted, [14, 13])


def test_images_come_as_the_environment_shows_them() -> None:
    images = np.random.default_rng(0).integers(256, size=(2, 36, 40, 3), dtype=np.uint8)
    last = make_policy(spaces.Box(0, 255, (36, 40, 3), np.uint8), spaces.Box(-1, 1, (2,)))
    first = make_policy(spaces.Box(0, 255, (3, 36, 40), np.uint8), spaces.Box(-1, 1, (2,)))
    assert np.array_equal(act(last, images, 2), act(first, images.transpose(0, 3, 1, 2), 2))
    assert "expected shape [2, 36, 40, 3], got [2, 3, 36, 40]" in refused(last, images.transpose(0, 3, 1, 2))
    assert "expected shape [2, 3, 36, 40], got [2, 36, 40, 3]" in refused(first, images)
    assert "got 0.5 (float32)" in refused(last, np.full((2, 36, 40, 3), 0.5, np.float32))
    assert np.array_equal(act(last, images.astype(np.float64), 2), act(last, images, 2))


def test_nested_observations_come_nested_or_by_name_and_one_without_its_axis() -> None:
    policy = make_policy(NESTED, spaces.Box(-1, 1, (2,)))
    nested = {"card": [10, 13], "inner": {"pair": ([[0, 1], [1, 1]], [3.0, 9.0])}}
    flat = {"card": [10, 13], "inner/pair/0": [[0, 1], [1, 1]], "inner/pair/1": [3.0, 9.0]}
    actions = act(policy, nested, 2)
    assert np.array_equal(act(policy, flat, 2), actions)
    assert not np.array_equal(actions[0], actions[1])
    single = act(policy, {"card": 13, "inner": {"pair": ([1, 1], 9.0)}}, 1)
    # A batch of another size rounds otherwise: the action is that of the same observation, not its every digit.
    assert np.abs(actions - single).sum(1).argmin() == 1


def test_what_a_gymnasium_environment_returns_can_be_handed_on() -> None:
    policy = make_policy(spaces.Dict({"position": VECTOR, "room": spaces.Discrete(3)}))
    space = spaces.Dict({"position": VECTOR, "room": spaces.Discrete(3)})
    space.seed(0)
    assert act(policy, space.sample(), 1).shape == (1,)
    batch = gymnasium.vector.utils.concatenate(
        space, [space.sample() for _ in range(3)], gymnasium.vector.utils.create_empty_array(space, 3)
    )
    assert act(policy, batch, 3).shape == (3,)


def test_goals_come_in_the_shape_of_their_space_and_achieved_ones_are_not_read() -> None:
    policy = make_policy(GOALS, spaces.Box(-1, 1, (2,)))
    whole = {name: np.random.default_rng(0).normal(size=(2, 2)) for name in GOALS.spaces}
    without = {name: whole[name] for name in ("observation", "desired_goal")}
    assert np.array_equal(act(policy, whole, 2), act(policy, without, 2))
    other = act(policy, {**whole, "desired_goal": whole["desired_goal"] + 1}, 2)
    assert not np.array_equal(act(policy, whole, 2), other)
    assert "'desired_goal': expected shape [2, 2], got [2, 1, 2]" in refused(
        policy, {**whole, "desired_goal": whole["desired_goal"][:, None]}
    )


def test_a_mask_within_the_observation_counts() -> None:
    policy = make_policy(MASKED, spaces.Discrete(3, start=5))
    for allowed in range(3):
        mask = np.arange(3) == allowed
        shown = {"x": np.zeros((2, 2)), "action_mask": np.stack([mask, mask]).astype(np.int8)}
        assert act(policy, shown, 2).tolist() == [5 + allowed] * 2
        assert act(policy, {"x": np.zeros(2)}, 1, action_mask=mask).tolist() == [5 + allowed]


@pytest.mark.parametrize(
    ("observations", "expected"),
    [
        (np.zeros((4, 2)), "'observation': expected shape [2, 2], got [4, 2]"),
        (np.zeros(4), "'observation': expected shape [2, 2], got [4]"),
        (np.zeros((2, 1, 2)), "'observation': expected shape [2, 2], got [2, 1, 2]"),
        (0.5, "'observation': expected shape [2, 2], got []"),
        ([[0.0, 1.0], [0.0]], "'observation': expected numbers of one shape, got a list of 2"),
        ([[0.0, "x"]] * 2, "'observation': expected numbers, got a list of 2"),
        ([[0.0, np.nan]] * 2, "'observation': expected finite numbers, got nan"),
        ([[0.0, -np.inf]] * 2, "'observation': expected finite numbers, got -inf"),
        (None, "'observation': expected numbers, got NoneType"),
        ({"x": np.zeros((2, 2))}, "'x': expected no such leaf, got an array float64[2, 2]"),
        ({}, "'observation': expected numbers, got a mapping with no keys"),
    ],
    ids=str,
)
def test_a_wrong_single_leaf_is_one_line(observations: Any, expected: str) -> None:
    assert expected in refused(make_policy(VECTOR), observations)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"card": None}, "'card': expected numbers, got NoneType"),
        ({"card": [10.5, 11]}, "'card': expected whole numbers from 10 to 13, got 10.5"),
        ({"card": [True, False]}, "'card': expected whole numbers from 10 to 13, got 1"),
        ({"inner": {}}, "'inner/pair/0': expected MultiBinary([2]), got"),
        ({"inner": {"pair": ([[0, 1]] * 2,)}}, "'inner/pair/1': expected Box(0, 9, [], float64), got"),
        (
            {"inner": {"pair": ([[0, 2]] * 2, [1.0, 2.0])}},
            "'inner/pair/0': expected whole numbers from 0 to 1, got 2",
        ),
        ({"inner": {"pair": ([[0, 1]] * 2, [1.0, 2.0]), "more": 1}}, "'inner/more': expected no such leaf, got int"),
        ({"cards": [1, 2]}, "'cards': expected no such leaf, got a list of 2"),
        ({"action_mask": [1, 2]}, "'action_mask': expected no such leaf"),
        ({"achieved_goal": [1, 2]}, "'achieved_goal': expected no such leaf"),
    ],
    ids=str,
)
def test_a_wrong_leaf_among_several_is_named(change: dict[str, Any], expected: str) -> None:
    whole = {"card": [10, 13], "inner": {"pair": ([[0, 1], [1, 1]], [3.0, 9.0])}}
    assert expected in refused(make_policy(NESTED), whole | change)


def test_a_missing_leaf_is_named_with_what_was_found() -> None:
    policy = make_policy(NESTED)
    assert "'card': expected Discrete(4, start=10), got a mapping with inner" in refused(
        policy, {"inner": {"pair": ([[0, 1]] * 2, [3.0, 9.0])}}
    )
    assert "'card': expected Discrete(4, start=10), got an array float64[2, 2]" in refused(policy, np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"reward": [1.0]}, "reward: expected shape [2], got [1]"),
        ({"reward": 1.0}, "reward: expected shape [2], got []"),
        ({"reward": [[1.0], [2.0]]}, "reward: expected shape [2], got [2, 1]"),
        ({"reward": [1.0, np.nan]}, "reward: expected finite numbers, got [1.0, nan]"),
        ({"reward": ["a", "b"]}, "reward: expected finite numbers, got ['a', 'b']"),
        ({"reward": [[1.0], []]}, "reward: expected shape [2], got rows of several lengths"),
        ({"reset": [True, False, True]}, "reset: expected shape [2], got [3]"),
        ({"reset": True}, "reset: expected shape [2], got []"),
        ({"reset": [[True, False]]}, "reset: expected shape [2], got [1, 2]"),
        ({"reset": [0, 2]}, "reset: expected booleans, got [0, 2]"),
        ({"reset": [0, 0.5]}, "reset: expected booleans, got [0, 0.5]"),
        ({"action_mask": np.ones((2, 3))}, "action_mask: expected 2 entries for Discrete(2), got 3"),
        ({"action_mask": [1, 0]}, "action_mask: expected 2 entries for Discrete(2), got 1"),
        ({"action_mask": np.ones((1, 4))}, "action_mask: expected shape [2, 2], got [1, 4]"),
        ({"action_mask": [[0, 2], [1, 1]]}, "action_mask: expected whole numbers from 0 to 1, got 2"),
        ({"action_mask": [["no", "yes"]] * 2}, "action_mask: expected numbers, got a list of 2"),
    ],
    ids=str,
)
def test_wrong_rewards_resets_and_masks_are_one_line(given: dict[str, Any], expected: str) -> None:
    assert expected in refused(make_policy(VECTOR), np.zeros((2, 2)), **given)


def test_actions_without_categories_cannot_be_masked() -> None:
    policy = make_policy(VECTOR, spaces.Box(-1, 1, (2,)))
    message = refused(policy, np.zeros((2, 2)), action_mask=np.ones((2, 2)))
    assert "action_mask: expected 0 entries for Box(-1, 1, [2], float32), got 2" in message


def test_a_refused_call_leaves_the_state_as_it_was() -> None:
    policy = make_policy(VECTOR, spaces.Box(-1, 1, (2,)))
    states = [policy.initial_state(1) for _ in range(2)]
    for state in states:
        policy.act([0.5, 0.5], state, greedy=True)
    for wrong in ({"reward": np.nan}, {"reset": 7}, {"reset": True, "reward": [1, 2]}):
        with pytest.raises(DataError):
            policy.act([0.1, 0.1], states[0], **wrong)
    first, second = (policy.act([0.1, 0.1], state, reward=1.0, greedy=True)[0] for state in states)
    assert np.array_equal(first, second)


def test_a_run_of_the_old_spec_acts_in_what_it_knows() -> None:
    """A file of version 1 says neither starts nor the order of axes: stored form is what it speaks."""
    recorded = Path(__file__).parents[1] / "data" / "recorded" / "env_spec_v1.json"
    spec = spec_from_json(recorded.read_text())
    config = make_config()
    encoder = replace(config.model.timestep_encoder, cnn_channels=(4,), cnn_kernel_sizes=(3,), cnn_strides=(1,))
    config = replace(config, model=replace(config.model, timestep_encoder=encoder))
    policy = Policy(config, spec)
    policy.load(snapshot_of(make_agent(config, spec)))
    shown = {
        "camera": np.zeros((2, 3, 6, 5), np.uint8),
        "card": [0, 3],
        "inner": {"pair": ([0, 2], [[0, 1], [1, 1]])},
        "state": np.zeros((2, 2)),
    }
    actions = act(policy, shown, 2)
    assert (actions >= [-2, 0]).all()
    assert (actions <= [2, 1]).all()
    assert "expected whole numbers from 0 to 3, got 10" in refused(policy, {**shown, "card": [10, 11]})
