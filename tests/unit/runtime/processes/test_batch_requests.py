"""A learner's batches on their way: credit, order, losses, the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import ray
from helpers.batches import make_batch, make_spec

from amago_ray.config import Config
from amago_ray.config.load import load_config
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.runtime.processes.batch_requests import BatchRequests
from amago_ray.runtime.protocol.messages import BatchNumber, Received, Reserved
from amago_ray.runtime.protocol.shard_table import ShardTable

SECONDS = 60.0
"""Far more than anything here takes."""


class Call:
    """A method of a handle; what it returns is made by `work` when somebody gets it."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work

    def remote(self, *arguments: Any) -> Callable[[], Any]:
        return lambda: self._work(*arguments)


class Handle:
    def __init__(self, **methods: Callable[..., Any]) -> None:
        for name, work in methods.items():
            setattr(self, name, Call(work))


class Scene:
    """A control actor with plenty of credit, and a shard whose batches have 1, 2, 3 … transitions.

    fetches: what comes of the first requests, one after the other: an error, or whether there is a batch.
    num_lost_answers: of the control actor, at first.
    """

    def __init__(
        self,
        *overrides: str,
        num_credits: int = 100,
        fetches: tuple[Exception | bool, ...] = (),
        num_lost_answers: int = 0,
    ) -> None:
        self.asked: list[tuple[int, int, BatchNumber | None]] = []
        self._num_credits = num_credits
        self._fetches = list(fetches)
        self._num_batches = 0
        self.now_s = 0.0
        self.received: list[Received] = []
        self._num_lost_answers = num_lost_answers
        table = ShardTable().started(0, "host", "node", 1, Handle(sample=self._sample))
        self.requests = BatchRequests(
            config(*overrides),
            Handle(reserve=self._reserve),
            table,
            incarnation=7,
            first_update=1,
            rank=1,
            get=self._get,
            clock=lambda: self.now_s,
        )
        self.requests.start()

    def train(self) -> int:
        """Take the next batch; its transitions."""
        batch = self.requests.next(SECONDS)
        assert batch is not None
        self.requests.trained()
        return batch.num_transitions

    def stop(self) -> None:
        """Training is over."""
        self._num_credits = 0

    def _get(self, reference: Callable[[], Any], timeout_s: float | None = None) -> Any:
        return reference()

    def _reserve(
        self, transitions: int, num_batches: int, version: int, first: BatchNumber | None, received: Received
    ) -> Reserved:
        self.asked.append((transitions, num_batches, first))
        self.received.append(received)
        if not self._num_credits:
            return Reserved(stop=True)
        granted = min(num_batches, self._num_credits)
        if self._num_lost_answers:
            self._num_lost_answers -= 1
            raise ray.exceptions.GetTimeoutError("its answer is lost")
        self._num_credits -= granted
        if not granted:
            # Not `time.sleep`: tests that come later give it another clock.
            threading.Event().wait(0.01)
        return Reserved(shards=[0] * granted)

    def _sample(self, batch_size: int) -> SequenceBatch | None:
        fetched = self._fetches.pop(0) if self._fetches else True
        if isinstance(fetched, Exception):
            raise fetched
        if not fetched:
            return None
        self._num_batches += 1
        return make_batch(make_spec(), [self._num_batches])


def config(*overrides: str) -> Config:
    return load_config("quickstart", ["learner.batch_size=4", "learner.prefetch=2", *overrides])


def test_batches_come_in_order_until_training_is_over() -> None:
    scene = Scene(num_credits=5)
    assert [scene.train() for _ in range(5)] == [1, 2, 3, 4, 5]
    assert scene.requests.next(SECONDS) is None
    assert scene.requests.is_over
    assert {number for _, number, _ in scene.asked} == {2}, "credit for as many as are outstanding"
    assert {first for _, _, first in scene.asked} == {None}, "it trains alone"


