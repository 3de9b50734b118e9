"""`ReplayShard`: one shard of replay, as a plain single-threaded class."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from amago_ray.config.replay import MIN_SEGMENTS, ReplayConfig
from amago_ray.data.arrow_codec import EncodedEpisode, encode_episodes, read_stream, to_episode, view_episode
from amago_ray.data.arrow_schema import EpisodeSchema
from amago_ray.data.episode import Episode, EpisodeId
from amago_ray.data.packing import EpisodeSlice, pack_sequences
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import DataError, DiskFullError
from amago_ray.relabel.relabeler import Relabeler
from amago_ray.replay.draws import draw_window
from amago_ray.replay.index import EpisodeTable, StoredEpisode
from amago_ray.replay.inventory import Count
from amago_ray.replay.layout import remove_shard, shard_number
from amago_ray.replay.owner import NO_RUN, Claim
from amago_ray.replay.reports import AddReport, ShardReport
from amago_ray.replay.segment import LossError
from amago_ray.replay.store import SegmentStore

_WARNINGS_REPORTED = 20


class EmptyError(DataError):
    """A shard has nothing to draw from."""


class ReplayShard:
    """Stores whole episodes in a directory and draws training batches from them: draw, relabel, slice, pack.

    An added episode is in the page cache when `add` returns, and found again when the directory is reopened.
    """

    def __init__(
        self,
        config: ReplayConfig,
        *,
        directory: Path,
        context_length: int,
        relabeler: Relabeler,
        claim: Claim = NO_RUN,
        shard: int = 0,
        incarnation: int = 0,
        seed: int = 0,
        num_shards: int = 1,
        spec: EnvSpec | None = None,
    ) -> None:
        """Open or create `directory`, recovering what is in it; a torn tail is cut and counted.

        Sequences have at most `context_length` transitions. With `spec`, only its episodes are accepted, and its
        goal rule is stored beside them. Restarted shards come with a higher `incarnation`, which fences older ones.
        `claim` says whose the directory is to be.

        Raises:
            DataError: the directory cannot be written, belongs to a newer incarnation or another run, or holds another
                schema.
        """
        self._config = config
        self._claim = claim
        self._incarnation = incarnation
        self._context_length = context_length
        self._relabeler = relabeler
        self._capacity_timesteps = max(1, config.capacity_timesteps // num_shards)
        self._capacity_bytes = None if config.capacity_bytes is None else max(1, config.capacity_bytes // num_shards)
        segment_bytes = config.segment_bytes
        if self._capacity_bytes is not None:
            segment_bytes = min(segment_bytes, self._capacity_bytes // MIN_SEGMENTS)
        self._rng = np.random.default_rng(np.random.SeedSequence((seed, shard, incarnation)))
        self._expected_schema = None if spec is None else EpisodeSchema.from_spec(spec)
        self._directory = Path(directory)
        self._is_full = False
        self._num_duplicates = 0
        self._returned = Count()
        self._num_samples = 0
        self._num_relabeled = 0
        self._sampled_transitions = 0
        self._table = EpisodeTable()
        self._store = SegmentStore(
            Path(directory),
            claim,
            shard=shard,
            incarnation=incarnation,
            segment_bytes=segment_bytes,
            segment_transitions=max(1, self._capacity_timesteps // MIN_SEGMENTS),
            fsync=config.fsync,
            goal_rule=None if spec is None else spec.goal_rule,
        )
        schema = self._store.schema
        if schema is not None and self._expected_schema is not None:
            self._expected_schema.require(schema, str(directory))
        # An older copy may have written one to its segment after a newer copy had read it; not acknowledged, that
        # episode came again.
        for sequence, encoded in self._store.recover(lambda found: found.header.episode_id in self._table):
            assert schema is not None, "a stored episode has a schema"
            self._insert(sequence, encoded.offset, encoded, schema)

    @property
    def epoch(self) -> int:
        """The incarnation that began these files, whichever goes on with them."""
        return self._store.epoch

    @property
    def num_warnings(self) -> int:
        """Lines about losses and a full disk, as in `report`."""
        return len(self._store.warnings)

    def begin(self) -> None:
        """Training begins: remove what another run left in the directory, if this one was told to overwrite it.

        Raises:
            DataError: it cannot be removed.
        """
        self._store.begin()

    def add(self, group: bytes | pa.Buffer | Sequence[Episode]) -> AddReport:
        """Store a group of episodes, encoded or not: all of them but those stored already, or none.

        Evicts the oldest segments when over capacity; before, where the disk has no room for what will replace them.

        Raises:
            DiskFullError: there is no room; nothing was stored, and the same group can be added again later.
            ReplacedError: another process has this shard's directory now.
            DataError: the group is malformed or of another schema, or the disk fails.
        """
        if not isinstance(group, bytes | bytearray | memoryview | pa.Buffer):
            group = encode_episodes(group)
        schema, episodes = read_stream(group, "add")
        expected = self._store.schema or self._expected_schema
        if expected is not None:
            expected.require(schema, "add")
        new, num_duplicates = self._split_duplicates(list(episodes))
        self._num_duplicates += num_duplicates
        try:
            self._append(new, schema)
        except DiskFullError:
            self._set_full(True)
            raise
        self._set_full(False)
        return AddReport(
            num_episodes=len(new),
            num_transitions=_num_transitions(new),
            num_duplicates=num_duplicates,
            stored_transitions=self._table.num_transitions,
            inserted_transitions=self._store.inventory.accepted.transitions,
        )

    def take_back(self, group: bytes) -> int:
        """Store a group of encoded episodes that came in before, into other files of this shard; returns how many.

        What is stored here already is passed over, and all of them where others would have to make room.

        Raises:
            DataError: as for `add`.
        """
        schema, episodes = read_stream(group, "take back")
        expected = self._store.schema or self._expected_schema
        if expected is not None:
            expected.require(schema, "take back")
        new, _ = self._split_duplicates(list(episodes))
        if self._is_over_capacity(_num_transitions(new), len(group)):
            return 0
        self._append(new, schema)
        self._returned += Count(len(new), _num_transitions(new))
        return len(new)

    def adopt(self, directory: Path) -> int:
        """Take over the episodes of another shard of this run, and remove its directory; returns how many were new.

        Broken off, it can be done again: what is stored already is not taken twice.

        Raises:
            DataError: the directory is not this run's, or its episodes are of another schema; or the disk is full.
        """
        other = SegmentStore(
            directory,
            self._claim,
            shard=shard_number(directory),
            incarnation=self._incarnation,
            segment_bytes=self._config.segment_bytes,
            segment_transitions=self._capacity_timesteps,
            fsync="never",
            goal_rule=None,
        )
        schema, num_new = other.schema, 0
        if schema is not None:
            expected = self._store.schema or self._expected_schema
            if expected is not None:
                expected.require(schema, str(directory))
            for _, group in groupby(other.recover(), key=itemgetter(0)):
                new, _ = self._split_duplicates([encoded for _, encoded in group])
                self._append(new, schema)
                num_new += len(new)
            self._store.sync()
        other.close()
        remove_shard(directory)
        return num_new

    def sample(self, batch_size: int) -> SequenceBatch:
        """Draw `batch_size` episodes with replacement, relabel each, slice it to the context, and pack them.

        What is drawn and turns out to be lost is counted, and another episode drawn.

        Raises:
            EmptyError: nothing is stored, or nothing any more.
        """
        slices: list[EpisodeSlice] = []
        while len(slices) < batch_size:
            if not len(self._table):
                raise EmptyError("sample: expected stored episodes, got none")
            try:
                for position in self._table.draw(batch_size - len(slices), self._config.sampling, self._rng).tolist():
                    stored = self._read(position)
                    episode = self._relabeler.relabel(stored, self._rng)
                    self._num_relabeled += episode is not stored
                    slices.append(EpisodeSlice(episode, *draw_window(len(episode), self._context_length, self._rng)))
            except LossError as loss:
                # Positions have changed: what is left of the batch is drawn anew.
                self._lose(loss)
        batch = pack_sequences(slices)
        self._num_samples += batch_size
        self._sampled_transitions += batch.num_transitions
        return batch

    def report(self) -> ShardReport:
        """The state of the shard."""
        inventory, warnings = self._store.inventory, self._store.warnings
        return ShardReport(
            stored_episodes=len(self._table),
            stored_transitions=self._table.num_transitions,
            stored_bytes=self._store.num_bytes,
            inserted_episodes=inventory.accepted.episodes,
            inserted_transitions=inventory.accepted.transitions,
            evicted_episodes=inventory.evicted.episodes,
            evicted_transitions=inventory.evicted.transitions,
            deleted_episodes=inventory.deleted.episodes,
            deleted_transitions=inventory.deleted.transitions,
            damaged_episodes=inventory.damaged.episodes,
            damaged_transitions=inventory.damaged.transitions,
            num_duplicates=self._num_duplicates,
            torn_bytes=self._store.torn_bytes,
            num_samples=self._num_samples,
            num_relabeled=self._num_relabeled,
            sampled_transitions=self._sampled_transitions,
            returned_episodes=self._returned.episodes,
            returned_transitions=self._returned.transitions,
            num_warnings=self.num_warnings,
            warnings=tuple(warnings[-_WARNINGS_REPORTED:]),
            is_full=self._is_full,
        )

    def watermark(self) -> dict[str, int]:
        """A mark, ready for JSON, to which `truncate` can go back.

        What is evicted after it leaves the shard at once, but the disk only at the next mark but one: a resume can go
        back to either of the last two marks.
        """
        return self._store.watermark()

    def check_watermark(self, watermark: dict[str, int]) -> None:
        """See that `truncate` can go back to this mark.

        Raises:
            DataError: what was stored then is not all there any more.
        """
        self._store.check_watermark(watermark)

    def truncate(self, watermark: dict[str, int]) -> None:
        """Go back to exactly what was stored at `watermark`; batches drawn before stay valid, they are copies.

        Raises:
            DataError: what was stored then is not all there any more; nothing is changed.
        """
        mark = self._store.check_watermark(watermark)
        stored = [self._table[position] for position in range(len(self._table))]
        num_oldest = sum(episode.segment < mark.first for episode in stored)
        num_newest = sum((episode.segment, episode.offset) >= (mark.last, mark.num_bytes) for episode in stored)
        if self._relabeler.watches_storage:
            for episode in self._readable([*range(num_oldest), *range(len(stored) - num_newest, len(stored))]):
                self._relabeler.forget(episode)
        self._table.drop_newest(num_newest)
        self._table.drop_oldest(num_oldest)
        lengths = [
            episode.num_transitions for episode in stored[: len(stored) - num_newest] if episode.segment == mark.last
        ]
        self._store.truncate(mark, last_num_episodes=len(lengths), last_num_transitions=sum(lengths))

    def clear(self) -> None:
        """Forget and delete all episodes."""
        self.truncate(self._store.empty_watermark)

    def state(self) -> dict[str, Any]:
        """What else a bit-for-bit resume needs, ready for JSON: the random state and the counters."""
        return {
            "rng": self._rng.bit_generator.state,
            "num_duplicates": self._num_duplicates,
            "num_samples": self._num_samples,
            "num_relabeled": self._num_relabeled,
            "sampled_timesteps": self._sampled_transitions,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._rng.bit_generator.state = state["rng"]
        self._num_duplicates = state["num_duplicates"]
        self._num_samples = state["num_samples"]
        self._num_relabeled = state["num_relabeled"]
        self._sampled_transitions = state["sampled_timesteps"]

    def close(self) -> None:
        """Close all files."""
        self._store.close()

    def _read(self, position: int) -> Episode:
        stored = self._table[position]
        schema = self._store.schema
        assert schema is not None, "a stored episode has a schema"
        message = self._store.read(stored.segment, stored.offset, stored.num_bytes, stored.checksum)
        return view_episode(message, stored.layout, stored.num_transitions, stored.header, schema)

    def _readable(self, positions: Sequence[int]) -> list[Episode]:
        """Episodes that go; a relabeler keeps counting those that cannot be read any more."""
        episodes = []
        for position in positions:
            with suppress(LossError):
                episodes.append(self._read(position))
        return episodes

    def _lose(self, loss: LossError) -> None:
        """Forget what is lost."""
        positions = self._table.find(loss.sequence, loss.start, loss.stop)
        num_transitions = sum(self._table[position].num_transitions for position in positions.tolist())
        self._table.remove(positions)
        self._store.lose(loss, Count(len(positions), num_transitions))

    def _append(self, new: Sequence[EncodedEpisode], schema: EpisodeSchema) -> None:
        """Store episodes that are not stored yet, and evict the oldest segments when over capacity."""
        if not new:
            return
        messages, num_transitions = [encoded.message for encoded in new], _num_transitions(new)
        while True:
            try:
                sequence, offset = self._store.append(
                    messages, schema, num_episodes=len(new), num_transitions=num_transitions
                )
                break
            except LossError as loss:
                self._lose(loss)
            except DiskFullError:
                if len(self._store) < 2 or not self._is_over_capacity(num_transitions, sum(map(len, messages))):
                    raise
                self._evict_oldest()
        for encoded in new:
            self._insert(sequence, offset, encoded, schema)
            offset += encoded.message.size
        self._evict()

    def _insert(self, sequence: int, offset: int, encoded: EncodedEpisode, schema: EpisodeSchema) -> None:
        header, message, _, num_transitions, layout, checksum = encoded
        self._table.append(StoredEpisode(sequence, offset, message.size, num_transitions, header, layout, checksum))
        if self._relabeler.watches_storage:
            self._relabeler.observe(to_episode(encoded, schema))

    def _split_duplicates(self, episodes: Sequence[EncodedEpisode]) -> tuple[list[EncodedEpisode], int]:
        """Those that are not stored yet, and how many are, or come twice in the group."""
        new: dict[EpisodeId, EncodedEpisode] = {}
        for encoded in episodes:
            if encoded.header.episode_id not in self._table:
                new.setdefault(encoded.header.episode_id, encoded)
        return list(new.values()), len(episodes) - len(new)

    def _evict(self) -> None:
        """Remove the oldest segments while over capacity, but never the newest one."""
        while len(self._store) > 1 and self._is_over_capacity():
            self._evict_oldest()

    def _evict_oldest(self) -> None:
        positions = range(self._store.oldest.num_episodes)
        # Read before they go, and forgotten after they have gone.
        going = self._readable(positions) if self._relabeler.watches_storage else []
        self._store.evict_oldest()
        self._table.drop_oldest(len(positions))
        for episode in going:
            self._relabeler.forget(episode)

    def _is_over_capacity(self, more_transitions: int = 0, more_bytes: int = 0) -> bool:
        """Whether more is stored than may be, with so much more."""
        if self._table.num_transitions + more_transitions > self._capacity_timesteps:
            return True
        return self._capacity_bytes is not None and self._store.num_bytes + more_bytes > self._capacity_bytes

    def _set_full(self, is_full: bool) -> None:
        """Say once that the disk is full, and once that it is no longer."""
        if is_full != self._is_full:
            self._is_full = is_full
            what = "disk full: acting pauses until there is room" if is_full else "there is room again: acting goes on"
            self._store.warnings.append(f"{self._directory}: {what}")


def _num_transitions(episodes: Sequence[EncodedEpisode]) -> int:
    return sum(encoded.num_transitions for encoded in episodes)
