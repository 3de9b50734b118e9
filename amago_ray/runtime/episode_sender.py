"""`EpisodeSender`: hands an env runner's episodes to replay."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from amago_ray.data.arrow_codec import encode_episodes
from amago_ray.data.episode import Episode
from amago_ray.runtime.actors import get

_RESTART_PAUSE_S = 0.5


@dataclass
class _Add:
    """A group of episodes that its shard has not acknowledged yet."""

    reference: Any
    shard: int
    group: bytes
    num_episodes: int


class EpisodeSender:
    """Groups episodes and adds each group to the next shard in turn; a bounded number of groups is unacknowledged.

    A group whose shard is being restarted goes to the same shard again, which knows what it has already.
    """

    def __init__(
        self, shards: Sequence[Any], *, first_shard: int, episodes_per_add: int, max_unacknowledged_adds: int
    ) -> None:
        """shards: their actors by number."""
        self._shards = shards
        self._next_shard = first_shard % len(shards)
        self._episodes_per_add = episodes_per_add
        self._max_unacknowledged_adds = max_unacknowledged_adds
        self._waiting: list[Episode] = []
        self._adds: deque[_Add] = deque()
        self._num_put = 0
        self.num_stored = 0
        """Episodes acknowledged."""
        self.time_s = 0.0
        """Spent on encoding, handing over and waiting for acknowledgements."""

    def put(self, episodes: Sequence[Episode]) -> None:
        """Take in finished episodes, to be sent."""
        self._waiting.extend(episodes)
        self._num_put += len(episodes)

    @property
    def num_unacknowledged(self) -> int:
        """Episodes taken in and not stored yet."""
        return self._num_put - self.num_stored

    def send(self, *, force: bool = False) -> bool:
        """Hand over what waits in full groups, an incomplete one only if forced; whether there were any.

        Raises:
            ray.exceptions.RayError: a shard is gone for good, or cannot store a group.
        """
        began = time.monotonic()
        size, before = self._episodes_per_add, len(self._waiting)
        while len(self._waiting) >= size or (force and self._waiting):
            group, num_episodes = encode_episodes(self._waiting[:size]), len(self._waiting[:size])
            del self._waiting[:size]
            shard = self._next_shard
            self._next_shard = (shard + 1) % len(self._shards)
            self._adds.append(_Add(self._shards[shard].add.remote(group), shard, group, num_episodes))
            while len(self._adds) > self._max_unacknowledged_adds:
                self._await_oldest()
        self.time_s += time.monotonic() - began
        return len(self._waiting) < before

    def finish(self) -> None:
        """Hand over all that waits, until everything is acknowledged.

        Raises:
            ray.exceptions.RayError: a shard is gone for good, or cannot store a group.
        """
        self.send(force=True)
        while self._adds:
            self._await_oldest()

    def _await_oldest(self) -> None:
        add = self._adds.popleft()
        while True:
            try:
                get(add.reference)
            except ray.exceptions.ActorUnavailableError:
                time.sleep(_RESTART_PAUSE_S)
                add.reference = self._shards[add.shard].add.remote(add.group)
            else:
                self.num_stored += add.num_episodes
                return
