"""`Shards`: the replay shards of a run, as the driver sees them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from amago_ray.config import Config
from amago_ray.errors import TrainingError
from amago_ray.runtime.actors import ending, get
from amago_ray.runtime.endings import Ending
from amago_ray.runtime.placement import ShardPlace, share_out
from amago_ray.runtime.run_actors import RunActors
from amago_ray.runtime.supervisor import RestartBudget

_log = logging.getLogger(__name__)

_BEGIN_TIMEOUT_S = 60.0
_LONGEST_SILENCE_S = 30.0


@dataclass
class _Watch:
    """What is known of a shard's process; its incarnation is 0 before it was made."""

    number: int
    incarnation: int = 0
    budget: RestartBudget = field(default_factory=RestartBudget)


class Shards:
    """Starts the shards on their nodes and watches them; Ray restarts their processes there."""

    def __init__(self, config: Config, actors: RunActors) -> None:
        self._config = config
        self._actors = actors
        self._watches: dict[Any, _Watch] = {}
        self.handles: list[Any] = []
        """The actors, by number."""
        self.hosts: Mapping[str, str] = {}
        """Where each is, by its number as text: what a checkpoint keeps."""
        self.num_restarts = 0
        """How often one died and was started again."""

    def start(self, places: Sequence[ShardPlace]) -> None:
        """Create the actors; `unmade` says of which it is not known yet that they are there."""
        self.hosts = {str(place.number): place.host for place in places}
        for place in places:
            shard = self._actors.start_shard(place)
            self.handles.append(shard)
            self._watches[shard.watch.remote(0)] = _Watch(place.number)

    @property
    def watches(self) -> Sequence[Any]:
        """References that are ready when there is news of a shard, for `answer`."""
        return list(self._watches)

    @property
    def unmade(self) -> Mapping[str, Any]:
        """Shards that have not been made yet, by name, with the reference to their making."""
        return {
            f"replay shard {watch.number}": reference
            for reference, watch in self._watches.items()
            if not watch.incarnation
        }

    def begin(self) -> None:
        """Let all take over their directories.

        Raises:
            AmagoRayError: one cannot write its directory.
        """
        begun = [shard.begin.remote() for shard in self.handles]
        late = ray.wait(begun, num_returns=len(begun), timeout=_BEGIN_TIMEOUT_S)[1]
        for number, reference in enumerate(begun):
            if reference in late:
                raise TrainingError(f"the replay shard {number} did not begin within {_BEGIN_TIMEOUT_S:g} s")
            end = ending(reference, reference)
            if end.kind != "returned":
                raise end.failure(f"the replay shard {number} cannot begin")

    def take_over(self, hosts_before: Mapping[int, str]) -> list[str]:
        """Let shards take over what belonged to shards that the run has no longer; returns warnings.

        hosts_before: where the shards of the run that goes on were.

        Raises:
            AmagoRayError: one cannot.
        """
        warnings = []
        num_shards, num_before = len(self.handles), len(hosts_before)
        shares = share_out([get(shard.surplus.remote(), _BEGIN_TIMEOUT_S) for shard in self.handles])
        takings = [shard.adopt.remote(share) for shard, share in zip(self.handles, shares, strict=True)]
        while ray.wait(takings, num_returns=len(takings), timeout=_LONGEST_SILENCE_S)[1]:
            _log.warning("still taking over the episodes of replay shards that are no longer")
        taken: dict[int, int] = {}
        for number, reference in enumerate(takings):
            end = ending(reference)
            if end.kind != "returned":
                raise end.failure(f"the replay shard {number} cannot take over the episodes of others")
            taken |= end.value
        if num_before and num_before != num_shards:
            each = self._config.replay.capacity_timesteps // num_shards
            warnings.append(
                f"replay.num_shards is {num_shards}, was {num_before}: each shard now holds up to {each:,} transitions"
            )
        for shard, num_episodes in sorted(taken.items()):
            warnings.append(f"{num_episodes:,} episodes of the former replay shard {shard} were taken over")
        for shard, host in sorted(hosts_before.items()):
            if shard >= num_shards and shard not in taken:
                warnings.append(
                    f"the episodes of the former replay shard {shard} on {host} are out of use: no shard is there"
                )
        return warnings

    def report(self) -> None:
        """Let all tell the control actor what they hold."""
        for shard in self.handles:
            shard.report.remote()

    def answer(self, reference: Any) -> str | None:
        """There is news of a shard: it has been made, or was started again; a warning if there is one.

        Raises:
            AmagoRayError: it cannot be made or kept alive.
        """
        watch = self._watches.pop(reference)
        name = f"replay shard {watch.number}"
        end = ending(reference)
        if end.kind != "returned":
            raise end.failure(f"the {name} cannot be made")
        now_s = time.monotonic()
        warning = None
        if watch.incarnation:
            self.num_restarts += 1
            warning = f"the {name} died and was started again: it goes on from what is on its disk"
            watch.budget.failed(name, Ending("died", error=TrainingError("its process died")), now_s)
            self.handles[watch.number].report.remote()
        watch.budget.started(now_s)
        watch.incarnation = end.value
        self._watches[self.handles[watch.number].watch.remote(watch.incarnation)] = watch
        return warning

    def close(self) -> list[Any]:
        """Let all close their segments; references that are ready when they have."""
        return [*(shard.close.remote() for shard in self.handles), *self._watches]
