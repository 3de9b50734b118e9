"""MazeRunner: real mazes, honest observations, goals in order."""

import copy

import numpy as np
import pytest
from helpers.one_line import one_line

from amago_ray.envs.kernel import MOVES
from amago_ray.envs.maze import free_distances, random_walls, start_cell
from amago_ray.envs.maze_runner import MazeRunner
from amago_ray.errors import EnvError


def reachable(walls: np.ndarray, cell: int) -> np.ndarray:
    """Steps from a cell to every other, -1 where there is no way."""
    size = len(walls)
    distance = np.full(size * size, -1)
    distance[cell] = 0
    frontier = [cell]
    while frontier:
        here = frontier.pop(0)
        for row, column in MOVES[:4]:
            there = here + row * size + column
            if not walls.ravel()[there] and distance[there] < 0:
                distance[there] = distance[here] + 1
                frontier.append(there)
    return distance


@pytest.mark.parametrize("size", [7, 9, 11, 15, 31])
def test_every_free_cell_can_be_reached(size: int) -> None:
    for seed in range(10):
        walls = random_walls(size, np.random.default_rng(seed))
        assert walls[[0, -1]].all()
        assert walls[:, [0, -1]].all()
        free = np.flatnonzero(~walls)
        assert (reachable(walls, start_cell(size))[free] >= 0).all()
        assert not walls[1 : size - 5 : 2, 1 : size - 1 : 2].any()
        assert not walls[size - 5, 1 : size - 1].any()
        assert walls[2 : size - 5 : 2, 2 : size - 1 : 2].all()


def test_mazes_differ() -> None:
    assert len({random_walls(11, np.random.default_rng(seed)).tobytes() for seed in range(50)}) == 50


def test_free_distances_equal_a_walk() -> None:
    walls = np.stack([random_walls(9, np.random.default_rng(seed)) for seed in range(3)])
    distances = free_distances(walls)
    for maze, row, column in zip(*np.nonzero(~walls), strict=True):
        for direction, (down, right) in enumerate(MOVES[:4]):
            free = 0
            while not walls[maze, row + down * (free + 1), column + right * (free + 1)]:
                free += 1
            assert distances[maze, row, column, direction] == free


def walk(walls: np.ndarray, here: int, target: int) -> list[int]:
    """Actions of a shortest way from a cell to another."""
    size = len(walls)
    distance = reachable(walls, target)
    actions = []
    while here != target:
        for action, (row, column) in enumerate(MOVES[:4]):
            there = here + row * size + column
            if not walls.ravel()[there] and distance[there] == distance[here] - 1:
                actions.append(action)
                here = there
                break
    return actions


@pytest.mark.parametrize("seed", range(5))
def test_goals_in_order_pay_and_the_last_one_ends(seed: int) -> None:
    env = MazeRunner(1, size=11, num_goals=3, episode_length=500)
    shown = env.reset(np.zeros(1, np.int64), np.asarray([seed])).leaves["desired_goal"][0].copy()
    assert len({tuple(goal) for goal in shown.tolist()}) == 3
    # A world is drawn from its seed, the walls first.
    walls = random_walls(11, np.random.default_rng(seed))
    total, here = 0.0, start_cell(11)
    for number, goal in enumerate(shown):
        target = int(goal[0] * 11 + goal[1])
        for action in walk(walls, here, target):
            columns = env.step(np.asarray([action]))
            total += float(columns.rewards[0])
        here = target
        assert total == number + 1
        assert (columns.observations.leaves["desired_goal"][0, : number + 1] == -1).all()
        assert np.array_equal(columns.observations.leaves["desired_goal"][0, number + 1 :], shown[number + 1 :])
        assert columns.observations.achieved_values is not None
        assert np.array_equal(columns.observations.achieved_values[0], goal)
    assert columns.terminated[0]
    assert not columns.truncated[0]
    assert [(event.name, event.value) for event in columns.events] == [("success", 1.0)]


