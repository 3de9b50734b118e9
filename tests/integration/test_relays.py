"""Env runners beat through the relay of their node, and without it where it is dead or hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from helpers.small_run import SMALL
from helpers.watched_run import WatchedRun

from amago_ray.config.load import load_config
from amago_ray.runtime.control.control_actor import ControlActor
from amago_ray.runtime.processes.control_link import ControlLink
from amago_ray.runtime.processes.relay_actor import RelayActor
from amago_ray.runtime.protocol.actors import get, start_actor, this_node
from amago_ray.runtime.protocol.ledger import LedgerState
from amago_ray.runtime.protocol.messages import NO_VERSION, ControlState, RunnerBeat, RunnerOrders
from amago_ray.runtime.protocol.runner_ledger import RunnerTotals

pytestmark = pytest.mark.timeout(180)


class Runners:
    """Two env runners' links, driven by hand."""

    def __init__(self, control: Any, relay_timeout_s: float = 60.0) -> None:
        self.links = [ControlLink(control, relay_timeout_s=relay_timeout_s) for _ in range(2)]
        self.env_steps = 0
        self.node = this_node()

    def beat(self) -> list[RunnerOrders]:
        """Both beat with ten more env steps until they have new orders."""
        self.env_steps += 10
        return [self._orders(number, link) for number, link in enumerate(self.links)]

    def _orders(self, number: int, link: ControlLink) -> RunnerOrders:
        beat = RunnerBeat(number, 1, NO_VERSION, RunnerTotals(env_steps=self.env_steps), node=self.node)
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s:
            if link.is_due(0.0):
                link.beat(beat)
            link.rest(0.0)
            if (orders := link.orders()) is not None:
                return orders
        raise TimeoutError


@pytest.fixture
def control(embedded_ray: None) -> Iterator[Any]:
    """A control actor of a run whose nodes need relays, and the end of what a test started."""
    handle = start_actor(ControlActor, load_config("quickstart", ["cluster.relays_above=0"]), num_cpus=0)
    get(handle.fill.remote(ControlState(LedgerState())), 60)
    yield handle
    ray.kill(handle)


@pytest.fixture
def start_relay(control: Any) -> Iterator[Callable[[], Any]]:
    """Starts relays of this node, and makes them known."""
    relays = []

    def start() -> Any:
        relays.append(start_actor(RelayActor, this_node(), control, num_cpus=0, max_concurrency=100))
        get(control.add_relay.remote(this_node(), relays[-1:]), 60)
        return relays[-1]

    yield start
    for relay in relays:
        ray.kill(relay)


def env_steps(control: Any) -> int:
    steps: int = get(control.collect.remote(), 60).env_steps
    return steps


def test_a_crowded_node_is_told_of_and_its_runners_beat_through_the_relay_that_it_gets(
    control: Any, start_relay: Callable[[], Any]
) -> None:
    runners = Runners(control)
    assert [list(orders.relay) for orders in runners.beat()] == [[], []]
    assert list(get(control.collect.remote(), 60).crowded) == [this_node()]
    start_relay()
    assert [len(orders.relay) for orders in runners.beat()] == [1, 1], "named by the control actor"
    assert [list(orders.relay) for orders in runners.beat()] == [[], []], "answered by the relay"
    report = get(control.collect.remote(), 60)
    assert report.env_steps == 60
    assert list(report.crowded) == []


def test_runners_of_a_dead_relay_beat_control_and_then_its_successor(
    control: Any, start_relay: Callable[[], Any]
) -> None:
    runners = Runners(control)
    relay = start_relay()
    runners.beat()
    runners.beat()
    ray.kill(relay)
    assert [len(orders.relay) for orders in runners.beat()] == [1, 1], "from control, which does not know it yet"
    assert env_steps(control) == 60
    start_relay()
    runners.beat()
    assert [list(orders.relay) for orders in runners.beat()] == [[], []], "answered by the relay"
    assert env_steps(control) == 100


class Silent:
    """Stands where a relay that hangs does: it never answers."""

    def beat_runner(self, beat: RunnerBeat) -> None:
        """Wait for ever."""
        time.sleep(600)


def test_runners_of_a_relay_that_hangs_beat_control_after_a_while(control: Any) -> None:
    runners = Runners(control, relay_timeout_s=0.5)
    silent = start_actor(Silent, num_cpus=0)
    get(control.add_relay.remote(this_node(), [silent]), 60)
    runners.beat()
    assert [orders.stop for orders in runners.beat()] == [False, False]
    assert env_steps(control) == 40
    ray.kill(silent)


class Forgetful:
    """Stands where a control actor does whose first answer is lost on its way."""

    def __init__(self) -> None:
        self._num_beats = 0

    async def beat_runner(self, beat: RunnerBeat) -> RunnerOrders:
        """Answer all but the first."""
        self._num_beats += 1
        if self._num_beats == 1:
            await asyncio.Event().wait()
        return RunnerOrders(stop=False, may_act=True, global_env_steps=self._num_beats, beat_in_s=0.0)


def test_a_beat_whose_answer_is_lost_is_sent_again(embedded_ray: None) -> None:
    forgetful = start_actor(Forgetful, num_cpus=0)
    link = ControlLink(forgetful, control_timeout_s=0.5)
    link.finish(RunnerBeat(0, 1, NO_VERSION, RunnerTotals()))
    assert link.is_due(0.0), "answered"
    ray.kill(forgetful)


def test_the_last_beat_reaches_control_whatever_the_relay_does(control: Any) -> None:
    runners = Runners(control, relay_timeout_s=0.5)
    silent = start_actor(Silent, num_cpus=0)
    get(control.add_relay.remote(this_node(), [silent]), 60)
    runners.beat()
    runners.links[0].finish(RunnerBeat(0, 1, NO_VERSION, RunnerTotals(env_steps=500), node=this_node()))
    assert env_steps(control) == 510
    ray.kill(silent)


def test_a_run_whose_relay_is_killed_goes_on_and_gets_another_one(tmp_path: Path) -> None:
    settings = ["cluster.relays_above=0", "rollout.num_env_runners=2", "replay.samples_per_insert=2"]
    run = WatchedRun(tmp_path, [*SMALL, *settings, "stop.env_steps=100000000"], name="relayed")
    try:
        run.start()
        run.wait_until(lambda: run.actors("RelayActor"))
        run.grows("env_steps", "learner_steps")
        killed = run.kill("RelayActor")
        run.grows("env_steps", "learner_steps")
        run.wait_for_warning("the relay of node .* is silent and is replaced")
        run.wait_until_replaced(killed)
        run.grows("env_steps", "learner_steps")
        assert run.last["runtime/restarts/relay"] == 1
        run.stop()
    finally:
        run.end()
