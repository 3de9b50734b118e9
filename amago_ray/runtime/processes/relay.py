"""`Relay`: gathers the beats of a node's env runners."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from amago_ray.runtime.protocol.messages import (
    NO_VERSION,
    NotYet,
    OrdersOfRunners,
    RunnerBeat,
    RunnerBeats,
    RunnerOrders,
    gather,
)

_FIRST_GATHERING_S = 0.1
_LONGEST_WAIT_S = 2.0

_Waiting = tuple[RunnerBeat, "asyncio.Future[RunnerOrders | NotYet]"]


class Relay:
    """Gathers beats for a while, sends them as one message, and gives each sender its orders out of the answer.

    It knows nothing but what is under way, so that another one can take its place at any time: a beat is answered when
    the control actor has taken it in. Weights are fetched once for the node.
    """

    def __init__(
        self,
        node: str,
        send: Callable[[RunnerBeats], Awaitable[OrdersOfRunners | NotYet]],
        fetch: Callable[[Any], Awaitable[Any]],
        *,
        longest_wait_s: float = _LONGEST_WAIT_S,
    ) -> None:
        """send: to the control actor. fetch: of a reference to weights, one to a copy on this node.

        longest_wait_s: for an answer, after which the senders are told to come again.
        """
        self._node = node
        self._send = send
        self._fetch = fetch
        self._longest_wait_s = longest_wait_s
        self._waiting: dict[int, _Waiting] = {}
        self._exchanging: asyncio.Task[None] | None = None
        self._gathering_s = _FIRST_GATHERING_S
        self._beat_in_s = _FIRST_GATHERING_S
        self._sent_at_s = -float("inf")
        self._version, self._weights = NO_VERSION, list[Any]()
        self._wanted_version = NO_VERSION
        self._fetching: asyncio.Task[None] | None = None

    async def beat(self, beat: RunnerBeat) -> RunnerOrders | NotYet:
        """An env runner's news; answers when the control actor has answered to them.

        Raises:
            Exception: the control actor is gone.
        """
        answer: asyncio.Future[RunnerOrders | NotYet] = asyncio.get_running_loop().create_future()
        if (former := self._waiting.pop(beat.runner, None)) is not None:
            # One message has one row for each runner.
            _answer(former[1], NotYet(self._beat_in_s))
        self._waiting[beat.runner] = beat, answer
        if self._exchanging is None or self._exchanging.done():
            self._exchanging = asyncio.create_task(self._exchange())
        return await answer

    async def _exchange(self) -> None:
        """Send what waits, while something does."""
        while self._waiting:
            await asyncio.sleep(max(self._sent_at_s + self._gathering_s - time.monotonic(), 0.0))
            self._sent_at_s = time.monotonic()
            taken, self._waiting = list(self._waiting.values()), {}
            orders: OrdersOfRunners | NotYet
            try:
                orders = await self._orders([beat for beat, _ in taken])
            except Exception as error:
                for _, answer in taken:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            self._beat_in_s = orders.beat_in_s
            if not isinstance(orders, NotYet):
                self._gathering_s = orders.gather_s
                orders = self._with_own_weights(orders)
            for row, (beat, answer) in enumerate(taken):
                _answer(answer, orders if isinstance(orders, NotYet) else orders.of(row, beat))

    async def _orders(self, beats: list[RunnerBeat]) -> OrdersOfRunners | NotYet:
        call = asyncio.ensure_future(self._send(gather(beats, self._node)))
        # A late answer is of no use to anybody; what was sent does no harm.
        done, _ = await asyncio.wait([call], timeout=self._longest_wait_s)
        return call.result() if done else NotYet(self._beat_in_s)

    def _with_own_weights(self, orders: OrdersOfRunners) -> OrdersOfRunners:
        """The orders with the node's copy of the newest weights that it has; newer ones are being fetched then."""
        if orders.weights and orders.version > self._wanted_version:
            self._wanted_version = orders.version
            self._fetching = asyncio.create_task(self._take_weights(orders))
        return replace(orders, version=self._version, weights=self._weights)

    async def _take_weights(self, orders: OrdersOfRunners) -> None:
        try:
            weights = await self._fetch(orders.weights[0])
        except Exception:
            # They died with the control actor. A learner pushes new ones to its successor.
            self._wanted_version = self._version
            return
        if orders.version > self._version:
            self._version, self._weights = orders.version, [weights]


def _answer(waiting: asyncio.Future[RunnerOrders | NotYet], answer: RunnerOrders | NotYet) -> None:
    # Who asked may have given up.
    if not waiting.done():
        waiting.set_result(answer)