def test_a_batch_stays_until_it_is_trained_on_and_settles_its_credit_then() -> None:
    scene = Scene()
    first = scene.requests.next(SECONDS)
    assert scene.requests.next(SECONDS) is first
    assert "settled_transitions" not in scene.requests.take_news()
    scene.requests.trained()
    news = scene.requests.take_news()
    assert (news["settled_transitions"], news["trained_transitions"]) == (scene.asked[0][0], 1)
    scene.train()
    assert scene.requests.take_news()["trained_transitions"] == 2


def test_what_does_not_come_in_time_comes_later() -> None:
    late = ray.exceptions.GetTimeoutError("not yet")
    scene = Scene(fetches=(late, late))
    assert [scene.requests.next(SECONDS) for _ in range(2)] == [None, None]
    assert scene.train() == 1
    assert scene.requests.take_news()["replay_s"] >= 0
    assert not scene.requests.is_over


def test_a_batch_that_does_not_come_for_long_is_given_up_and_the_next_has_more_time() -> None:
    late = ray.exceptions.GetTimeoutError("not yet")
    scene = Scene("supervision.dead_after_s=100", fetches=(late, late, late, late))
    assert scene.requests.next(SECONDS) is None
    assert "settled_transitions" not in scene.requests.take_news()
    scene.now_s = 101.0
    assert scene.requests.next(SECONDS) is None
    credit = scene.asked[0][0]
    assert scene.requests.take_news()["settled_transitions"] == credit
    # The second was asked for at the beginning, too, or a moment ago; both are within 200 s.
    for _ in range(2):
        assert scene.requests.next(SECONDS) is None
    assert "settled_transitions" not in scene.requests.take_news()
    assert scene.train() == 1


def test_credit_is_asked_for_again_where_the_answer_is_lost_and_control_learns_what_came() -> None:
    scene = Scene(num_lost_answers=2)
    assert scene.train() == 1
    estimate = scene.asked[0][0]
    assert [received.transitions for received in scene.received[:3]] == [0, 0, 0]
    assert {(received.rank, received.incarnation) for received in scene.received} == {(1, 7)}
    while len(scene.received) < 4:
        scene.train()
    assert scene.received[3].transitions == 2 * estimate


@pytest.mark.parametrize("loss", [ray.exceptions.RayActorError(), False], ids=["its shard", "all that the shard held"])
def test_a_lost_batch_gives_its_credit_back_and_another_one_is_drawn(loss: Exception | bool) -> None:
    scene = Scene("learner.num_learners=2", "stop.learner_steps=3", fetches=(True, loss))
    assert scene.train() == 1
    assert scene.requests.next(SECONDS) is None
    assert scene.requests.take_news()["settled_transitions"] == 2 * scene.asked[0][0]
    assert [scene.train() for _ in range(2)] == [2, 3], "three updates need three batches"
    firsts = [first for _, number, first in scene.asked if number]
    assert firsts[0] == (7, 0)
    assert all(first is not None and first.incarnation == 7 and first.number <= 3 for first in firsts)
    scene.stop()


def test_no_credit_is_asked_for_beyond_the_last_update() -> None:
    scene = Scene("stop.learner_steps=3", "learner.batches_per_update=3", "learner.prefetch=4")
    assert [scene.train() for _ in range(9)] == list(range(1, 10))
    assert scene.requests.next(0.05) is None
    assert not scene.requests.is_over, "it waits for the end"
    assert [number for _, number, _ in scene.asked if number] == [4, 4, 1]
    scene.stop()
    assert scene.requests.next(SECONDS) is None
    assert scene.requests.is_over


def test_an_error_of_a_shard_or_of_control_ends_the_learner() -> None:
    with pytest.raises(ValueError, match="it broke"):
        Scene(fetches=(ValueError("it broke"),)).requests.next(SECONDS)
    scene = Scene(num_credits=1)
    broken = BatchRequests(
        config(),
        Handle(reserve=lambda *asked: 1 / 0),
        ShardTable(),
        incarnation=1,
        first_update=1,
        get=lambda call, timeout_s: call(),
    )
    broken.start()
    with pytest.raises(ZeroDivisionError):
        broken.next(SECONDS)
    assert scene.train() == 1
