"""A relay's plain class: what it sends together, and what each sender gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from amago_ray.config.load import load_config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.snapshot import Snapshot
from amago_ray.runtime.control.control_actor import ControlActor
from amago_ray.runtime.processes.relay import Relay
from amago_ray.runtime.protocol.ledger import LedgerState
from amago_ray.runtime.protocol.messages import (
    NO_VERSION,
    ControlState,
    NotYet,
    OrdersOfRunners,
    RunnerBeat,
    RunnerBeats,
)
from amago_ray.runtime.protocol.runner_ledger import RunnerTotals

Scene = Callable[[], Coroutine[Any, Any, None]]


def beat(runner: int, env_steps: int = 0, *, incarnation: int = 1, **changes: Any) -> RunnerBeat:
    episodes = changes.get("episodes", ())
    totals = RunnerTotals(env_steps=env_steps, episodes=len(episodes))
    version = changes.pop("version", NO_VERSION)
    return RunnerBeat(runner, incarnation, version, totals, **changes)


class Control:
    """A control actor without Ray, and what it was sent."""

    def __init__(self, *overrides: str) -> None:
        settings = ["replay.samples_per_insert=2", "rollout.num_envs_per_env_runner=10", *overrides]
        self.actor = ControlActor(
            load_config("quickstart", settings), put=lambda value: value, publish=lambda metrics: None
        )
        self.messages: list[RunnerBeats] = []
        self.hangs = False

    async def fill(self) -> None:
        await self.actor.fill(ControlState(LedgerState()))

    async def send(self, beats: RunnerBeats) -> OrdersOfRunners | NotYet:
        self.messages.append(beats)
        if self.hangs:
            await asyncio.sleep(60)
        return await self.actor.beat_runners(beats)

    async def env_steps(self) -> int:
        report = await self.actor.collect()
        assert report is not None
        return report.env_steps


async def fetch(reference: Any) -> Any:
    return reference


def relay_to(control: Control) -> Relay:
    return Relay("node", control.send, fetch, longest_wait_s=0.05)


def test_beats_of_a_while_are_one_message_and_each_sender_gets_its_own_orders() -> None:
    async def scene() -> None:
        control = Control("stop.env_steps=100")
        await control.fill()
        relay = relay_to(control)
        first = await relay.beat(beat(0, 10))
        assert first.allowed_env_steps == 10 + 45
        answers = await asyncio.gather(*(relay.beat(beat(runner, 1)) for runner in range(1, 5)))
        assert [len(message.runners) for message in control.messages] == [1, 4]
        assert [answer.global_env_steps for answer in answers] == [14] * 4
        assert [answer.allowed_env_steps for answer in answers] == [11] * 4
        assert all(answer.may_act for answer in answers)

    asyncio.run(scene())


def test_an_incarnation_that_is_replaced_is_stopped_and_nobody_else() -> None:
    async def scene() -> None:
        control = Control()
        await control.fill()
        relay = relay_to(control)
        await relay.beat(beat(0, 10, incarnation=2))
        old, other = await asyncio.gather(relay.beat(beat(0, 90, incarnation=1)), relay.beat(beat(1, 5)))
        assert (old.stop, other.stop) == (True, False)
        assert await control.env_steps() == 15

    asyncio.run(scene())


def test_another_relay_takes_the_place_of_one_that_died_and_nothing_is_lost_or_counted_twice() -> None:
    async def scene() -> None:
        control = Control()
        await control.fill()
        stats = [b"stats %d" % number for number in range(3)]
        # The answer never arrives: the relay died with it.
        await relay_to(control).beat(beat(0, 100, episodes=stats[:2]))
        await relay_to(control).beat(beat(0, 150, episodes=stats))
        report = await control.actor.collect()
        assert report is not None
        assert report.env_steps == 150
        assert list(report.episodes) == stats

    asyncio.run(scene())


def test_a_beat_that_comes_again_before_it_was_sent_is_sent_once() -> None:
    async def scene() -> None:
        control = Control()
        await control.fill()
        relay = relay_to(control)
        former, newer = await asyncio.gather(relay.beat(beat(0, 10)), relay.beat(beat(0, 20)))
        assert isinstance(former, NotYet)
        assert not isinstance(newer, NotYet)
        assert [message.totals[:, 0].tolist() for message in control.messages] == [[20]]

    asyncio.run(scene())


def test_who_asks_while_control_is_away_is_told_to_come_again() -> None:
    async def scene() -> None:
        control = Control()
        relay = relay_to(control)
        assert isinstance(await relay.beat(beat(0, 10)), NotYet), "it is there, but not filled"
        control.hangs = True
        assert isinstance(await relay.beat(beat(0, 20)), NotYet)
        control.hangs = False
        await control.fill()
        assert (await relay.beat(beat(0, 30))).global_env_steps == 30

    asyncio.run(scene())


def test_the_end_of_the_control_actor_reaches_the_runners() -> None:
    async def send(beats: RunnerBeats) -> NotYet:
        raise RuntimeError("the actor died")

    async def scene() -> None:
        relay = Relay("node", send, fetch)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="the actor died"):
                await relay.beat(beat(0))

    asyncio.run(scene())


def test_weights_are_fetched_once_for_all_runners_of_the_node() -> None:
    async def scene() -> None:
        control = Control()
        await control.fill()
        fetched: list[PolicyVersion] = []

        async def copied(reference: Snapshot) -> str:
            fetched.append(reference.version)
            await asyncio.sleep(0)
            if len(fetched) == 2:
                raise RuntimeError("the owner died")
            return f"copy of {reference.version.learner_steps}"

        relay = Relay("node", control.send, copied)
        arrays = {"w": np.zeros(2, np.float32)}
        await control.actor.push_weights(Snapshot(PolicyVersion(1, 5), arrays))
        answers = await asyncio.gather(*(relay.beat(beat(runner)) for runner in range(3)))
        assert [list(answer.weights) for answer in answers] == [[]] * 3, "they are on their way"
        version = PolicyVersion(1, 5)
        answers = await asyncio.gather(relay.beat(beat(0)), relay.beat(beat(1, version=version)))
        assert [list(answer.weights) for answer in answers] == [["copy of 5"], []]
        await control.actor.push_weights(Snapshot(PolicyVersion(1, 7), arrays))
        for expected in ([], [], ["copy of 7"]):
            assert list((await relay.beat(beat(0, version=version))).weights) == expected, "lost, and asked for again"
        assert [version.learner_steps for version in fetched] == [5, 7, 7]

    asyncio.run(scene())


def test_one_message_carries_few_statistics_of_many_episodes() -> None:
    async def scene() -> None:
        control = Control()
        await control.fill()
        relay = relay_to(control)
        stats = [b"stats %d" % number for number in range(100)]
        await asyncio.gather(*(relay.beat(beat(runner, 1, episodes=stats)) for runner in range(50)))
        report = await control.actor.collect()
        assert report is not None
        assert report.num_episodes == 5000
        assert len(report.episodes) == 200
        assert report.metrics["rollout/untold_episodes"] == 4800

    asyncio.run(scene())
