"""Credit of learners that train together: who has none is owed it once another got it."""

from __future__ import annotations

import pytest

from amago_ray.config.replay import ReplayConfig
from amago_ray.runtime.control.credit import Credit
from amago_ray.runtime.protocol.messages import BatchNumber, Received
from amago_ray.training.governor import Governor


def governor_with(inserted: int, **settings: float) -> Governor:
    governor = Governor(ReplayConfig(**{"samples_per_insert": 1, "min_timesteps": 1, **settings}))
    governor.report_shard(0, 0, 0, 0)
    governor.report_shard(0, 0, inserted, inserted)
    return governor


def test_one_learner_gets_what_the_governor_has() -> None:
    credit = Credit(governor_with(250))
    assert credit.reserve(None, 2, 100) == 2
    assert credit.reserve(None, 5, 100) == 1
    assert not credit.is_there(None)
    assert credit.reserve(None, 1, 100) == 0


def test_what_one_got_the_others_get_too_and_no_more() -> None:
    credit = Credit(governor_with(150))
    assert credit.reserve(BatchNumber(1, 0), 3, 100) == 2, "the governor's credit"
    for other in ("second", "third"):
        assert credit.is_there(BatchNumber(1, 0)), other
        assert credit.reserve(BatchNumber(1, 0), 3, 100) == 2, other
        assert not credit.is_there(BatchNumber(1, 2)), other
    assert credit.reserve(BatchNumber(1, 2), 1, 100) == 0


def test_what_is_owed_counts_against_later_credit() -> None:
    governor = governor_with(100)
    credit = Credit(governor)
    assert credit.reserve(BatchNumber(1, 0), 1, 100) == 1
    assert credit.reserve(BatchNumber(1, 0), 1, 100) == 1
    governor.confirm(200, 200)
    governor.report_shard(0, 0, 200, 200)
    assert not credit.is_there(BatchNumber(1, 1)), "both batches were trained"
    governor.report_shard(0, 0, 201, 201)
    assert credit.is_there(BatchNumber(1, 1))


def test_learners_that_were_started_again_owe_nothing_to_those_before() -> None:
    governor = governor_with(100)
    credit = Credit(governor)
    assert credit.reserve(BatchNumber(1, 7), 1, 100) == 1
    assert not credit.is_there(BatchNumber(2, 0)), "no credit, and nobody of this incarnation has any"
    governor.report_shard(0, 0, 300, 300)
    assert credit.reserve(BatchNumber(2, 0), 1, 100) == 1
    assert not credit.is_there(BatchNumber(1, 0))
    assert credit.reserve(BatchNumber(1, 0), 1, 100) == 0, "one of the former ones that lives on"


@pytest.mark.parametrize("greedy", [0, 1])
def test_learners_that_prefetch_and_runners_that_pause_never_wait_for_each_other(greedy: int) -> None:
    """One learner always asks first and for many; batches are far larger than what runners insert at a time."""
    governor = governor_with(10, samples_per_insert_tolerance=0.0)
    credit, prefetch, batch = Credit(governor), 3, 1000
    inserted, outstanding, asked, updates = 10, [0, 0], [0, 0], 0
    for _ in range(20_000):
        if governor.may_act():
            inserted += 10
            governor.report_shard(0, 0, inserted, inserted)
        for rank in (greedy, 1 - greedy):
            got = credit.reserve(BatchNumber(0, asked[rank]), prefetch - outstanding[rank], batch)
            outstanding[rank] += got
            asked[rank] += got
        if all(outstanding):
            # Both have a batch: an update.
            for rank in (0, 1):
                outstanding[rank] -= 1
                governor.confirm(batch, batch)
            updates += 1
        trained = 2 * batch * updates
        assert trained <= inserted + 2 * batch
    assert updates > 20
    assert trained >= inserted - 2 * batch - 20


def ask(credit: Credit, received: Received) -> int:
    """A learner asks for one batch of 100 transitions; how many it gets if the answer reaches it."""
    credit.settle(received)
    taken = credit.reserve(None, 1, 100)
    credit.give(received, taken * 100)
    return taken


def test_credit_whose_answer_is_lost_is_given_again() -> None:
    credit = Credit(governor_with(200))
    assert ask(credit, Received(0, 1, 0)) == 1, "lost"
    assert ask(credit, Received(0, 1, 0)) == 1
    assert ask(credit, Received(0, 1, 100)) == 1, "lost, too"
    assert ask(credit, Received(0, 1, 100)) == 1
    assert ask(credit, Received(0, 1, 200)) == 0, "200 are in use"


def test_a_call_that_comes_late_takes_back_nothing_that_the_learner_holds() -> None:
    credit = Credit(governor_with(200))
    assert ask(credit, Received(0, 1, 0)) == 1
    assert ask(credit, Received(0, 1, 100)) == 1
    assert ask(credit, Received(0, 1, 200)) == 0
    assert ask(credit, Received(0, 1, 0)) == 0, "sent again by Ray"
    assert ask(credit, Received(0, 1, 200)) == 0


def test_answers_that_cross_each_other_take_no_credit_with_them() -> None:
    credit = Credit(governor_with(300))
    first = Received(0, 1, 0)
    # Asked again before the first call was served; both are served then, and one of the answers arrives.
    for _ in range(2):
        credit.settle(first)
    for _ in range(2):
        credit.give(first, 100 * credit.reserve(None, 1, 100))
    assert ask(credit, Received(0, 1, 100)) == 1
    assert ask(credit, Received(0, 1, 200)) == 1
    assert ask(credit, Received(0, 1, 300)) == 0


def test_a_former_learner_takes_nothing_back_from_its_successor() -> None:
    credit = Credit(governor_with(200))
    assert ask(credit, Received(0, 2, 0)) == 1
    credit.settle(Received(0, 1, 0))
    assert ask(credit, Received(0, 2, 100)) == 1
    assert ask(credit, Received(0, 2, 200)) == 0
