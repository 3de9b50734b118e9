"""`SegmentStore`: the segments of a shard's directory, appended at one end, evicted at the other."""

from __future__ import annotations

import logging
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
from amago_ray.errors import DataError
from amago_ray.replay.layout import find_segments, find_unfinished
from amago_ray.replay.owner import Claim, DirectoryOwner
from amago_ray.replay.segment import Segment

_log = logging.getLogger(__name__)

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
        self._retain = False
        self._evicted_since_mark: list[Segment] = []
        self._evicted_before_mark: list[Segment] = []
        self.torn_bytes = 0
        """Bytes of half-written episodes cut by `recover`."""
        self.num_damaged = 0
        """Episodes passed over by `recover`, as they are not what was stored."""
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
    def inserted_episodes(self) -> int:
        """Episodes ever stored in this directory."""
        newest = self._newest
        return 0 if newest is None else newest.inserted_episodes

    @property
    def inserted_transitions(self) -> int:
        """Transitions ever stored in this directory."""
        newest = self._newest
        return 0 if newest is None else newest.inserted_transitions

    @property
    def epoch(self) -> int:
        """The incarnation that began these files, whichever goes on with them."""
        return self._owner.epoch

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

        What is torn is cut, what is damaged passed over and named in a warning; both are counted.
        """
        for sequence, segment in self._segments.items():
            for encoded in segment.scan(is_known):
                yield sequence, encoded
            self.num_damaged += len(segment.damaged)
            for offset in segment.damaged:
                _log.warning("%s: the episode at byte %d is damaged and passed over", segment.path, offset)
            self.torn_bytes += segment.cut(
                segment.num_bytes, num_episodes=segment.num_episodes, num_transitions=segment.num_transitions
            )

    def append(
        self, chunks: Sequence[pa.Buffer], schema: EpisodeSchema, *, num_episodes: int, num_transitions: int
    ) -> tuple[int, int]:
        """Append messages to one segment; returns its sequence and where the first begins.

        Raises:
            ReplacedError: another process owns the directory now; nothing is stored then.
            DataError: the disk is full; nothing is stored then.
        """
        self._owner.begin()
        self._owner.check()
        segment = self._segment_for_append(schema)
        offset = segment.append(chunks, num_episodes=num_episodes, num_transitions=num_transitions)
        if self._fsync == "add":
            segment.sync()
        # Whoever claimed the directory meanwhile may have read this segment before the write: then it does not count.
        self._owner.check()
        return segment.sequence, offset

    def read(self, sequence: int, offset: int, num_bytes: int) -> pa.Buffer:
        """One episode as it was appended, as a view on its mapped segment."""
        if sequence in self._mapped:
            self._mapped.move_to_end(sequence)
        else:
            self._mapped[sequence] = None
            if len(self._mapped) > MAX_MAPPED:
                self._segments[self._mapped.popitem(last=False)[0]].unmap()
        return self._segments[sequence].read(offset, num_bytes)

    def evict_oldest(self) -> None:
        """Take the oldest segment out of use, and delete its file unless a watermark may need it.

        Raises:
            ReplacedError: another process owns the directory now, and may use the segment.
        """
        self._owner.check()
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
        """Delete all that is not within the watermark, whose last segment holds so much. No view may be in use."""
        self._owner.check()
        self._retain = True
        for sequence in [each for each in self._segments if not mark.first <= each <= mark.last]:
            self._segments.pop(sequence).delete()
        self._mapped.clear()
        if mark.last >= 0:
            self._segments[mark.last].cut(
                mark.num_bytes, num_episodes=last_num_episodes, num_transitions=last_num_transitions
            )

    def sync(self) -> None:
        """Force what was appended to the disk, unless that is switched off."""
        if self._newest is not None and self._fsync != "never":
            self._newest.sync()

    def close(self) -> None:
        """Close all files; segments kept for a watermark stay on disk."""
        self.sync()
        for segment in self._segments.values():
            segment.close()
        self._mapped.clear()
        self._owner.close()

    def _find_segments(self) -> None:
        for leftover in find_unfinished(self._directory):
            leftover.unlink()
        for path in find_segments(self._directory):
            if path.stat().st_size == 0:
                path.unlink()
                continue
            segment = Segment.open(path)
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
            if not is_full and newest.incarnation == self._incarnation:
                return newest
            if self._fsync == "segment":
                newest.sync()
        segment = Segment.create(
            self._directory,
            schema,
            sequence=0 if newest is None else newest.sequence + 1,
            incarnation=self._incarnation,
            inserted_episodes=self.inserted_episodes,
            inserted_transitions=self.inserted_transitions,
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
