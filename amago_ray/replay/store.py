"""`SegmentStore`: the segments of a shard's directory, appended at one end, evicted at the other."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from amago_ray.data.arrow_codec import EncodedEpisode
from amago_ray.data.arrow_schema import EpisodeSchema
from amago_ray.data.goal_rule import GoalRule
from amago_ray.errors import DamagedError, DataError
from amago_ray.replay.audit import audit
from amago_ray.replay.inventory import Cause, Count, Inventory
from amago_ray.replay.layout import find_segments, find_unfinished, remove_shard, set_aside
from amago_ray.replay.owner import Claim, DirectoryOwner
from amago_ray.replay.segment import LossError, Segment, write_error

MAX_MAPPED = 256
"""Segments mapped at once: each holds a file descriptor."""


@dataclass(frozen=True)
class Watermark:
    """How far a store had got: segments `first` to `last` by sequence, and the bytes of the last one."""

    first: int
    last: int
    num_bytes: int
    num_episodes: int


class SegmentStore:
    """Segments, oldest first; the newest takes appends, and is followed by a new one when it is full.

    After a watermark, segments that are evicted stay on disk until the next mark but one, so that a resume can go
    back exactly to the last mark, and to the one before it if the last never reached a checkpoint. Without
    watermarks they are deleted at once.
    """

    def __init__(
        self,
        directory: Path,
        claim: Claim,
        *,
        shard: int,
        incarnation: int,
        segment_bytes: int,
        segment_transitions: int,
        fsync: Literal["never", "segment", "add"],
        goal_rule: GoalRule | None,
    ) -> None:
        """Claim the directory and find its segments, which `recover` then reads.

        Raises:
            DataError: the directory is a newer incarnation's or another run's, or holds foreign or unequal segments.
        """
        self._directory = directory
        self._owner = DirectoryOwner(directory, claim, shard=shard, incarnation=incarnation)
        self._incarnation = incarnation
        self._segment_bytes = segment_bytes
        self._segment_transitions = segment_transitions
        self._fsync = fsync
        self._goal_rule = goal_rule
        self._segments: OrderedDict[int, Segment] = OrderedDict()
        self._mapped: OrderedDict[int, None] = OrderedDict()
        self._damaged: set[int] = set()
        """Segments that were set aside as their headers cannot be read."""
        self._retain = False
        self._evicted_since_mark: list[Segment] = []
        self._evicted_before_mark: list[Segment] = []
        self.torn_bytes = 0
        """Bytes of half-written episodes cut by `recover`."""
        self.warnings: list[str] = []
        """A line for each segment of which something is lost."""
        self._said: set[tuple[int, Cause]] = set()
        self._inventory = Inventory(directory, is_new=self._owner.replaces)
        if not self._owner.replaces:
            self._find_segments()

    def __len__(self) -> int:
        """Segments in use."""
        return len(self._segments)

    @property
    def schema(self) -> EpisodeSchema | None:
        """The schema of what is stored; None before the first segment."""
        return next(iter(self._segments.values())).schema if self._segments else None

    @property
    def num_bytes(self) -> int:
        """Bytes of the segments in use."""
        return sum(segment.num_bytes for segment in self._segments.values())

    @property
    def epoch(self) -> int:
        """The incarnation that began these files, whichever goes on with them."""
        return self._owner.epoch

    @property
    def inventory(self) -> Inventory:
        """What was ever accepted in this directory, and what has become of it."""
        return self._inventory

    @property
    def oldest(self) -> Segment:
        """The segment that is evicted next."""
        return next(iter(self._segments.values()))

    def begin(self) -> None:
        """Remove what another run left in the directory, if this one was told to overwrite it.

        Raises:
            DataError: it cannot be removed.
        """
        self._owner.begin()

    def recover(
        self, is_known: Callable[[EncodedEpisode], bool] = lambda encoded: False
    ) -> Iterator[tuple[int, EncodedEpisode]]:
        """Yield each sound episode with its segment's sequence, oldest first, but those that are known already.

        What is torn is cut and counted. What was accepted and is not there is a loss, named in a warning.

        Raises:
            DataError: the inventory cannot be written.
        """
        for sequence, segment in self._segments.items():
            for encoded in segment.scan(is_known):
                yield sequence, encoded
            self.torn_bytes += segment.cut(
                segment.num_bytes, num_episodes=segment.num_episodes, num_transitions=segment.num_transitions
            )
        try:
            for loss in audit(self._inventory, self._segments, self._damaged):
                self._warn_of_loss(*loss)
        except OSError as error:
            raise DataError(f"{self._directory}: cannot write there ({error.strerror})") from error

    def _warn_of_loss(self, sequence: int, cause: Cause, lost: Count) -> None:
        """Say once for each segment that some of it is lost."""
        if (sequence, cause) not in self._said:
            self._said.add((sequence, cause))
            self.warnings.append(
                f"{self._directory}: segment {sequence} is {cause}: {lost.episodes} episodes with {lost.transitions} "
                "transitions are lost"
            )

    def append(
        self, chunks: Sequence[pa.Buffer], schema: EpisodeSchema, *, num_episodes: int, num_transitions: int
    ) -> tuple[int, int]:
        """Append messages to one segment; returns its sequence and where the first begins.

        Raises:
            LossError: others have deleted or cut the newest segment; nothing is stored.
            ReplacedError: another process owns the directory now; nothing counts as stored.
            DiskFullError: there is no room; nothing is stored.
            DataError: the disk fails; nothing is stored.
        """
        self._owner.begin()
        self._owner.check()
        segment = self._segment_for_append(schema)
        held = segment.num_episodes, segment.num_transitions
        offset = segment.append(chunks, num_episodes=num_episodes, num_transitions=num_transitions)
        # Whoever claimed the directory meanwhile may have read this segment before the write: then it does not count.
        self._owner.check()
        try:
            self._inventory.accept(segment.sequence, Count(num_episodes, num_transitions))
        except OSError as error:
            segment.cut(offset, num_episodes=held[0], num_transitions=held[1])
            raise write_error(segment.path, sum(chunk.size for chunk in chunks), error) from error
        if self._fsync == "add":
            self._sync(segment)
        return segment.sequence, offset

    def read(self, sequence: int, offset: int, num_bytes: int, checksum: int) -> pa.Buffer:
        """One episode as it was appended, as a view on its mapped segment.

        Raises:
            LossError: it is gone, or not what was appended.
        """
        if sequence in self._mapped:
            self._mapped.move_to_end(sequence)
        else:
            self._mapped[sequence] = None
            if len(self._mapped) > MAX_MAPPED:
                self._segments[self._mapped.popitem(last=False)[0]].unmap()
        return self._segments[sequence].read(offset, num_bytes, checksum)

    def lose(self, loss: LossError, lost: Count) -> None:
        """So much is lost with a loss that was met, and is not looked for again."""
        sequence = loss.sequence
        segment = self._segments[sequence]
        segment.forget(num_episodes=lost.episodes, num_transitions=lost.transitions)
        self._inventory.lose(sequence, loss.cause, lost)
        self._warn_of_loss(sequence, loss.cause, lost)
        segment.is_whole = False
        if loss.cause == "deleted":
            segment.close()
            self._mapped.pop(sequence, None)
            del self._segments[sequence]

    def evict_oldest(self) -> None:
        """Take the oldest segment out of use, and delete its file unless a watermark may need it.

        Raises:
            ReplacedError: another process owns the directory now, and may use the segment.
            DiskFullError: not even that can be written down.
        """
        self._owner.check()
        try:
            # First, so that a file that is gone without it was not evicted.
            self._inventory.evict_to(self.oldest.sequence + 1)
        except OSError as error:
            raise write_error(self.oldest.path, 0, error) from error
        sequence, segment = self._segments.popitem(last=False)
        self._mapped.pop(sequence, None)
        if self._retain:
            segment.close()
            self._evicted_since_mark.append(segment)
        else:
            segment.delete()

    @property
    def empty_watermark(self) -> dict[str, int]:
        """The mark of a store without episodes."""
        return asdict(Watermark(0, -1, 0, 0))

    def watermark(self) -> dict[str, int]:
        """How far the store has got, for `truncate`."""
        for segment in self._evicted_before_mark:
            segment.delete()
        self._evicted_before_mark, self._evicted_since_mark = self._evicted_since_mark, []
        self._retain = True
        newest = self._newest
        num_episodes = sum(segment.num_episodes for segment in self._segments.values())
        if newest is None:
            return self.empty_watermark
        return asdict(Watermark(self.oldest.sequence, newest.sequence, newest.num_bytes, num_episodes))

    def check_watermark(self, watermark: dict[str, Any]) -> Watermark:
        """Check a watermark.

        Raises:
            DataError: it is malformed, or the store lacks what was stored at the watermark.
        """
        try:
            mark = Watermark(**watermark)
        except TypeError as error:
            raise DataError(f"{self._directory}: expected a watermark of a replay shard, got {watermark}") from error
        if mark.last >= 0:
            last = self._segments.get(mark.last)
            found = -1 if last is None else last.num_bytes
            if mark.first not in self._segments or found < mark.num_bytes:
                raise DataError(
                    f"{self._directory}: cannot go back to the watermark: expected segments {mark.first} to "
                    f"{mark.last} with {mark.num_bytes} bytes in the last, got {list(self._segments)}"
                )
        return mark

    def truncate(self, mark: Watermark, *, last_num_episodes: int, last_num_transitions: int) -> None:
        """Delete all that is not within the watermark, whose last segment holds so much. No view may be in use.

        Raises:
            DataError: another process owns the directory now, or it cannot be written.
        """
        self._owner.check()
        self._retain = True
        for sequence in [each for each in self._segments if not mark.first <= each <= mark.last]:
            self._segments.pop(sequence).delete()
        self._mapped.clear()
        if mark.last >= 0:
            self._segments[mark.last].cut(
                mark.num_bytes, num_episodes=last_num_episodes, num_transitions=last_num_transitions
            )
        try:
            self._inventory.evict_to(mark.first)
            self._inventory.truncate(mark.last, Count(last_num_episodes, last_num_transitions))
        except OSError as error:
            raise DataError(f"{self._directory}: cannot write there ({error.strerror})") from error

    def sync(self) -> None:
        """Force what was appended to the disk, unless that is switched off."""
        if self._newest is not None and self._fsync != "never":
            self._sync(self._newest)

    def _sync(self, segment: Segment) -> None:
        segment.sync()
        self._inventory.sync()

    def close(self) -> None:
        """Close all files; segments kept for a watermark stay on disk."""
        self.sync()
        for segment in self._segments.values():
            segment.close()
        self._mapped.clear()
        self._owner.close()

    def remove(self) -> None:
        """Close all files and remove them, with the directory.

        Raises:
            DataError: it is another's by now.
        """
        self._owner.check()
        self.close()
        remove_shard(self._directory)

    def _find_segments(self) -> None:
        for leftover in find_unfinished(self._directory):
            leftover.unlink()
        for path in find_segments(self._directory):
            sequence = int(path.name.split("_")[1])
            if path.stat().st_size == 0:
                path.unlink()
                self._damaged.add(sequence)
                continue
            try:
                segment = Segment.open(path)
            except DamagedError:
                path.replace(set_aside(path))
                self._damaged.add(sequence)
                continue
            if self.schema is not None:
                self.schema.require(segment.schema, str(path))
            stale = self._segments.get(segment.sequence)
            if stale is not None:
                # An older incarnation began it after the newer one had taken over: nothing in it was acknowledged.
                self.torn_bytes += stale.path.stat().st_size
                stale.delete()
            self._segments[segment.sequence] = segment

    @property
    def _newest(self) -> Segment | None:
        return next(reversed(self._segments.values())) if self._segments else None

    def _segment_for_append(self, schema: EpisodeSchema) -> Segment:
        newest = self._newest
        if newest is not None:
            is_full = newest.num_bytes >= self._segment_bytes or newest.num_transitions >= self._segment_transitions
            # An older incarnation may still have its last segment open: never write into that.
            # One without episodes is what was left when there was no room for the first.
            may_grow = not is_full or not newest.num_episodes
            if may_grow and newest.is_whole and newest.incarnation == self._incarnation:
                return newest
            if self._fsync == "segment":
                self._sync(newest)
        segment = Segment.create(
            self._directory,
            schema,
            sequence=max(-1 if newest is None else newest.sequence, self._inventory.last) + 1,
            incarnation=self._incarnation,
            inserted_episodes=self._inventory.accepted.episodes,
            inserted_transitions=self._inventory.accepted.transitions,
            goal_rule=self._goal_rule,
        )
        self._segments[segment.sequence] = segment
        if self._fsync != "never":
            _sync_directory(self._directory)
        return segment


def _sync_directory(directory: Path) -> None:
    """Force a new file's name to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
