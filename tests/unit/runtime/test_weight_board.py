from __future__ import annotations

from amago_ray.data.episode import PolicyVersion
from amago_ray.runtime.weight_board import WeightBoard


def test_the_highest_version_stays_whatever_comes_after() -> None:
    board = WeightBoard(stuck_after_s=60)
    assert board.newer_than(PolicyVersion(-1, -1)) == []
    board.put(PolicyVersion(1, 500), "a")
    board.put(PolicyVersion(2, 100), "b")
    board.put(PolicyVersion(1, 510), "late")
    board.put(PolicyVersion(2, 100), "again")
    assert board.newer_than(PolicyVersion(1, 500)) == ["b"]
    assert board.newer_than(PolicyVersion(2, 100)) == []


def test_a_runner_that_takes_no_new_weights_is_stuck() -> None:
    board = WeightBoard(stuck_after_s=10)
    board.put(PolicyVersion(1, 5), "a")
    assert board.seen(3, PolicyVersion(1, 5), now_s=0) is None
    board.put(PolicyVersion(1, 50), "b")
    assert board.seen(3, PolicyVersion(1, 5), now_s=10) is None
    warning = board.seen(3, PolicyVersion(1, 5), now_s=11)
    assert warning == "env runner 3: still acts with weights of learner step 5, the newest are of 50"
    assert board.seen(3, PolicyVersion(1, 5), now_s=12) is None, "said once in a while"
    assert board.seen(3, PolicyVersion(1, 5), now_s=22) is not None
    assert board.seen(3, PolicyVersion(1, 50), now_s=23) is None


def test_a_runner_with_the_newest_weights_is_never_stuck() -> None:
    board = WeightBoard(stuck_after_s=10)
    board.put(PolicyVersion(1, 5), "a")
    assert [board.seen(0, PolicyVersion(1, 5), now_s) for now_s in (0, 100, 200)] == [None] * 3


def test_lag_is_about_runners_with_weights_of_the_newest_learner() -> None:
    board = WeightBoard(stuck_after_s=10)
    assert board.largest_lag() is None
    board.put(PolicyVersion(2, 50), "a")
    board.seen(0, PolicyVersion(1, 5), 0)
    assert board.largest_lag() is None
    board.seen(1, PolicyVersion(2, 20), 0)
    board.seen(2, PolicyVersion(2, 40), 0)
    assert board.largest_lag() == 30
    assert board.num_runners == 3
