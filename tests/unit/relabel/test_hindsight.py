"""Relabeled episodes replayed in the environment that they came from."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.episodes import make_episode, to_achieved
from helpers.multi_goal_env import MultiGoalEnv
from hypothesis import given
from hypothesis import strategies as st

from amago_ray.config.relabel import InstructionRelabelConfig
from amago_ray.data import Episode, EpisodeId, PolicyVersion
from amago_ray.errors import DataError
from amago_ray.relabel.hindsight import read_instruction
from amago_ray.relabel.instruction import InstructionRelabeler


def roll_out(actions, seed, instruction=None) -> Episode:
    """Play actions until the episode ends, for the environment's own instruction or another."""
    env = MultiGoalEnv(num_goals=3, size=8, episode_length=30)
    observation, info = env.reset(seed=seed, options=None if instruction is None else {"instruction": instruction})
    observations, achieved, rewards = [observation], [info["achieved_goals"]], []
    terminated = False
    while not terminated:
        observation, reward, terminated, _, info = env.step(int(actions[len(rewards)]))
        observations.append(observation)
        achieved.append(info["achieved_goals"])
        rewards.append(reward)
    return Episode(
        observations={
            name: np.stack([each[name] for each in observations]) for name in ("observation", "desired_goal")
        },
        actions=actions[: len(rewards)].copy(),
        rewards=np.array(rewards, np.float32),
        terminated=True,
        truncated=False,
        episode_id=EpisodeId(0, 0, 0, 0),
        env_name="ring",
        seed=seed,
        first_policy_version=PolicyVersion(0, 0),
        last_policy_version=PolicyVersion(0, 0),
        achieved_goals=to_achieved(achieved),
    )


@given(st.integers(0, 2**31), st.sampled_from(["all", "some", "all_or_nothing"]))
def test_the_environment_itself_pays_a_relabeled_instruction_alike(seed, strategy):
    rng = np.random.default_rng(seed)
    episode = roll_out(rng.integers(0, 3, 30), seed)
    rule = MultiGoalEnv().goal_rule
    relabeled = InstructionRelabeler(InstructionRelabelConfig(strategy=strategy), rule).relabel(episode, rng)
    replayed = roll_out(np.resize(relabeled.actions, 30), seed, read_instruction(relabeled).copy())
    assert len(relabeled) == len(replayed)
    np.testing.assert_array_equal(relabeled.rewards, replayed.rewards)
    assert relabeled.terminated == replayed.terminated
    for name, leaf in replayed.observations.items():
        np.testing.assert_array_equal(relabeled.observations[name], leaf)
    np.testing.assert_array_equal(relabeled.achieved_goals.values, replayed.achieved_goals.values)
    np.testing.assert_array_equal(relabeled.achieved_goals.offsets, replayed.achieved_goals.offsets)


def test_episodes_without_achieved_goals_are_refused():
    episode = replace(make_episode(3), achieved_goals=None)
    with pytest.raises(DataError, match=r"episode \(1, 0, 0, 0\): expected achieved goals for relabeling"):
        read_instruction(episode)
