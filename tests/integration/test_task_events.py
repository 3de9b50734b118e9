"""Ray keeps no event of every call: there are many, and its control store would grow with them."""

from __future__ import annotations

import time

import pytest
import ray

from amago_ray.runtime.protocol.actors import get, start_actor

pytestmark = pytest.mark.timeout(120)


class Quiet:
    def answer(self) -> int:
        return 1


class Loud(Quiet):
    pass


def test_calls_leave_no_event_unless_they_are_asked_for(embedded_ray: None) -> None:
    actors = [start_actor(Quiet, num_cpus=0), start_actor(Loud, enable_task_events=True, num_cpus=0)]
    get([actor.answer.remote() for actor in actors for _ in range(5)], 60)
    calls: set[str] = set()
    deadline_s = time.monotonic() + 60
    # Events reach the control store in the order of the calls, now and then.
    while "Loud.answer" not in calls and time.monotonic() < deadline_s:
        time.sleep(0.1)
        calls = {event["cat"].removeprefix("task::") for event in ray.timeline()}
    assert "Loud.answer" in calls
    assert "Quiet.answer" not in calls
    for actor in actors:
        ray.kill(actor)
