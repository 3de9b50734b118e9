"""Totals of env runners in columns: whatever happens to messages and processes, they are right and never fall."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from amago_ray.runtime.protocol.runner_ledger import News, RunnerLedger, RunnerTotals


def report(ledger: RunnerLedger, *reports: tuple[int, int, int]) -> News:
    """Reports of different runners: number, incarnation, env steps."""
    numbers, incarnations, env_steps = np.array(reports, np.int64).reshape(-1, 3).T
    totals = np.array([RunnerTotals(env_steps=int(each)) for each in env_steps], np.float64)
    return ledger.report(numbers, incarnations, totals.reshape(-1, len(RunnerTotals._fields)))


def new_steps(news: News) -> list[int]:
    return news.new[:, 0].astype(int).tolist()


def env_steps(ledger: RunnerLedger) -> int:
    return int(ledger.sums()["env_steps"])


def test_what_is_new_of_each_report_is_told_once() -> None:
    ledger = RunnerLedger({"env_steps": 1000})
    assert new_steps(report(ledger, (0, 1, 50), (5, 1, 7))) == [50, 7]
    assert new_steps(report(ledger, (5, 1, 9), (0, 1, 50), (2, 1, 1))) == [2, 0, 1]
    assert new_steps(report(ledger, (0, 1, 40))) == [0], "a late one"
    assert env_steps(ledger) == 1060
    assert ledger.num_runners == 3


def test_a_higher_incarnation_takes_the_place_and_late_reports_of_the_former_are_ignored() -> None:
    ledger = RunnerLedger({})
    assert report(ledger, (0, 1, 50)).is_another.tolist() == [True]
    assert report(ledger, (0, 1, 60)).is_another.tolist() == [False]
    assert report(ledger, (0, 2, 5)).is_another.tolist() == [True]
    late = report(ledger, (0, 1, 80))
    assert late.is_late.tolist() == [True]
    assert new_steps(late) == [0]
    assert env_steps(ledger) == 65
    assert ledger.num_runners == 1


def test_who_has_left_is_forgotten_but_not_what_it_did() -> None:
    ledger = RunnerLedger({})
    report(ledger, (0, 1, 50), (1, 2, 7))
    assert ledger.gone(0, 1)
    assert ledger.num_runners == 1
    assert report(ledger, (0, 1, 90)).is_late.tolist() == [True], "a late beat of who has left"
    assert env_steps(ledger) == 57
    assert report(ledger, (0, 2, 3)).is_another.tolist() == [True], "the next incarnation, be it the very next number"
    assert env_steps(ledger) == 60
    assert not ledger.gone(0, 1), "news of a death that comes after the next one's beat"
    assert ledger.num_runners == 2
    assert ledger.gone(7, 3), "one that died before it ever spoke"
    assert ledger.num_runners == 2


Message = st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 30), st.sampled_from(["beat"] * 4 + ["gone"]))


@given(st.lists(Message, max_size=40), st.integers(0, 40))
def test_lost_repeated_late_and_reordered_messages_and_a_new_ledger_do_no_harm(
    messages: list[tuple[int, int, int, str]], restart_at: int
) -> None:
    """Each sum is the most that every incarnation said while it was its runner's newest, and never falls."""
    ledger, newest, most, last = RunnerLedger({"env_steps": 10}), dict[int, int](), dict[tuple[int, int], int](), 10
    for index, (number, incarnation, steps, kind) in enumerate(messages):
        if index == restart_at:
            ledger = RunnerLedger({}, ledger.state())
        if kind == "gone":
            is_newest = incarnation >= newest.get(number, 0)
            assert ledger.gone(number, incarnation) == is_newest
            if is_newest:
                newest[number] = incarnation + 1
        else:
            is_late = incarnation < newest.get(number, 0)
            assert report(ledger, (number, incarnation, steps)).is_late.tolist() == [is_late]
            if not is_late:
                newest[number] = incarnation
                most[number, incarnation] = max(most.get((number, incarnation), 0), steps)
        assert env_steps(ledger) == 10 + sum(most.values()) >= last
        last = env_steps(ledger)
