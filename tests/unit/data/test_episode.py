"""The boundary check of episodes."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.episodes import episodes, make_episode
from hypothesis import given

from amago_ray.data import AchievedGoals
from amago_ray.data.episode import validate_episode
from amago_ray.errors import DataError


@given(episodes())
def test_whole_episodes_pass(episode):
    validate_episode(episode)
    assert len(episode) == len(episode.rewards)


GOOD = make_episode(6, has_action_mask=True, grid=1000)
OFFSETS = GOOD.achieved_goals.offsets


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": GOOD.rewards[:0]}, "at least 1 transition"),
        ({"rewards": GOOD.rewards.astype(np.float64)}, r"rewards: expected float32\[T\], got float64\[6\]"),
        ({"rewards": GOOD.rewards * np.nan}, "expected finite numbers"),
        ({"actions": GOOD.actions[:-1]}, r"actions: expected 6 rows, got int64\[5\]"),
        ({"observations": {}}, "at least one observation leaf"),
        ({"observations": {"o": np.zeros((6, 2))}}, r"observation 'o': expected 7 rows, got float64\[6, 2\]"),
        ({"action_mask": GOOD.action_mask[:-1]}, "action_mask: expected 7 rows"),
        ({"action_mask": GOOD.action_mask.astype(np.int8)}, "action_mask: expected bool"),
        ({"achieved_goals": AchievedGoals(GOOD.achieved_goals.values, OFFSETS[:-1])}, "8 offsets"),
        ({"achieved_goals": AchievedGoals(GOOD.achieved_goals.values[:, 0], OFFSETS)}, r"expected \[J, goal_dim\]"),
        (
            {"achieved_goals": AchievedGoals(GOOD.achieved_goals.values, OFFSETS[[0, 2, 1, 3, 4, 5, 6, 7]])},
            "never fall",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(changes, message):
    with pytest.raises(DataError, match=message) as caught:
        validate_episode(replace(GOOD, **changes))
    assert "\n" not in str(caught.value)
    assert "episode (1, 0, 0, 0)" in str(caught.value)
