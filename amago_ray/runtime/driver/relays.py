"""`Relays`: the relays of a run, as the driver sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amago_ray.runtime.driver.run_actors import RunActors


class Relays:
    """Starts a relay on each node that needs one; one that is dead or silent is replaced."""

    def __init__(self, actors: RunActors) -> None:
        self._actors = actors
        self._handles: dict[str, Any] = {}
        self.num_restarts = 0
        """How often one was replaced."""

    @property
    def handles(self) -> Mapping[str, Any]:
        """The newest relay of each node, by the node's id."""
        return self._handles

    def start(self, nodes: Sequence[str], control: Any) -> list[str]:
        """Start a relay on each of these nodes, and make it known; returns a warning for each that it replaces."""
        warnings = []
        for node in nodes:
            if node in self._handles:
                self.num_restarts += 1
                warnings.append(f"the relay of node {node[:8]} is silent and is replaced")
            self._handles[node] = self._actors.start_relay(node, control)
            control.add_relay.remote(node, [self._handles[node]])
        return warnings
