"""Frequencies of goals over what is stored."""

import numpy as np
import pytest
from helpers.episodes import make_episode, to_achieved
from hypothesis import given
from hypothesis import strategies as st

from amago_ray.relabel.rarity import GoalFrequencies

A, B, C = [1, 1], [2, 2], [3, 3]


def achieved(*rows):
    return to_achieved([np.array(row, np.int32).reshape(-1, 2) for row in rows])


def rarity(frequencies, *goals):
    return frequencies.rarity(np.array(goals, np.int32)).tolist()


def test_frequency_per_step_counts_steps_in_which_a_goal_was_met():
    frequencies = GoalFrequencies("step")
    frequencies.add(achieved([C], [A, A], [A, B], [], []))
    frequencies.add(achieved([], [A], [A], [A], [A], [A], [A]))
    assert rarity(frequencies, A, B) == pytest.approx([-np.log10(8 / 10), -np.log10(1 / 10)])


def test_frequency_per_episode_counts_episodes():
    frequencies = GoalFrequencies("episode")
    for goals in ([A, B, A], [A], [A]):
        frequencies.add(achieved([C], goals, goals[:1]))
    assert rarity(frequencies, A, B) == pytest.approx([0, -np.log10(1 / 3)])


def test_row_0_counts_nothing_and_unknown_goals_are_as_rare_as_one():
    frequencies = GoalFrequencies("step")
    frequencies.add(achieved([C], *[[A]] * 100))
    assert rarity(frequencies, C) == pytest.approx([2.0])
    assert rarity(GoalFrequencies("step"), C) == [0.0]


@given(
    st.sampled_from(["step", "episode"]), st.lists(st.integers(0, 1000), min_size=1, max_size=5), st.integers(0, 1000)
)
def test_removing_undoes_adding(unit, kept, gone):
    made = {seed: make_episode(10, seed=seed, goals_per_row=(0, 1, 2)).achieved_goals for seed in [*kept, gone]}
    frequencies, expected = GoalFrequencies(unit), GoalFrequencies(unit)
    frequencies.add(made[gone])
    for seed in kept:
        frequencies.add(made[seed])
        expected.add(made[seed])
    frequencies.remove(made[gone])
    assert vars(frequencies) == vars(expected)
