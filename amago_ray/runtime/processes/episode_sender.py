"""`EpisodeSender`: hands an env runner's episodes to replay."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amago_ray.data.arrow_codec import encode_episodes
from amago_ray.data.episode import Episode
from amago_ray.errors import ReplacedError
from amago_ray.runtime.protocol.actors import is_unavailable, outcome, wait_any
from amago_ray.runtime.protocol.endings import Ending
from amago_ray.runtime.protocol.shard_table import ShardTable

_UNAVAILABLE_PAUSE_S = 0.5
_FULL_PAUSE_S = 2.0


@dataclass
class _Add:
    """A group of episodes that its shard has not acknowledged yet.

    reference: of the call, made at called_at_s; None where it failed. incarnation: of the process that was called.
    again_at_s: when to call it again; infinite where only another one can help. is_refused: the shard's disk was full.
    """

    shard: int
    group: bytes
    num_episodes: int
    incarnation: int = -1
    reference: Any = None
    called_at_s: float = 0.0
    again_at_s: float = 0.0
    is_refused: bool = False


class EpisodeSender:
    """Groups episodes and adds each group to the next shard in turn; a bounded number of groups is unacknowledged.

    In turn, and not to those of its own node first: shards of one capacity must get equal shares, or those beside many
    env runners let go of new episodes while the others keep old ones.
    A group stays with its shard, which knows what it has already: where the shard's process is replaced, it goes to the
    next one as soon as the shard table names it; where its disk is full, it is sent again and again. A call that is not
    answered for long is made again: where a node was out of reach for a while, the answer may be lost.
    """

    def __init__(
        self,
        table: ShardTable,
        *,
        first_shard: int,
        episodes_per_add: int,
        max_unacknowledged_adds: int,
        lost_after_s: float,
        clock: Callable[[], float] = time.monotonic,
        outcome: Callable[[Any], Ending | None] = outcome,
    ) -> None:
        """table: the shards. lost_after_s: when a call is made again that is not answered. clock: seconds that never go
        back. outcome: of a call, None while it is under way.
        """
        self._table = table
        self._next_shard = first_shard % len(table.entries)
        self._episodes_per_add = episodes_per_add
        self._max_unacknowledged_adds = max_unacknowledged_adds
        self._lost_after_s = lost_after_s
        self._clock = clock
        self._outcome = outcome
        self._waiting: list[Episode] = []
        self._adds: list[_Add] = []
        self._num_put = 0
        self.num_stored = 0
        """Episodes acknowledged."""
        self.time_s = 0.0
        """Spent on encoding, handing over and waiting for acknowledgements."""

    @property
    def table_version(self) -> int:
        """Of the shard table in use."""
        return self._table.version

    @property
    def is_full(self) -> bool:
        """Whether a group waits that cannot be handed over before another one is acknowledged: no more should come."""
        return len(self._waiting) >= self._episodes_per_add and not self._has_room

    @property
    def is_done(self) -> bool:
        """Whether all episodes are acknowledged."""
        return not self._waiting and not self._adds

    @property
    def is_refused(self) -> bool:
        """Whether nothing but full disks keeps episodes from being acknowledged."""
        return bool(self._adds) and all(add.is_refused for add in self._adds)

    def put(self, episodes: Sequence[Episode]) -> None:
        """Take in finished episodes, to be sent."""
        self._waiting.extend(episodes)
        self._num_put += len(episodes)

    @property
    def num_unacknowledged(self) -> int:
        """Episodes taken in and not stored yet."""
        return self._num_put - self.num_stored

    def update(self, table: ShardTable) -> None:
        """Take a newer shard table: what a process that is no longer has not acknowledged goes to its successor."""
        self._settle()
        self._table = table
        for add in self._adds:
            if table.entries[add.shard].incarnation != add.incarnation:
                self._call(add)

    def send(self, *, force: bool = False) -> None:
        """Hand over what waits in full groups, an incomplete one only if forced, while there is room for them.

        Raises:
            DataError: a shard cannot store a group.
        """
        size = self._episodes_per_add
        if not force and len(self._waiting) < size:
            return
        began_s = self._clock()
        self._settle()
        while self._has_room and (len(self._waiting) >= size or (force and self._waiting)):
            episodes = self._waiting[:size]
            del self._waiting[:size]
            add = _Add(self._take_shard(), encode_episodes(episodes), len(episodes))
            self._adds.append(add)
            self._call(add)
        self.time_s += self._clock() - began_s

    def wait(self, timeout_s: float) -> None:
        """Wait until a group is acknowledged, or a while.

        Raises:
            DataError: a shard cannot store a group.
        """
        began_s = self._clock()
        if under_way := [add.reference for add in self._adds if add.reference is not None]:
            wait_any(under_way, timeout_s)
        elif self._adds:
            time.sleep(timeout_s)
        self._settle()
        self.time_s += self._clock() - began_s

    @property
    def _has_room(self) -> bool:
        return len(self._adds) < self._max_unacknowledged_adds

    def _take_shard(self) -> int:
        """The next shard in turn, of those with the fewest groups to acknowledge: one that is silent is left out."""
        num_shards = len(self._table.entries)
        under_way = Counter(add.shard for add in self._adds)
        turns = [(self._next_shard + turn) % num_shards for turn in range(num_shards)]
        shard = min(turns, key=lambda each: under_way[each])
        self._next_shard = (shard + 1) % num_shards
        return shard

    def _call(self, add: _Add) -> None:
        entry = self._table.entries[add.shard]
        add.incarnation, add.reference = entry.incarnation, entry.actor.add.remote(add.group)
        add.called_at_s = self._clock()

    def _settle(self) -> None:
        """Count what is acknowledged by now, and call those again that may answer this time."""
        self._adds = [add for add in self._adds if not self._is_stored(add)]

    def _is_stored(self, add: _Add) -> bool:
        if add.reference is None:
            if self._clock() >= add.again_at_s:
                self._call(add)
            return False
        end = self._outcome(add.reference)
        if end is None:
            if self._clock() - add.called_at_s > self._lost_after_s:
                self._call(add)
            return False
        if end.kind == "returned" and end.value:
            self.num_stored += add.num_episodes
            return True
        if end.kind == "returned":
            add.reference, add.is_refused, add.again_at_s = None, True, self._clock() + _FULL_PAUSE_S
            return False
        if end.error is not None and end.kind == "raised" and not isinstance(end.error, ReplacedError):
            raise end.error
        add.reference, add.is_refused = None, False
        add.again_at_s = self._clock() + _UNAVAILABLE_PAUSE_S if is_unavailable(end.error) else float("inf")
        return False
