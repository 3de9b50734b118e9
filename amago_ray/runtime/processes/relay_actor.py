"""`RelayActor`: a process on a node through which its env runners beat."""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from amago_ray.runtime.processes.relay import Relay
from amago_ray.runtime.protocol.messages import NotYet, RunnerBeat, RunnerOrders

CALLS_UNDER_WAY: int = 10_000
"""Of a relay: every runner of the node waits in one, more than Ray allows by default."""


class RelayActor:
    """A thin shell around `Relay`: an asyncio actor that answers beats as the control actor does."""

    def __init__(self, node: str, control: Any) -> None:
        self._relay = Relay(node, control.beat_runners.remote, _copied_here)
        self._node = node

    async def beat_runner(self, beat: RunnerBeat) -> RunnerOrders | NotYet:
        """An env runner's news."""
        return await self._relay.beat(beat)

    def __repr__(self) -> str:
        """The name in logs and in the Ray dashboard."""
        return f"Relay({self._node[:8]})"


async def _copied_here(reference: Any) -> Any:
    """A reference to a copy of a snapshot that this process owns, so that the node's runners ask nobody beyond it."""
    return await asyncio.to_thread(ray.put, await reference)