def test_a3_the_horizon_terminates_and_time_is_observed() -> None:
    env = MazeRunner(2, size=7, num_goals=1, episode_length=4)
    env.reset(np.arange(2), np.arange(2))
    for t in range(1, 5):
        columns = env.step(np.full(2, 4))
        assert (columns.observations.leaves["observation"][:, 6] == np.float32(t / 4)).all()
        assert (columns.terminated == (t == 4)).all()
        assert not columns.truncated.any()
    assert [(event.name, event.value) for event in columns.events] == [("success", 0.0)] * 2


def test_the_start_is_never_a_goal() -> None:
    env = MazeRunner(200, size=7, num_goals=3)
    observations = env.reset(np.arange(200), np.arange(200))
    assert observations.achieved_values is not None
    assert (observations.achieved_values == [5, 3]).all()
    assert not (observations.leaves["desired_goal"] == [5, 3]).all(-1).any()


def test_observation_is_position_distances_time() -> None:
    env = MazeRunner(1, size=7)
    row = env.reset(np.zeros(1, np.int64), np.asarray([0])).leaves["observation"][0]
    expected = [np.array(numbers, np.float32) / 7 for numbers in ([5, 3, 0, 3, 0, 0, 0], [5, 3, 0, 4, 0, 0, 0])]
    assert any(np.array_equal(row, numbers) for numbers in expected)


def test_actions_are_permuted_per_episode_and_in_all_ways() -> None:
    env = MazeRunner(64, size=11, permute_actions=True)
    goes_north = []
    for action in range(5):
        rows = env.reset(np.arange(64), np.arange(64)).leaves["observation"][:, 0]
        goes_north.append(env.step(np.full(64, action)).observations.leaves["observation"][:, 0] < rows)
    assert (np.sum(goes_north, 0) == 1).all(), "one action goes north"
    assert len(set(np.argmax(goes_north, 0).tolist())) == 5, "and it is another one in other episodes"


@pytest.mark.parametrize("permute", [False, True])
def test_the_mask_forbids_moves_into_walls_and_nothing_else(permute: bool) -> None:
    env = MazeRunner(32, size=7, num_goals=1, episode_length=10**6, permute_actions=permute, mask_walls=True)
    free = MazeRunner(32, size=7, num_goals=1, episode_length=10**6, permute_actions=permute)
    assert env.spec.has_action_mask
    assert free.reset(np.arange(32), np.arange(32)).action_mask is None
    rng = np.random.default_rng(0)
    seen = env.reset(np.arange(32), np.arange(32))
    for _ in range(50):
        mask, here = seen.action_mask, seen.achieved_values
        assert mask is not None
        assert here is not None
        mask, here = mask.copy(), here.copy()
        tried = [copy.deepcopy(env).step(np.full(32, action)).observations.achieved_values for action in range(5)]
        moves = (np.stack(tried, 1) != here[:, None]).any(-1)
        assert (mask[moves]).all(), "every real move is allowed"
        assert ((mask & ~moves).sum(1) == 1).all(), "and staying"
        seen = env.step(np.where(mask, rng.random(mask.shape), -1).argmax(1)).observations


@pytest.mark.parametrize(
    ("settings", "said"), [({"size": 10}, "odd"), ({"size": 5}, "at least 7"), ({"num_goals": 0}, "num_goals")]
)
def test_bad_settings_say_what_was_expected(settings: dict[str, int], said: str) -> None:
    with pytest.raises(EnvError) as error:
        MazeRunner(1, **settings)
    assert said in one_line(error)


def test_picture_shows_walls_goals_agent_and_trail() -> None:
    env = MazeRunner(1, size=7, num_goals=2)
    env.reset(np.zeros(1, np.int64), np.asarray([3]))
    before = env.render(0)
    env.step(np.asarray([1]))
    after = env.render(0)
    assert before.shape == after.shape == (350, 350, 3)
    assert before.dtype == np.uint8
    cell = 50
    assert (before[5, 5] == before[2, 2]).all()
    assert not np.array_equal(before[5 * cell : 6 * cell], after[5 * cell : 6 * cell]), "the agent left a trail"
    assert np.array_equal(before[:cell], after[:cell])
