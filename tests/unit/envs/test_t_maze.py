"""TMaze: the optimum is 1.0, a wasted step costs 1/H, the side is seen once."""

import numpy as np
import pytest
from helpers.one_line import one_line

from amago_ray.envs.t_maze import TMaze
from amago_ray.errors import EnvError

FORWARD, UP, BACK, DOWN = range(4)


def play(length: int, seed: int, actions: list[int]) -> tuple[list[float], np.ndarray, list[bool], float]:
    """Rewards, observations, termination flags and success of one episode."""
    env = TMaze(1, length=length)
    rows = [env.reset(np.zeros(1, np.int64), np.asarray([seed])).leaves["observation"][0].copy()]
    rewards, ends = [], []
    for action in actions:
        columns = env.step(np.asarray([action]))
        rows.append(columns.observations.leaves["observation"][0].copy())
        rewards.append(float(columns.rewards[0]))
        ends.append(bool(columns.terminated[0]))
        assert not columns.truncated[0]
    return rewards, np.stack(rows), ends, columns.events[-1].value


@pytest.mark.parametrize("length", [1, 5, 20])
def test_the_optimum_is_one(length: int) -> None:
    for seed in range(8):
        side = play(length, seed, [FORWARD] * (length + 1))[1][0, 1]
        rewards, rows, ends, success = play(length, seed, [FORWARD] * length + [UP if side > 0 else DOWN])
        assert sum(rewards) == 1.0
        assert success == 1.0
        assert ends == [False] * length + [True]
        assert (rows[1:-1, 1] == 0).all(), "the side is shown in row 0 alone"
        assert rows[:, 0].tolist() == [0] * length + [1, 1]


def test_the_wrong_turn_gives_nothing() -> None:
    side = play(5, 0, [FORWARD] * 6)[1][0, 1]
    rewards, _, _, success = play(5, 0, [FORWARD] * 5 + [DOWN if side > 0 else UP])
    assert sum(rewards) == 0.0
    assert success == 0.0


def test_each_wasted_step_costs_one_over_the_length() -> None:
    rewards, _, ends, success = play(5, 0, [FORWARD, UP, BACK, FORWARD, FORWARD, UP])
    assert np.array_equal(rewards, np.array([0, -0.2, -0.2, 0, 0, 0], np.float32))
    assert ends[-1]
    assert success == 0.0


def test_going_back_to_the_start_shows_nothing() -> None:
    _, rows, _, _ = play(4, 0, [FORWARD, BACK, BACK, FORWARD, FORWARD])
    assert rows[0, 1] != 0
    assert (rows[1:, 1] == 0).all()


def test_both_sides_occur() -> None:
    env = TMaze(64)
    sides = env.reset(np.arange(64), np.arange(64)).leaves["observation"][:, 1]
    assert set(sides.tolist()) == {-1.0, 1.0}
    assert 16 < (sides > 0).sum() < 48


def test_bad_settings_say_what_was_expected() -> None:
    with pytest.raises(EnvError) as error:
        TMaze(1, length=0)
    assert "length" in one_line(error)


def test_picture_is_drawn_for_long_corridors_too() -> None:
    for length in (5, 300):
        env = TMaze(1, length=length)
        env.reset(np.zeros(1, np.int64), np.asarray([0]))
        before = env.render(0)
        env.step(np.asarray([FORWARD]))
        assert before.shape == env.render(0).shape
        assert not np.array_equal(before, env.render(0))
