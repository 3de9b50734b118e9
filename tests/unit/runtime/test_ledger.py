"""Totals of the run: whatever happens to messages and processes, they are right and never fall."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amago_ray.data.episode import PolicyVersion
from amago_ray.runtime.ledger import Ledger, LedgerState, Reporter

RUNNER = Reporter("env_runner", 0, 1)


def test_what_is_new_of_a_report_is_told_once() -> None:
    ledger = Ledger(LedgerState())
    assert ledger.report(RUNNER, {"env_steps": 50, "episodes": 2}) == {"env_steps": 50, "episodes": 2}
    assert ledger.report(RUNNER, {"env_steps": 50, "episodes": 2}) == {}
    assert ledger.report(RUNNER, {"env_steps": 70, "episodes": 2}) == {"env_steps": 20}
    assert ledger.report(RUNNER, {"env_steps": 60, "episodes": 1}) == {}, "a late one"
    assert ledger.total("env_runner", "env_steps") == 70


def test_sums_go_over_processes_dead_ones_and_earlier_sessions() -> None:
    ledger = Ledger(LedgerState({"env_runner": {"env_steps": 1000}}))
    ledger.report(RUNNER, {"env_steps": 50})
    ledger.report(RUNNER._replace(incarnation=2), {"env_steps": 5})
    ledger.report(RUNNER._replace(number=1), {"env_steps": 7})
    ledger.report(Reporter("learner", 0, 1), {"updates": 3})
    assert ledger.total("env_runner", "env_steps") == 1062
    assert ledger.total("learner", "updates") == 3
    assert ledger.total("learner", "env_steps") == 0


Reports = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(0, 30)), max_size=30)


@given(Reports, Reports)
def test_lost_repeated_late_messages_and_a_new_ledger_do_no_harm(before: list[tuple], after: list[tuple]) -> None:
    """After any messages the sums are the most that each process has said, and so they are in a ledger filled again."""
    ledger, most, last = Ledger(LedgerState({"env_runner": {"env_steps": 10}})), {}, 10
    for reports in (before, after):
        for number, incarnation, env_steps in reports:
            reporter = Reporter("env_runner", number, incarnation)
            most[reporter] = max(most.get(reporter, 0), env_steps)
            ledger.report(reporter, {"env_steps": env_steps})
            total = ledger.total("env_runner", "env_steps")
            assert total == 10 + sum(most.values())
            assert total >= last
            last = total
        ledger = Ledger(ledger.state())
        assert ledger.total("env_runner", "env_steps") == last


def test_a_ledger_filled_with_old_counts_catches_up_with_the_next_report() -> None:
    ledger = Ledger(LedgerState())
    ledger.report(RUNNER, {"env_steps": 50})
    state = ledger.state()
    ledger.report(RUNNER, {"env_steps": 80})
    successor = Ledger(state)
    assert successor.total("env_runner", "env_steps") == 50
    assert successor.report(RUNNER, {"env_steps": 90}) == {"env_steps": 40}


def test_a_learner_that_starts_again_counts_on_from_its_checkpoint() -> None:
    ledger = Ledger(LedgerState(learner=PolicyVersion(-1, 20)))
    assert ledger.learner_steps == 20, "of the checkpoint that the run goes on from"
    assert not ledger.take_learner(PolicyVersion(5, 20)), "the first one takes no other's place"
    assert not ledger.take_learner(PolicyVersion(5, 50))
    assert ledger.take_learner(PolicyVersion(6, 30))
    assert ledger.learner_steps == 30
    assert not ledger.take_learner(PolicyVersion(5, 51)), "a late message of the dead one"
    assert ledger.learner_steps == 30
    assert Ledger(ledger.state()).learner_steps == 30
