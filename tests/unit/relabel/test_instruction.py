"""Instruction relabeling: choices, their application, and what stays as it was."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from helpers.episodes import GRID, goal_episodes, make_episode, play, rules, to_achieved, to_rows
from hypothesis import given
from hypothesis import strategies as st

from amago_ray.config.relabel import InstructionRelabelConfig
from amago_ray.data import Episode, GoalRule
from amago_ray.data.arrow_codec import decode_episodes, encode_episodes
from amago_ray.relabel.hindsight import row_of_entries
from amago_ray.relabel.instruction import InstructionRelabeler, RelabelChoice

STRATEGIES = ("all", "some", "all_or_nothing", "none")
WEIGHTINGS = ("uniform", "rarity_per_step", "rarity_per_episode")


def relabeler(rule=None, **settings):
    return InstructionRelabeler(InstructionRelabelConfig(**settings), rule or GoalRule())


def fixed(rows, instruction, rule=None):
    """An episode that achieves given goals, played by the slow player."""
    rule = rule or GoalRule()
    rows = [np.array(row, np.int32).reshape(-1, 2) for row in rows]
    instruction = np.array(instruction, np.int32)
    rewards, shown, end, terminated = play(rule, instruction, rows)
    episode = make_episode(end, grid=1000, num_goals=len(instruction))
    observations = {"observation": episode.observations["observation"], "desired_goal": shown}
    return replace(
        episode,
        observations=observations,
        rewards=rewards,
        terminated=terminated,
        truncated=not terminated,
        achieved_goals=to_achieved(rows[: end + 1]),
    )


def walk(num_rows):
    """Rows that each achieve a goal of their own."""
    return [[[row, 50]] for row in range(num_rows)]


@given(goal_episodes(), st.sampled_from(STRATEGIES), st.sampled_from(WEIGHTINGS), st.integers(0, 2**32))
def test_relabeled_episodes_are_what_the_environment_would_have_said(rule_and_episode, strategy, weighting, seed):
    rule, episode = rule_and_episode
    hindsight = relabeler(rule, strategy=strategy, weighting=weighting)
    hindsight.observe(episode)
    relabeled = hindsight.relabel(episode, np.random.default_rng(seed))
    instruction = relabeled.observations["desired_goal"][0]
    rewards, shown, end, terminated = play(rule, instruction, to_rows(episode.achieved_goals))
    assert len(relabeled) == end >= 1
    np.testing.assert_array_equal(relabeled.rewards, rewards)
    np.testing.assert_array_equal(relabeled.observations["desired_goal"], shown)
    assert relabeled.rewards.dtype == np.float32
    assert relabeled.observations["desired_goal"].dtype == episode.observations["desired_goal"].dtype
    assert relabeled.terminated == (terminated or episode.terminated)
    assert relabeled.truncated == (episode.truncated and not terminated)
    np.testing.assert_array_equal(relabeled.actions, episode.actions[:end])
    np.testing.assert_array_equal(relabeled.observations["observation"], episode.observations["observation"][: end + 1])
    assert relabeled.rewards.sum() >= episode.rewards[:end].sum() or rule.step_reward != 0


@given(goal_episodes(), st.sampled_from(STRATEGIES), st.integers(0, 2**32))
def test_stored_episodes_are_never_changed_pitfall_a5(rule_and_episode, strategy, seed):
    rule, episode = rule_and_episode
    group = encode_episodes([episode])
    before = group.to_pybytes()
    (stored,) = decode_episodes(group)
    relabeler(rule, strategy=strategy).relabel(stored, np.random.default_rng(seed))
    assert group.to_pybytes() == before


@given(goal_episodes(), st.integers(0, 2**32))
def test_nothing_chosen_returns_the_very_episode_pitfall_a5(rule_and_episode, seed):
    rule, episode = rule_and_episode
    rng = np.random.default_rng(seed)
    assert relabeler(rule, strategy="none").relabel(episode, rng) is episode
    assert relabeler(rule, strategy="all_or_nothing", all_probability=0.0).relabel(episode, rng) is episode
    hindsight = relabeler(rule, strategy="all")
    if len(hindsight.completed_rows(episode)) == len(episode.observations["desired_goal"][0]):
        assert hindsight.relabel(episode, rng) is episode


@given(goal_episodes(rules()), st.sampled_from(["all", "some"]), st.sampled_from(WEIGHTINGS), st.integers(0, 2**32))
def test_choices_are_distinct_rows_that_completed_no_real_goal(rule_and_episode, strategy, weighting, seed):
    rule, episode = rule_and_episode
    hindsight = relabeler(rule, strategy=strategy, weighting=weighting)
    hindsight.observe(episode)
    choice = hindsight.choose(episode, np.random.default_rng(seed))
    rows = row_of_entries(episode.achieved_goals, choice.entries).tolist()
    assert len(set(rows)) == len(rows)
    assert 0 not in rows
    assert not set(rows) & set(choice.completed_rows)
    num_candidates = sum(len(row) > 0 for row in to_rows(episode.achieved_goals)[1:]) - len(choice.completed_rows)
    num_unmet = len(episode.observations["desired_goal"][0]) - len(choice.completed_rows)
    if strategy == "all":
        assert len(rows) == min(num_unmet, num_candidates)
    else:
        assert len(rows) <= min(num_unmet, num_candidates)


def test_all_unmet_goals_replaced_make_a_success_cut_at_its_end():
    episode = fixed(walk(12), [[90, 90], [91, 91], [92, 92]])
    for seed in range(50):
        hindsight = relabeler(strategy="all")
        choice = hindsight.choose(episode, np.random.default_rng(seed))
        relabeled = hindsight.apply(episode, choice)
        assert relabeled.terminated
        assert not relabeled.truncated
        assert relabeled.rewards.sum() == 3
        assert len(relabeled) == max(choice.entries)
        assert len(relabeled.achieved_goals.offsets) == len(relabeled) + 2


def test_completed_goals_merge_with_new_ones_in_order_of_time_and_unmet_originals_stay_last():
    episode = fixed(walk(10), [[5, 50], [90, 90], [91, 91]])
    hindsight = relabeler(strategy="some")
    assert hindsight.completed_rows(episode) == (5,)
    relabeled = hindsight.apply(episode, RelabelChoice(np.array([3]), (5,)))
    assert relabeled.observations["desired_goal"][0].tolist() == [[3, 50], [5, 50], [91, 91]]
    assert np.flatnonzero(relabeled.rewards).tolist() == [2, 4]
    assert relabeled.observations["desired_goal"][5].tolist() == [[-1, -1], [-1, -1], [91, 91]]
    assert len(relabeled) == 9
    assert relabeled.truncated
    later = hindsight.apply(episode, RelabelChoice(np.array([8, 6]), (5,)))
    assert later.observations["desired_goal"][0].tolist() == [[5, 50], [6, 50], [8, 50]]
    assert len(later) == 8


def test_the_last_row_may_become_a_goal_and_then_ends_the_episode_where_it_ended():
    episode = fixed(walk(6), [[90, 90]])
    relabeled = relabeler().apply(episode, RelabelChoice(np.array([5]), ()))
    assert len(relabeled) == 5
    assert relabeled.terminated
    assert relabeled.rewards.tolist() == [0, 0, 0, 0, 1]


def test_a_new_goal_met_earlier_than_drawn_completes_earlier():
    episode = fixed([[[0, 0]], [[1, 1]], [[2, 2]], [[1, 1]]], [[90, 90]])
    relabeled = relabeler().apply(episode, RelabelChoice(np.array([3]), ()))
    assert len(relabeled) == 1


def test_without_termination_nothing_is_cut():
    rule = GoalRule(terminates=False, marker=None)
    episode = fixed(walk(8), [[90, 90]], rule)
    relabeled = relabeler(rule).apply(episode, RelabelChoice(np.array([2]), ()))
    assert len(relabeled) == len(episode)
    assert relabeled.rewards.tolist() == [0, 1, 0, 0, 0, 0, 0]
    assert (relabeled.terminated, relabeled.truncated) == (False, True)
    assert (relabeled.observations["desired_goal"] == [2, 50]).all()


def test_nothing_achieved_leaves_the_episode_alone():
    episode = fixed([[] for _ in range(6)], [[90, 90]])
    assert relabeler(strategy="all").relabel(episode, np.random.default_rng(0)) is episode


def test_action_masks_are_cut_with_the_episode_pitfall_a11():
    episode = replace(fixed(walk(9), [[90, 90]]), action_mask=np.random.default_rng(0).random((9, 5)) < 0.5)
    relabeled = relabeler().apply(episode, RelabelChoice(np.array([4]), ()))
    np.testing.assert_array_equal(relabeled.action_mask, episode.action_mask[:5])


def test_single_goals_without_a_leading_axis_keep_their_shape():
    episode = fixed(walk(9), [[90, 90]])
    observations = {**episode.observations, "desired_goal": episode.observations["desired_goal"][:, 0]}
    relabeled = relabeler().apply(replace(episode, observations=observations), RelabelChoice(np.array([4]), ()))
    assert relabeled.observations["desired_goal"].tolist() == [[4, 50]] * 4 + [[-1, -1]]


def counts_of(episode: Episode, draws: int, **settings) -> Counter[int]:
    """How often each row is drawn as the only new goal."""
    hindsight = relabeler(strategy="all", **settings)
    hindsight.observe(episode)
    rng = np.random.default_rng(0)
    counts: Counter[int] = Counter()
    for _ in range(draws):
        (entry,) = hindsight.choose(episode, rng).entries
        counts[int(row_of_entries(episode.achieved_goals, np.array([entry]))[0])] += 1
    return counts


def test_uniform_draws_are_uniform_over_rows_not_over_goals():
    rows = [[], [[1, 1]], [[2, 2], [3, 3], [4, 4]], [], [[5, 5]]]
    counts = counts_of(fixed(rows, [[90, 90]]), 6000)
    assert set(counts) == {1, 2, 4}
    for count in counts.values():
        assert abs(count - 2000) < 6 * np.sqrt(2000 * 2 / 3)


def test_rare_goals_are_drawn_in_proportion_to_their_weight():
    rows = [[[9, 9]], *[[[1, 1]]] * 9, [[2, 2]]]
    counts = counts_of(fixed(rows, [[90, 90]]), 4000, weighting="rarity_per_step", rarity_exponent=2.0)
    rare, common = np.log10(10) ** 2, 9 * np.log10(10 / 9) ** 2
    expected = 4000 * rare / (rare + common)
    assert abs(counts[10] - expected) < 6 * np.sqrt(expected * common / (rare + common)) + 1


def test_goals_met_everywhere_can_still_be_drawn():
    rows = [[[1, 1]]] * 5
    counts = counts_of(fixed(rows, [[90, 90]]), 200, weighting="rarity_per_step")
    assert set(counts) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("all", {3: 1.0}),
        ("some", {0: 0.25, 1: 0.25, 2: 0.25, 3: 0.25}),
        ("all_or_nothing", {0: 0.2, 3: 0.8}),
        ("none", {0: 1.0}),
    ],
)
def test_number_of_new_goals(strategy, expected):
    episode = fixed(walk(12), [[90, 90], [91, 91], [92, 92]])
    hindsight, rng = relabeler(strategy=strategy), np.random.default_rng(0)
    counts = Counter(len(hindsight.choose(episode, rng).entries) for _ in range(4000))
    assert set(counts) == set(expected)
    for number, share in expected.items():
        assert abs(counts[number] / 4000 - share) < 0.04


def test_equal_random_states_relabel_equally():
    episode = make_episode(20, num_goals=3, grid=GRID * 10)
    first, second = (relabeler(strategy="some").relabel(episode, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first.observations["desired_goal"], second.observations["desired_goal"])
