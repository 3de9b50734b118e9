"""DarkKeyDoor: attempts, soft resets that cost one step, what is paid when."""

import numpy as np
import pytest
from helpers.one_line import one_line

from amago_ray.envs.dark_key_door import DarkKeyDoor
from amago_ray.errors import EnvError

WEST, NORTH, EAST, SOUTH, STAY = range(5)


def way(size: int, start: int, target: int) -> list[int]:
    (row, column), (to_row, to_column) = divmod(start, size), divmod(target, size)
    vertical = [SOUTH if to_row > row else NORTH] * abs(to_row - row)
    return vertical + [EAST if to_column > column else WEST] * abs(to_column - column)


def test_key_then_door_then_a_soft_reset_for_nothing() -> None:
    for seed in range(10):
        env = DarkKeyDoor(1, size=4, trial_length=60, attempt_length=15)
        first = env.reset(np.zeros(1, np.int64), np.asarray([seed])).leaves["observation"][0].copy()
        start, key, door = int(env._start[0]), int(env._key[0]), int(env._door[0])
        assert len({start, key, door}) == 3
        steps = 0
        for attempt in range(2):
            actions = way(4, start, key) + way(4, key, door)
            total = 0.0
            for action in actions:
                columns = env.step(np.asarray([action]))
                total += float(columns.rewards[0])
                steps += 1
            assert total == 2.0
            assert columns.rewards[0] == 1.0
            assert [(event.name, event.value) for event in columns.events] == [("attempt_return", 2.0)]
            assert columns.observations.leaves["observation"][0, 2] == 1
            columns = env.step(np.asarray([EAST]))
            steps += 1
            assert columns.rewards[0] == 0.0
            assert not columns.events
            row = columns.observations.leaves["observation"][0]
            assert np.array_equal(row[:3], first[:3]), f"attempt {attempt}: back at the start without the key"
            assert row[3] == np.float32(steps / 60)


def test_the_door_needs_the_key_and_the_key_pays_once() -> None:
    env = DarkKeyDoor(1, size=5, trial_length=100, attempt_length=99)
    env.reset(np.zeros(1, np.int64), np.asarray([1]))
    env._start[:], env._key[:], env._door[:], env._cell[:] = 0, 2, 1, 0
    rewards = [float(env.step(np.asarray([action])).rewards[0]) for action in (EAST, EAST, EAST, WEST, STAY, WEST)]
    assert rewards == [0, 1, 0, 0, 0, 1]


def test_an_attempt_lasts_attempt_length_steps() -> None:
    env = DarkKeyDoor(2, size=9, trial_length=12, attempt_length=4)
    env.reset(np.arange(2), np.arange(2))
    env._start[:], env._cell[:], env._key[:], env._door[:] = 40, 40, 0, 1
    ends, back, terminated = [], [], []
    for t in range(1, 13):
        columns = env.step(np.full(2, SOUTH))
        ends += [t] if columns.events else []
        back += [t] if (env._cell == 40).all() else []
        terminated += [t] if columns.terminated.all() else []
        assert not columns.truncated.any()
    assert ends == [4, 9]
    assert back == [5, 10]
    assert terminated == [12]


def test_trials_differ_and_walls_hold() -> None:
    env = DarkKeyDoor(100, size=9)
    env.reset(np.arange(100), np.arange(100))
    assert len(set(zip(env._start.tolist(), env._key.tolist(), env._door.tolist(), strict=True))) == 100
    for action, feature, bound in ((WEST, 1, 0), (NORTH, 0, 0), (EAST, 1, 1), (SOUTH, 0, 1)):
        env.reset(np.arange(100), np.arange(100))
        for _ in range(9):
            env._soft_reset_due[:] = False
            columns = env.step(np.full(100, action))
        assert (columns.observations.leaves["observation"][:, feature] == bound).all()


def test_bad_settings_say_what_was_expected() -> None:
    with pytest.raises(EnvError) as error:
        DarkKeyDoor(1, attempt_length=0)
    assert "attempt_length" in one_line(error)


def test_picture_changes_with_the_agent() -> None:
    env = DarkKeyDoor(1, size=4)
    env.reset(np.zeros(1, np.int64), np.asarray([0]))
    before = env.render(0)
    for action in (SOUTH, EAST, SOUTH):
        env.step(np.asarray([action]))
    assert before.shape == (352, 352, 3)
    assert not np.array_equal(before, env.render(0))
