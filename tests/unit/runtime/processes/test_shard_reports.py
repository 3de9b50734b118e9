"""A shard's counts reach the control actor: the newest always, all of them seldom."""

from __future__ import annotations

import dataclasses
import threading

from amago_ray.replay.reports import ShardReport
from amago_ray.runtime.processes.shard_reports import ShardReports
from amago_ray.runtime.protocol.messages import ShardBeat

ZEROS = {field.name: 0 for field in dataclasses.fields(ShardReport)}


def beat(inserted: int) -> ShardBeat:
    return ShardBeat(0, 1, ShardReport(**{**ZEROS, "inserted_transitions": inserted}))


def test_counts_that_change_while_a_message_is_under_way_are_one_message_and_the_last_ones_arrive() -> None:
    sent, slept = [], []
    arrives, is_last = threading.Semaphore(0), threading.Event()

    def send(beat: ShardBeat) -> float:
        sent.append(beat.report.inserted_transitions)
        if sent[-1] == 100:
            is_last.set()
        assert arrives.acquire(timeout=60)
        return 0.25

    reports = ShardReports(send, sleep=slept.append)
    reports.put(beat(1))
    while not sent:
        threading.Event().wait(0.001)
    for inserted in range(2, 101):
        reports.put(beat(inserted))
    arrives.release()
    assert is_last.wait(60)
    assert sent == [1, 100]
    assert slept == [0.25]
    arrives.release()


def test_a_message_that_may_be_lost_is_sent_again_unless_there_is_a_newer_one() -> None:
    sent: list[int] = []
    has_arrived = threading.Event()

    def send(beat: ShardBeat) -> float | None:
        sent.append(beat.report.inserted_transitions)
        if len(sent) < 3:
            return None
        has_arrived.set()
        return 0.0

    ShardReports(send, sleep=lambda seconds: None).put(beat(7))
    assert has_arrived.wait(60)
    assert sent == [7, 7, 7]
