import pytest
from measuring.summary import Summary, advantage, summarize


def test_median_and_ends():
    assert summarize([3.0, 1.0, 2.0, 10.0]) == Summary(median=2.5, low=1.0, high=10.0, count=4)
    assert summarize([4.0, 2.0, 3.0]).spread == pytest.approx(2 / 3)


def test_nothing_measured_is_no_summary():
    assert summarize([]) is None
    assert advantage([1.0], [], more_is_better=True) is None


def test_ratios_are_taken_between_neighbours_in_time():
    # The second repetition saw a loaded machine on both sides.
    assert advantage([20.0, 10.0], [2.0, 1.0], more_is_better=True) == Summary(10.0, 10.0, 10.0, 2)


def test_for_times_less_is_better():
    assert advantage([100.0, 200.0, 300.0], [300.0, 600.0], more_is_better=False) == Summary(3.0, 3.0, 3.0, 2)
