"""`Routes`: through whom env runners beat, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from amago_ray.runtime.protocol.runner_rows import with_rows_for

if TYPE_CHECKING:
    from jaxtyping import Int

MOST_BEATS_PER_S = 300
"""Calls that an actor takes from all who beat: one costs it 0.6 ms, whatever it does."""
_MOST_ROWS_PER_S = 10_000
_FEWEST_PER_RELAY = 2
_SHORTEST_GATHERING_S = 0.1
_SILENT_AFTER_S = 10.0


@dataclass
class _Relay:
    handle: Any
    heard_at_s: float


class Routes:
    """Tells every caller when to beat again, so that an actor takes at most `MOST_BEATS_PER_S`, and through whom.

    In a run of many env runners each node has a relay that gathers the beats of those on it. One that is silent is
    named to nobody, and its node needs another; meanwhile its runners beat directly.
    """

    def __init__(self, relays_above: int) -> None:
        """relays_above: env runners beyond which relays are wanted."""
        self._relays_above = relays_above
        self._relays: dict[str, _Relay] = {}
        self._node_numbers: dict[str, int] = {}
        self._nodes = np.zeros(0, np.int64)
        """Of each runner the number of its node, -1 where there is no runner."""
        self._is_direct = np.zeros(0, np.bool_)

    def heard(self, runners: Int[np.ndarray, " R"], node: str, now_s: float, *, is_relayed: bool) -> None:
        """Env runners of a node have just spoken, through its relay or directly."""
        self._nodes = with_rows_for(runners, self._nodes, -1)
        self._is_direct = with_rows_for(runners, self._is_direct, False)
        self._nodes[runners] = self._node_numbers.setdefault(node, len(self._node_numbers))
        self._is_direct[runners] = not is_relayed
        if is_relayed and node in self._relays:
            self._relays[node].heard_at_s = now_s

    def gone(self, runner: int) -> None:
        """An env runner has left."""
        if runner < len(self._nodes):
            self._nodes[runner], self._is_direct[runner] = -1, False

    def add_relay(self, node: str, handle: Any, now_s: float) -> None:
        """A node has a relay, or another one."""
        self._relays[node] = _Relay(handle, now_s)

    def relay_of(self, node: str, now_s: float) -> Sequence[Any]:
        """The handle of the relay through which runners of a node beat, or none."""
        relay = self._relays.get(node)
        return [] if relay is None or now_s - relay.heard_at_s > _SILENT_AFTER_S else [relay.handle]

    def crowded(self, now_s: float) -> list[str]:
        """Nodes that need a relay: they have none, or a silent one."""
        if int((self._nodes >= 0).sum()) <= self._relays_above:
            return []
        numbers = np.bincount(self._nodes[self._is_direct], minlength=len(self._node_numbers)).tolist()
        return [
            node
            for node, number in self._node_numbers.items()
            if numbers[number] >= _FEWEST_PER_RELAY and not self.relay_of(node, now_s)
        ]

    def beat_in_s(self, node: str, *, is_relayed: bool) -> float:
        """Seconds from one beat of an env runner of a node to its next, at least."""
        if is_relayed:
            return int((self._nodes == self._node_numbers.get(node, -2)).sum()) / MOST_BEATS_PER_S
        return (int(self._is_direct.sum()) + len(self._relays)) / MOST_BEATS_PER_S

    def gathering_s(self) -> float:
        """Seconds for which a relay gathers beats."""
        num_runners = int((self._nodes >= 0).sum())
        return max(_SHORTEST_GATHERING_S, self.beat_in_s("", is_relayed=False), num_runners / _MOST_ROWS_PER_S)
