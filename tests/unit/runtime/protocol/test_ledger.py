"""Totals of the run: whatever happens to messages and processes, they are right and never fall."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from amago_ray.data.episode import PolicyVersion
from amago_ray.runtime.protocol.ledger import Ledger, LedgerState, Reporter
from amago_ray.runtime.protocol.runner_ledger import RunnerTotals

SHARD = Reporter("replay_shard", 0, 1)


def test_what_is_new_of_a_report_is_told_once() -> None:
    ledger = Ledger(LedgerState())
    assert ledger.report(SHARD, {"inserted": 50, "episodes": 2}) == {"inserted": 50, "episodes": 2}
    assert ledger.report(SHARD, {"inserted": 50, "episodes": 2}) == {}
    assert ledger.report(SHARD, {"inserted": 70, "episodes": 2}) == {"inserted": 20}
    assert ledger.report(SHARD, {"inserted": 60, "episodes": 1}) == {}, "a late one"
    assert ledger.total("replay_shard", "inserted") == 70


def test_sums_go_over_processes_dead_ones_and_earlier_sessions() -> None:
    ledger = Ledger(LedgerState({"replay_shard": {"inserted": 1000}}))
    ledger.report(SHARD, {"inserted": 50})
    ledger.report(SHARD._replace(incarnation=2), {"inserted": 5})
    ledger.report(SHARD._replace(number=1), {"inserted": 7})
    ledger.report(Reporter("learner", 0, 1), {"updates": 3})
    assert ledger.total("replay_shard", "inserted") == 1062
    assert ledger.total("learner", "updates") == 3
    assert ledger.total("learner", "inserted") == 0


Reports = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 2), st.integers(0, 30)), max_size=30)


@given(Reports, Reports)
def test_lost_repeated_late_messages_and_a_new_ledger_do_no_harm(before: list[tuple], after: list[tuple]) -> None:
    """After any messages the sums are the most that each process has said, and so they are in a ledger filled again."""
    ledger, most, last, newest = Ledger(LedgerState({"replay_shard": {"inserted": 10}})), {}, 10, {}
    for reports in (before, after):
        for number, incarnation, inserted in reports:
            reporter = Reporter("replay_shard", number, incarnation)
            newest[number] = max(newest.get(number, 0), incarnation)
            if incarnation == newest[number]:
                most[reporter] = max(most.get(reporter, 0), inserted)
            ledger.report(reporter, {"inserted": inserted})
            total = ledger.total("replay_shard", "inserted")
            assert total == 10 + sum(most.values())
            assert total >= last
            last = total
        ledger = Ledger(ledger.state())
        assert ledger.total("replay_shard", "inserted") == last


def test_a_ledger_filled_with_old_counts_catches_up_with_the_next_report() -> None:
    ledger = Ledger(LedgerState())
    ledger.report(SHARD, {"inserted": 50})
    state = ledger.state()
    ledger.report(SHARD, {"inserted": 80})
    successor = Ledger(state)
    assert successor.total("replay_shard", "inserted") == 50
    assert successor.report(SHARD, {"inserted": 90}) == {"inserted": 40}


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


def test_what_is_remembered_grows_with_places_and_not_with_processes() -> None:
    ledger = Ledger(LedgerState())
    for incarnation in range(100):
        ledger.report(SHARD._replace(incarnation=incarnation), {"inserted": 2})
    assert len(ledger.state().reported) == 1
    assert ledger.total("replay_shard", "inserted") == 200
    assert ledger.report(SHARD._replace(incarnation=98), {"inserted": 50}) == {}, "another has its place"
    assert Ledger(ledger.state()).total("replay_shard", "inserted") == 200


def test_a_later_session_counts_on_from_the_totals_of_every_role() -> None:
    first = Ledger(LedgerState({"env_runner": {"env_steps": 100}}))
    first.runners.report(np.array([0]), np.array([7]), np.array([RunnerTotals(env_steps=50, stored_episodes=3)]))
    first.report(SHARD, {"torn_bytes": 12})
    saved = json.loads(json.dumps(first.totals()))
    later = Ledger(LedgerState(saved))
    assert later.total("env_runner", "env_steps") == 150
    assert later.total("env_runner", "stored_episodes") == 3
    assert later.total("replay_shard", "torn_bytes") == 12
    later.report(SHARD._replace(incarnation=9), {"torn_bytes": 1})
    assert later.total("replay_shard", "torn_bytes") == 13
    assert first.totals()["replay_shard"] == {"torn_bytes": 12}
