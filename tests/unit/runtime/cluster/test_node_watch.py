"""Asking for draining nodes again and again, whatever the answers are."""

from __future__ import annotations

import threading
from collections.abc import Collection

from amago_ray.runtime.cluster.node_watch import NodeWatch


def test_the_newest_answer_is_known_and_a_failure_changes_nothing() -> None:
    answers: list[Collection[str]] = [["a"], [], ["b"]]
    asked = threading.Event()

    def ask() -> Collection[str]:
        if not answers:
            asked.set()
            raise ConnectionError("nobody answers")
        return answers.pop(0)

    watch = NodeWatch(ask, interval_s=0.001)
    assert list(watch.draining) == []
    watch.start()
    assert asked.wait(60)
    watch.close()
    assert list(watch.draining) == ["b"]


def test_one_that_was_never_started_can_be_closed() -> None:
    NodeWatch(list).close()
