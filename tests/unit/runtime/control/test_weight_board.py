from __future__ import annotations

import numpy as np

from amago_ray.data.episode import PolicyVersion
from amago_ray.runtime.control.weight_board import WeightBoard


def seen(board: WeightBoard, runner: int, version: tuple[int, int], now_s: float) -> list[str]:
    """The warnings when one runner is seen."""
    return list(board.seen(np.array([runner]), np.array([version]), now_s))


def test_the_highest_version_stays_whatever_comes_after() -> None:
    board = WeightBoard(stuck_after_s=60)
    assert board.newest() == []
    board.put(PolicyVersion(1, 500), "a")
    board.put(PolicyVersion(2, 100), "b")
    board.put(PolicyVersion(1, 510), "late")
    board.put(PolicyVersion(2, 100), "again")
    assert board.newest() == ["b"]
    versions = np.array([(1, 500), (1, 50), (2, 100), (2, 99), (3, 0), (-1, -1)])
    assert board.is_older(versions).tolist() == [True, True, False, True, False, True]


def test_a_runner_that_takes_no_new_weights_is_stuck() -> None:
    board = WeightBoard(stuck_after_s=10)
    board.put(PolicyVersion(1, 5), "a")
    assert seen(board, 3, (1, 5), now_s=0) == []
    board.put(PolicyVersion(1, 50), "b")
    assert seen(board, 3, (1, 5), now_s=10) == []
    warning = "env runner 3: still acts with weights of learner step 5, the newest are of 50"
    assert seen(board, 3, (1, 5), now_s=11) == [warning]
    assert seen(board, 3, (1, 5), now_s=12) == [], "said once in a while"
    assert seen(board, 3, (1, 5), now_s=22) == [warning]
    assert seen(board, 3, (1, 50), now_s=23) == []


def test_many_that_are_stuck_at_once_are_told_in_one_line() -> None:
    board = WeightBoard(stuck_after_s=10)
    board.put(PolicyVersion(1, 50), "a")
    runners, versions = np.arange(1000), np.tile([1, 5], (1000, 1))
    versions[7] = 1, 3
    assert list(board.seen(runners, versions, 0)) == []
    assert list(board.seen(runners, versions, 11)) == [
        "1000 env runners (0, 1, 2, ...): still act with weights of learner step 3 and later, the newest are of 50"
    ]


def test_a_runner_with_the_newest_weights_is_never_stuck() -> None:
    board = WeightBoard(stuck_after_s=10)
    board.put(PolicyVersion(1, 5), "a")
    assert [seen(board, 0, (1, 5), now_s) for now_s in (0, 100, 200)] == [[]] * 3


def test_lag_is_about_runners_with_weights_of_the_newest_learner() -> None:
    board = WeightBoard(stuck_after_s=10)
    assert board.largest_lag() is None
    board.put(PolicyVersion(2, 50), "a")
    seen(board, 0, (1, 5), 0)
    assert board.largest_lag() is None
    seen(board, 1, (2, 20), 0)
    seen(board, 2, (2, 40), 0)
    assert board.largest_lag() == 30
    board.gone(1)
    assert board.largest_lag() == 10
