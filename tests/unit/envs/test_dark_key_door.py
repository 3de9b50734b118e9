"""DarkKeyDoor: attempts, soft resets that cost one step, what is paid when."""

import numpy as np
import pytest
from helpers.one_line import one_line

from amago_ray.envs.dark_key_door import DarkKeyDoor
from amago_ray.errors import EnvError

WEST, NORTH, EAST, SOUTH, STAY = range(5)


def cells(observation: np.ndarray, size: int) -> np.ndarray:
    """The agents' cells `[E]` in observations `[E, 4]`."""
    rows, columns = np.rint(observation[:, :2] * (size - 1)).astype(np.int64).T
    return rows * size + columns


def find(seeds: list[int], size: int) -> list[tuple[int, int, int]]:
    """Start, key and door of the trials of these seeds, found by walking through the whole room twice."""
    env = DarkKeyDoor(len(seeds), size=size, trial_length=10**6, attempt_length=10**6)
    start = cells(env.reset(np.arange(len(seeds)), np.asarray(seeds)).leaves["observation"], size)
    to_corner = [NORTH] * (size - 1) + [WEST] * (size - 1)
    sweep = [turn for row in range(size) for turn in ([EAST, WEST][row % 2],) * (size - 1) + (SOUTH,)]
    paid: list[list[int]] = [[] for _ in seeds]
    for action in [*to_corner, *sweep, *to_corner, *sweep]:
        columns = env.step(np.full(len(seeds), action))
        here = cells(columns.observations.leaves["observation"], size)
        for index in np.flatnonzero(columns.rewards):
            paid[index].append(int(here[index]))
    return [(int(first), places[0], places[1]) for first, places in zip(start, paid, strict=True)]


def way(size: int, start: int, target: int) -> list[int]:
    (row, column), (to_row, to_column) = divmod(start, size), divmod(target, size)
    vertical = [SOUTH if to_row > row else NORTH] * abs(to_row - row)
    return vertical + [EAST if to_column > column else WEST] * abs(to_column - column)


def passed(size: int, start: int, actions: list[int]) -> list[int]:
    """The cells that a way leads through, the last one included, where no wall is in it."""
    steps = {WEST: -1, NORTH: -size, EAST: 1, SOUTH: size}
    return (start + np.cumsum([steps[action] for action in actions])).tolist()


def test_key_then_door_then_a_soft_reset_for_nothing() -> None:
    for seed, (start, key, door) in enumerate(find(list(range(10)), 4)):
        env = DarkKeyDoor(1, size=4, trial_length=60, attempt_length=15)
        first = env.reset(np.zeros(1, np.int64), np.asarray([seed])).leaves["observation"][0].copy()
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
    trials = enumerate(find(list(range(50)), 5))
    # The first in which the way to the door does not lead over the key, nor the one to the key and back over the door.
    seed, (start, key, door) = next(
        (seed, places)
        for seed, places in trials
        if places[1] not in passed(5, places[0], way(5, places[0], places[2]))
        and abs(places[1] - places[2]) not in (1, 5)
    )
    env = DarkKeyDoor(1, size=5, trial_length=100, attempt_length=99)
    env.reset(np.zeros(1, np.int64), np.asarray([seed]))
    to_key, to_door = way(5, door, key), way(5, key, door)
    off_key, back = to_door[0], (to_door[0] + 2) % 4
    rewards = [
        [float(env.step(np.asarray([action])).rewards[0]) for action in actions]
        for actions in (way(5, start, door), to_key, [off_key, back, STAY], to_door)
    ]
    assert rewards == [
        [0.0] * len(way(5, start, door)),
        [*[0.0] * (len(to_key) - 1), 1],
        [0, 0, 0],
        [*[0.0] * (len(to_door) - 1), 1],
    ]


def test_an_attempt_lasts_attempt_length_steps() -> None:
    # Nothing is paid on the way south, and there is a way.
    seeds = [
        seed
        for seed, (start, key, _) in enumerate(find(list(range(50)), 9))
        if start // 9 < 8 and (key % 9 != start % 9 or key < start)
    ][:2]
    env = DarkKeyDoor(2, size=9, trial_length=12, attempt_length=4)
    start = cells(env.reset(np.arange(2), np.asarray(seeds)).leaves["observation"], 9)
    ends, back, terminated = [], [], []
    for t in range(1, 13):
        columns = env.step(np.full(2, SOUTH))
        ends += [t] if len(columns.events) == 2 else []
        back += [t] if (cells(columns.observations.leaves["observation"], 9) == start).all() else []
        terminated += [t] if columns.terminated.all() else []
        assert not columns.truncated.any()
    assert ends == [4, 9]
    assert back == [5, 10]
    assert terminated == [12]


def test_trials_differ_and_walls_hold() -> None:
    assert len(set(find(list(range(100)), 9))) == 100
    for action, feature, bound in ((WEST, 1, 0), (NORTH, 0, 0), (EAST, 1, 1), (SOUTH, 0, 1)):
        env = DarkKeyDoor(100, size=9)
        env.reset(np.arange(100), np.arange(100))
        stays = np.ones(100, np.bool_)
        for _ in range(9):
            columns = env.step(np.full(100, action))
            stays[[event.index for event in columns.events]] = False
        assert stays.sum() > 90, "few find key and door in one line"
        assert (columns.observations.leaves["observation"][stays, feature] == bound).all()


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
