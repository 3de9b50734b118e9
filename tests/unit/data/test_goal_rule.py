"""Goal rules replayed against the slow player."""

import numpy as np
import pytest
from helpers.episodes import goal_episodes, make_episode, play, rules, to_achieved, to_rows
from hypothesis import given
from hypothesis import strategies as st

from amago_ray.data import AchievedGoals, GoalRule
from amago_ray.data.goal_rule import NOT_COMPLETED, GoalReplay, completed_rows, mark_completed, replay_instruction
from amago_ray.errors import ConfigError, DataError


@given(goal_episodes(), rules(), st.integers(0, 1000))
def test_replay_equals_stepping(rule_and_episode, other_rule, seed):
    _, episode = rule_and_episode
    achieved, num_transitions = episode.achieved_goals, len(episode)
    instruction = np.random.default_rng(seed).integers(0, 4, (3, 2)).astype(np.int32)
    rewards, shown, end, terminated = play(other_rule, instruction, to_rows(achieved))
    replay = replay_instruction(other_rule, instruction, achieved, num_transitions)
    assert replay.end_row == end
    assert replay.terminates == terminated
    assert replay.rewards.dtype == np.float32
    np.testing.assert_array_equal(replay.rewards[:end], rewards)
    np.testing.assert_array_equal(mark_completed(other_rule, instruction, replay.completion_rows, end + 1), shown)


def test_row_0_completes_nothing():
    goal = np.array([[2, 2]])
    achieved = to_achieved([goal, goal + 1, goal + 1])
    replay = replay_instruction(GoalRule(), goal, achieved, 2)
    assert replay.completion_rows.tolist() == [NOT_COMPLETED]
    assert replay.rewards.tolist() == [0, 0]


def test_at_most_one_goal_completes_per_step_even_if_the_row_achieves_all():
    goals = np.array([[1, 1], [2, 2], [2, 2]])
    achieved = to_achieved([goals[:0], goals, goals, goals[:1]])
    replay = replay_instruction(GoalRule(), goals, achieved, 3)
    assert replay.completion_rows.tolist() == [1, 2, NOT_COMPLETED]
    assert replay.active_goal.tolist() == [0, 1, 2, 2]
    assert replay.rewards.tolist() == [1, 1, 0]
    assert (replay.end_row, replay.terminates) == (3, False)


def test_persistent_goals_pay_at_every_match_and_never_end():
    rule = GoalRule(match="within", tolerance=0.5, reward=0.0, step_reward=-1.0, persistent=True)
    values = np.array([[0.0], [3.0], [3.4], [9.0], [2.6]], np.float32)
    replay = replay_instruction(
        rule, np.array([[3.0]], np.float32), AchievedGoals(values, np.arange(6, dtype=np.int32)), 4
    )
    assert replay.rewards.tolist() == [0, 0, -1, 0]
    assert (replay.end_row, replay.terminates) == (4, False)
    assert completed_rows(rule, np.array([[3.0]]), AchievedGoals(values, np.arange(6, dtype=np.int32))) == []


def test_persistent_goals_match_at_row_0_pay_nothing():
    rule = GoalRule(persistent=True)
    achieved = to_achieved([np.array([[1]]), np.array([[2]])])
    assert replay_instruction(rule, np.array([[1]]), achieved, 1).rewards.tolist() == [0]


def test_persistent_rule_takes_one_goal_only():
    episode = make_episode()
    with pytest.raises(DataError, match=r"expected 1 goal .* got 2"):
        replay_instruction(GoalRule(persistent=True), np.zeros((2, 2)), episode.achieved_goals, len(episode))


def test_unsigned_goals_within_tolerance_do_not_wrap():
    rule = GoalRule(match="within", tolerance=1.0)
    achieved = to_achieved([np.zeros((0, 1), np.uint8), np.array([[0]], np.uint8)])
    assert completed_rows(rule, np.array([[1]], np.uint8), achieved) == [1]


def pay_the_last_step(rule, instruction, achieved, num_transitions):
    """A custom rule: everything completes at the end."""
    rewards = np.zeros(num_transitions, np.float32)
    rewards[-1] = rule.reward
    rows = np.full(len(instruction), num_transitions)
    return GoalReplay(rows, rewards, np.zeros(num_transitions + 1, np.int64), num_transitions, True)


def test_custom_rule_decides_everything(monkeypatch, tmp_path):
    (tmp_path / "exotic_goal_rule.py").write_text("from custom_rule_under_test import pay_the_last_step as pay\n")
    import sys
    import types

    module = types.ModuleType("custom_rule_under_test")
    module.pay_the_last_step = pay_the_last_step
    monkeypatch.setitem(sys.modules, "custom_rule_under_test", module)
    monkeypatch.syspath_prepend(tmp_path)
    rule = GoalRule(custom="exotic_goal_rule:pay", reward=3.0)
    episode = make_episode(5, seed=1)
    replay = replay_instruction(rule, np.zeros((2, 2)), episode.achieved_goals, len(episode))
    assert replay.rewards[-1] == 3.0
    assert completed_rows(rule, np.zeros((2, 2)), episode.achieved_goals) == [len(episode)] * 2


def test_custom_rule_that_is_missing_is_named():
    episode = make_episode()
    with pytest.raises(ConfigError, match=r'goal rule: custom: cannot import "no_such_module"'):
        replay_instruction(
            GoalRule(custom="no_such_module:rule"), np.zeros((1, 2)), episode.achieved_goals, len(episode)
        )
