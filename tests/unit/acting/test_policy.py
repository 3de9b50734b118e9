"""`Policy`: acts with a state of its own, in the form that environments take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.numeric import assert_rounded
from helpers.one_line import one_line
from helpers.scripted import BOX, DISCRETE, ScriptedBatch, make_agent, make_config, make_spec, snapshot_of

from amago_ray.acting.env_runner import EnvRunner
from amago_ray.acting.exploration import NoExploration
from amago_ray.acting.policy import Policy
from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.errors import CheckpointError, ConfigError, DataError


def make_policy(
    action: ActionSpec = DISCRETE, *, config: Config | None = None, has_action_mask: bool = False
) -> Policy:
    config = config or make_config()
    spec = make_spec(action, has_action_mask=has_action_mask)
    policy = Policy(config, spec)
    policy.load(snapshot_of(make_agent(config, spec), 4))
    return policy


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


def test_act_equals_the_path_of_the_runner() -> None:
    """Carrying its own state, with episodes that begin at different times and outlast the context."""
    config = make_config(context_length=4)
    batch = ScriptedBatch(3, action=BOX, length_of=lambda index, seed: 2 + (seed + 5 * index) % 9)
    snapshot = snapshot_of(make_agent(config, batch.spec))
    runner = EnvRunner(
        batch,
        Policy(config, batch.spec),
        seed=0,
        run_id=0,
        runner=0,
        incarnation=0,
        exploration=NoExploration(),
        greedy=True,
    )
    runner.load(snapshot)
    policy = Policy(config, batch.spec)
    policy.load(snapshot)
    state = policy.initial_state(3)
    num_resets = 0
    for _ in range(40):
        shown = np.stack([np.arange(3), batch.seeds % 997, batch.time], 1).astype(np.float32)
        reset = batch.time == 0
        num_resets += int(reset.sum())
        # What a reset episode earned before must not matter.
        reward = np.where(reset, 99.0, batch.time)
        action, state = policy.act(shown, state, reward=reward, reset=reset, greedy=True)
        runner.step()
        assert np.array_equal(action, batch.history[-1])
    assert num_resets > 12


def test_the_first_call_needs_no_reset_and_reset_begins_anew() -> None:
    policy = make_policy(BOX)
    shown = rows(2)
    without, _ = policy.act(shown, policy.initial_state(2), greedy=True)
    with_flags, state = policy.act(shown, policy.initial_state(2), reset=np.array([True, True]), greedy=True)
    assert np.array_equal(without, with_flags)
    _, state = policy.act(rows(2, 1), state, reward=[1.0, 1.0], greedy=True)
    third, state = policy.act(shown, state, reward=[1.0, 1.0], reset=[True, False], greedy=True)
    assert np.array_equal(third[0], without[0])
    assert not np.allclose(third[1], without[1])
    assert state.time_index.tolist() == [1, 3]


def test_memory_and_rewards_matter() -> None:
    """The comparisons of this file say something: what came before does change the action."""
    policy = make_policy(BOX)
    actions = []
    for first, reward in ((0, 0.0), (1, 0.0), (0, 1.0)):
        _, state = policy.act(rows(1, first), policy.initial_state(1), greedy=True)
        action, _ = policy.act(rows(1, 7), state, reward=[reward], greedy=True)
        actions.append(action)
    assert not np.allclose(actions[0], actions[1])
    assert not np.allclose(actions[0], actions[2])


def test_greedy_acting_is_deterministic_and_sampling_follows_its_seed() -> None:
    policy = make_policy(DISCRETE)
    shown = rows(200)

    def act(*, greedy: bool, seed: int) -> list[int]:
        policy.generator.manual_seed(seed)
        return policy.act(shown, policy.initial_state(200), greedy=greedy)[0].tolist()

    assert act(greedy=True, seed=0) == act(greedy=True, seed=1)
    assert act(greedy=False, seed=0) == act(greedy=False, seed=0)
    assert act(greedy=False, seed=0) != act(greedy=False, seed=1)
    before = torch.get_rng_state()
    act(greedy=False, seed=0)
    assert torch.equal(torch.get_rng_state(), before), "the process's own generator is left alone"


def test_boxes_come_in_the_bounds_of_the_environment() -> None:
    bounded = ActionSpec("box", (3,), (), (-3.0, 0.0, -np.inf), (5.0, 0.5, np.inf))
    plain = make_policy(ActionSpec("box", (3,), (), (-1.0,) * 3, (1.0,) * 3))
    policy = make_policy(bounded)
    stored, _ = plain.act(rows(50), plain.initial_state(50), greedy=True)
    action, state = policy.act(rows(50), policy.initial_state(50), greedy=True)
    assert action.dtype == np.float32
    exact = stored.astype(np.float64)
    assert_rounded(action[:, 0], -3 + (exact[:, 0] + 1) / 2 * 8, roundings=4, magnitude=8)
    assert_rounded(action[:, 1], (exact[:, 1] + 1) / 4, roundings=4)
    assert np.array_equal(action[:, 2], stored[:, 2])
    # The next token holds the action as stored, not as the environment takes it.
    assert np.array_equal(state.prev_action, stored)


@pytest.mark.parametrize("greedy", [True, False])
def test_a11_masked_actions_are_never_taken(greedy: bool) -> None:
    """docs/algorithm.md §14.11."""
    policy = make_policy(has_action_mask=True)
    state = policy.initial_state(64)
    rng = np.random.default_rng(0)
    for step in range(6):
        mask = rng.random((64, 5)) < 0.4
        mask[np.arange(64), rng.integers(0, 5, 64)] = True
        action, state = policy.act(rows(64, step), state, action_mask=mask, greedy=greedy)
        assert mask[np.arange(64), action].all()


@pytest.mark.parametrize("kind", [BOX, DISCRETE], ids=lambda action: action.kind)
def test_a12_inputs_are_neither_kept_nor_changed_and_results_may_be_reused(kind: ActionSpec) -> None:
    """docs/algorithm.md §14.12: buffers may be reused, and may be read-only."""
    policy, twin = make_policy(kind), make_policy(kind)
    buffer, reward = np.zeros((2, 3), np.float32), np.zeros(2)
    state, other = policy.initial_state(2), twin.initial_state(2)
    for step in range(5):
        buffer.flags.writeable = True
        buffer[:] = rows(2, step)
        buffer.flags.writeable = False
        reward[:] = step
        action, state = policy.act(buffer, state, reward=reward, greedy=True)
        expected, other = twin.act(rows(2, step), other, reward=np.full(2, float(step)), greedy=True)
        assert np.array_equal(action, expected)
        assert np.array_equal(buffer, rows(2, step))
        action[:] = 1
    assert state.time_index.tolist() == [5, 5]


def test_observations_of_several_leaves_go_by_name_in_any_order() -> None:
    leaves = {"goal": ObservationSpec("discrete", (), "int64", (3,)), "state": ObservationSpec("box", (2,), "float32")}
    spec = EnvSpec("two", leaves, DISCRETE)
    config = make_config()
    policy = Policy(config, spec)
    policy.load(snapshot_of(make_agent(config, spec)))
    columns = {"goal": [2, 0], "state": rows(2)[:, :2]}
    one, _ = policy.act(columns, policy.initial_state(2), greedy=True)
    other, _ = policy.act(dict(reversed(columns.items())), policy.initial_state(2), greedy=True)
    assert np.array_equal(one, other)
    with pytest.raises(DataError, match=r"'goal': expected Discrete\(3\), got an array float32\[2, 3\]") as error:
        policy.act(rows(2), policy.initial_state(2))
    one_line(error)
    with pytest.raises(DataError, match=r"'state': expected Box\(\[2\], float32\), got a mapping with goal") as error:
        policy.act({"goal": [1, 1]}, policy.initial_state(2))
    one_line(error)
    with pytest.raises(DataError, match=r"'state': expected shape \[2, 2\], got \[2, 3\]") as error:
        policy.act({"goal": [1, 1], "state": rows(2)}, policy.initial_state(2))
    one_line(error)


def test_load_takes_the_version_and_refuses_weights_of_another_shape() -> None:
    policy = make_policy()
    assert policy.version == PolicyVersion(0, 4)
    config = make_config()
    wider = replace(make_spec(), observations={"observation": ObservationSpec("box", (4,), "float32")})
    with pytest.raises(CheckpointError) as error:
        policy.load(snapshot_of(make_agent(config, wider), 9))
    assert "timestep_encoder" in one_line(error)
    assert policy.version == PolicyVersion(0, 4)


def test_one_episode_by_default() -> None:
    policy = make_policy()
    action, state = policy.act(rows(1), policy.initial_state(), reset=True)
    assert action.shape == (1,)
    assert action.dtype == np.int64
    assert state.time_index.tolist() == [1]


def test_an_episode_beyond_the_learned_positions_is_one_line() -> None:
    learned = make_config(sequence_model={"positions": "learned", "max_time_index": 5})
    policy = make_policy(config=learned)
    state = policy.initial_state(2)
    for t in range(5):
        # The second environment's episodes are short enough.
        policy.act(rows(2), state, reset=[t == 0, t % 2 == 0])
    with pytest.raises(ConfigError, match=r"^model\.sequence_model\.max_time_index: expected more than 5") as error:
        policy.act(rows(2), state)
    assert "got 5 learned positions" in one_line(error)
