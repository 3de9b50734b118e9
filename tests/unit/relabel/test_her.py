"""Hindsight experience replay of single goals."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from helpers.episodes import goal_episodes, make_episode, play, to_achieved, to_rows
from hypothesis import given
from hypothesis import strategies as st

from amago_ray.config.relabel import HerRelabelConfig
from amago_ray.data import GoalRule
from amago_ray.relabel.her import HerRelabeler

FETCH = GoalRule(match="within", tolerance=0.05, reward=0.0, step_reward=-1.0, persistent=True)


def her(rule=None, **settings):
    return HerRelabeler(HerRelabelConfig(**{"her_probability": 1.0, **settings}), rule or GoalRule())


def fetch_episode(positions, desired):
    """A persistent single-goal episode: one achieved goal per row, `desired_goal` without an axis for goals."""
    goals = np.array(positions, np.float32).reshape(-1, 1)
    num_transitions = len(goals) - 1
    return replace(
        make_episode(num_transitions, grid=1000),
        observations={"desired_goal": np.full((num_transitions + 1, 1), desired, np.float32)},
        rewards=np.where(np.abs(goals[1:, 0] - desired) <= 0.05, 0, -1).astype(np.float32),
        achieved_goals=to_achieved(list(goals[:, None])),
    )


@given(
    goal_episodes(num_goals=st.just(1)),
    st.sampled_from(["future", "final"]),
    st.integers(0, 2**32),
)
def test_relabeled_episodes_are_what_the_environment_would_have_said(rule_and_episode, strategy, seed):
    rule, episode = rule_and_episode
    relabeled = her(rule, her_strategy=strategy).relabel(episode, np.random.default_rng(seed))
    if not any(len(row) for row in to_rows(episode.achieved_goals)[1:]):
        assert relabeled is episode
        return
    rewards, shown, end, terminated = play(
        rule, relabeled.observations["desired_goal"][0], to_rows(episode.achieved_goals)
    )
    assert len(relabeled) == end >= 1
    np.testing.assert_array_equal(relabeled.rewards, rewards)
    np.testing.assert_array_equal(relabeled.observations["desired_goal"], shown)
    assert relabeled.rewards.max() == rule.reward
    assert relabeled.terminated == (terminated or episode.terminated)
    np.testing.assert_array_equal(relabeled.actions, episode.actions[:end])
    np.testing.assert_array_equal(relabeled.observations["observation"], episode.observations["observation"][: end + 1])


def test_persistent_goals_are_paid_at_every_match_and_nothing_is_cut():
    episode = fetch_episode([0, 1, 2, 3, 3, 3.04], desired=9)
    relabeled = her(FETCH, her_strategy="final").relabel(episode, np.random.default_rng(0))
    assert relabeled.rewards.tolist() == [-1, -1, 0, 0, 0]
    assert relabeled.observations["desired_goal"].tolist() == [[np.float32(3.04)]] * 6
    assert (relabeled.terminated, relabeled.truncated) == (episode.terminated, episode.truncated)
    assert episode.rewards.tolist() == [-1] * 5


def test_final_takes_a_goal_of_the_last_row_that_achieved_something():
    rows = [
        np.zeros((0, 2), np.int32),
        np.array([[1, 1]], np.int32),
        np.array([[2, 2], [3, 3]], np.int32),
        np.zeros((0, 2), np.int32),
    ]
    episode = replace(make_episode(3, num_goals=1, grid=1000), achieved_goals=to_achieved(rows))
    hindsight, rng = her(her_strategy="final"), np.random.default_rng(0)
    assert {hindsight.choose(episode, rng) for _ in range(100)} == {1, 2}


def test_future_draws_from_what_follows_a_uniform_step():
    episode = fetch_episode(range(4), desired=9)
    hindsight, rng = her(her_strategy="future"), np.random.default_rng(0)
    counts = Counter(hindsight.choose(episode, rng) for _ in range(6000))
    # From step 0: rows 1, 2, 3; from step 1: rows 2, 3; from step 2: row 3.
    for row, share in {1: 1 / 9, 2: 1 / 9 + 1 / 6, 3: 1 / 9 + 1 / 6 + 1 / 3}.items():
        assert abs(counts[row] / 6000 - share) < 0.03
    assert set(counts) == {1, 2, 3}


def test_row_0_is_no_future():
    rows = [np.array([[1, 1]], np.int32), np.zeros((0, 2), np.int32), np.zeros((0, 2), np.int32)]
    episode = replace(make_episode(2, num_goals=1, grid=1000), achieved_goals=to_achieved(rows))
    for strategy in ("future", "final"):
        assert her(her_strategy=strategy).relabel(episode, np.random.default_rng(0)) is episode


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_only_a_share_is_relabeled(probability):
    episode = fetch_episode(range(5), desired=9)
    hindsight, rng = her(FETCH, her_probability=probability), np.random.default_rng(0)
    share = np.mean([hindsight.relabel(episode, rng) is not episode for _ in range(2000)])
    assert abs(share - probability) < 0.05
