"""The index of a shard: what is stored, where, and how it is drawn."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from amago_ray.data.arrow_codec import EpisodeHeader
from amago_ray.data.episode import EpisodeId, PolicyVersion

_ROW = np.dtype(
    [
        ("segment", np.int64),
        ("offset", np.int64),
        ("num_bytes", np.int64),
        ("num_transitions", np.int64),
        ("env", np.int32),
        ("terminated", np.bool_),
        ("truncated", np.bool_),
        ("run", np.int64),
        ("runner", np.int64),
        ("incarnation", np.int64),
        ("counter", np.int64),
        ("seed", np.int64),
        ("first_incarnation", np.int64),
        ("first_learner_steps", np.int64),
        ("last_incarnation", np.int64),
        ("last_learner_steps", np.int64),
        ("checksum", np.uint32),
    ]
)


class StoredEpisode(NamedTuple):
    """Where an episode lies, what its header says, and layout and checksum of its message; all layouts are as long."""

    segment: int
    offset: int
    num_bytes: int
    num_transitions: int
    header: EpisodeHeader
    layout: tuple[int, ...]
    checksum: int


class EpisodeTable:
    """Stored episodes, oldest first. Positions count from the oldest one: `0 .. len - 1`.

    Episodes come at one end and go at the other, so running totals of transitions make draws in proportion to length
    a binary search. Rows are packed into arrays: about 150 bytes each, whatever an episode's length.
    """

    def __init__(self) -> None:
        self._rows = np.zeros(1024, _ROW)
        self._layouts = np.zeros((1024, 0), np.uint32)
        self._totals = np.zeros(1024, np.int64)
        """Transitions ever appended up to and with each row."""
        self._head = 0
        self._tail = 0
        self._total_before_head = 0
        self._env_names: list[str] = []
        self._env_indices: dict[str, int] = {}
        self._ids = EpisodeIdSet()

    def __len__(self) -> int:
        """Stored episodes."""
        return self._tail - self._head

    def __contains__(self, episode_id: EpisodeId) -> bool:
        """Whether an episode is stored."""
        return episode_id in self._ids

    def __getitem__(self, position: int) -> StoredEpisode:
        (
            segment,
            offset,
            num_bytes,
            num_transitions,
            env,
            terminated,
            truncated,
            run,
            runner,
            incarnation,
            counter,
            seed,
            first_incarnation,
            first_learner_steps,
            last_incarnation,
            last_learner_steps,
            checksum,
        ) = self._rows[self._head + position].item()
        header = EpisodeHeader(
            EpisodeId(run, runner, incarnation, counter),
            self._env_names[env],
            seed,
            terminated,
            truncated,
            PolicyVersion(first_incarnation, first_learner_steps),
            PolicyVersion(last_incarnation, last_learner_steps),
        )
        layout = tuple(self._layouts[self._head + position].tolist())
        return StoredEpisode(segment, offset, num_bytes, num_transitions, header, layout, checksum)

    @property
    def num_transitions(self) -> int:
        """Stored transitions."""
        return self._total_at(self._tail) - self._total_before_head

    def append(self, episode: StoredEpisode) -> None:
        """Add the newest episode."""
        if self._tail == len(self._rows):
            self._make_room()
        header = episode.header
        env = self._env_indices.setdefault(header.env_name, len(self._env_names))
        if env == len(self._env_names):
            self._env_names.append(header.env_name)
        self._rows[self._tail] = (
            *episode[:4],
            env,
            header.terminated,
            header.truncated,
            *header.episode_id,
            header.seed,
            *header.first_policy_version,
            *header.last_policy_version,
            episode.checksum,
        )
        if self._layouts.shape[1] != len(episode.layout):
            self._layouts = np.zeros((len(self._rows), len(episode.layout)), np.uint32)
        self._layouts[self._tail] = episode.layout
        self._totals[self._tail] = self._total_at(self._tail) + episode.num_transitions
        self._tail += 1
        self._ids.add(header.episode_id)

    def drop_oldest(self, count: int) -> None:
        """Forget the oldest `count` episodes, and their ids."""
        for position in range(count):
            self._ids.discard(self._id_at(position))
        self._total_before_head = self._total_at(self._head + count)
        self._head += count

    def drop_newest(self, count: int) -> None:
        """Forget the newest `count` episodes, and their ids."""
        for position in range(len(self) - count, len(self)):
            self._ids.discard(self._id_at(position))
        self._tail -= count

    def find(self, segment: int, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Positions of the episodes of a segment that lie, or in part, in its bytes `start:stop`."""
        rows = self._rows[self._head : self._tail]
        overlaps = (rows["offset"] < stop) & (rows["offset"] + rows["num_bytes"] > start)
        return np.flatnonzero((rows["segment"] == segment) & overlaps)

    def remove(self, positions: npt.NDArray[np.int64]) -> None:
        """Forget episodes anywhere, and their ids; takes time in proportion to all that are stored."""
        for position in positions.tolist():
            self._ids.discard(self._id_at(position))
        lengths = np.diff(self._totals[self._head : self._tail], prepend=self._total_before_head)
        kept = self._head + np.delete(np.arange(len(self)), positions)
        totals = self._total_before_head + np.cumsum(np.delete(lengths, positions))
        self._tail = self._head + len(kept)
        self._rows[self._head : self._tail] = self._rows[kept]
        self._layouts[self._head : self._tail] = self._layouts[kept]
        self._totals[self._head : self._tail] = totals

    def draw(
        self, count: int, sampling: Literal["episodes", "timesteps"], rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Draw positions with replacement: each episode equally likely, or in proportion to its transitions.

        Exact, and in time O(1), or O(log n), per draw. The table must not be empty.
        """
        if sampling == "episodes":
            return rng.integers(len(self), size=count)
        drawn = rng.integers(self._total_before_head, self._total_at(self._tail), size=count)
        return self._totals[self._head : self._tail].searchsorted(drawn, side="right")

    def _total_at(self, row: int) -> int:
        """Transitions ever appended before `row`."""
        return self._total_before_head if row == self._head else int(self._totals[row - 1])

    def _id_at(self, position: int) -> EpisodeId:
        row = self._rows[self._head + position]
        return EpisodeId(int(row["run"]), int(row["runner"]), int(row["incarnation"]), int(row["counter"]))

    def _make_room(self) -> None:
        """Move rows to the front, into larger arrays where they fill more than half."""
        capacity = len(self._rows) * (2 if len(self) > len(self._rows) // 2 else 1)
        kept = slice(self._head, self._tail)
        self._rows = _moved(self._rows[kept], capacity)
        self._layouts = _moved(self._layouts[kept], capacity)
        self._totals = _moved(self._totals[kept], capacity)
        self._head, self._tail = 0, len(self)


def _moved(rows: npt.NDArray[Any], capacity: int) -> npt.NDArray[Any]:
    moved = np.zeros((capacity, *rows.shape[1:]), rows.dtype)
    moved[: len(rows)] = rows
    return moved


class EpisodeIdSet:
    """A set of episode ids as bit masks over runs of counters: a fraction of a byte each for consecutive ones."""

    _BITS = 256

    def __init__(self) -> None:
        self._masks: dict[tuple[int, int, int, int], int] = {}

    def __contains__(self, episode_id: EpisodeId) -> bool:
        key, bit = self._locate(episode_id)
        return bool(self._masks.get(key, 0) & bit)

    def add(self, episode_id: EpisodeId) -> None:
        """Put an id in."""
        key, bit = self._locate(episode_id)
        self._masks[key] = self._masks.get(key, 0) | bit

    def discard(self, episode_id: EpisodeId) -> None:
        """Take an id out, if it is in."""
        key, bit = self._locate(episode_id)
        mask = self._masks.get(key, 0) & ~bit
        if mask:
            self._masks[key] = mask
        else:
            self._masks.pop(key, None)

    def _locate(self, episode_id: EpisodeId) -> tuple[tuple[int, int, int, int], int]:
        run, runner, incarnation, counter = episode_id
        return (run, runner, incarnation, counter // self._BITS), 1 << (counter % self._BITS)
