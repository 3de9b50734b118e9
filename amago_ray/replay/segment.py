"""`Segment`: one append-only file of whole episodes."""

from __future__ import annotations

import errno
import json
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from amago_ray.data.arrow_codec import DamagedEpisode, EncodedEpisode, read_stream, scan_stream
from amago_ray.data.arrow_schema import EpisodeSchema
from amago_ray.data.goal_rule import GoalRule
from amago_ray.errors import DataError
from amago_ray.replay.layout import SEGMENT_NAME

_HEADER_KEY = b"amago_ray.segment"


class Segment:
    """An Arrow IPC stream on disk: a schema message, then one message per episode, never an end marker.

    A stream can be appended to, and cut after any message, where an Arrow *file* needs its footer. Its metadata says
    what had been inserted into the directory before it, so that totals survive reopening.

    num_bytes, num_episodes, num_transitions: of what is soundly in it.
    """

    def __init__(
        self,
        path: Path,
        schema: EpisodeSchema,
        arrow_schema: pa.Schema,
        *,
        num_bytes: int,
    ) -> None:
        match = SEGMENT_NAME.fullmatch(path.name)
        header = (arrow_schema.metadata or {}).get(_HEADER_KEY)
        if match is None or header is None:
            raise DataError(f"{path}: expected a segment of a replay shard")
        self.path = path
        self.sequence, self.incarnation = int(match[1]), int(match[2])
        self.schema = schema
        inserted = json.loads(header)
        self.inserted_episodes_before: int = inserted["inserted_episodes"]
        self.inserted_transitions_before: int = inserted["inserted_timesteps"]
        self.num_bytes = num_bytes
        self.num_episodes = 0
        self.num_transitions = 0
        self._repeated_episodes = self._repeated_transitions = 0
        self.damaged: list[int] = []
        """Where episodes begin that `scan` found damaged."""
        self._arrow_schema = arrow_schema
        self._descriptor: int | None = None
        self._mapped: pa.Buffer | None = None

    @property
    def inserted_episodes(self) -> int:
        """Episodes inserted into the directory up to this segment's end."""
        return self.inserted_episodes_before + self.num_episodes + self._repeated_episodes

    @property
    def inserted_transitions(self) -> int:
        """Transitions inserted into the directory up to this segment's end."""
        return self.inserted_transitions_before + self.num_transitions + self._repeated_transitions

    @classmethod
    def create(
        cls,
        directory: Path,
        schema: EpisodeSchema,
        *,
        sequence: int,
        incarnation: int,
        inserted_episodes: int,
        inserted_transitions: int,
        goal_rule: GoalRule | None,
    ) -> Segment:
        """A new segment without episodes; it appears whole, with its schema, or not at all.

        Raises:
            DataError: it cannot be written.
        """
        path = directory / f"segment_{sequence:08d}_{incarnation:06d}.arrows"
        arrow_schema = schema.to_arrow(goal_rule)
        header = json.dumps({"inserted_episodes": inserted_episodes, "inserted_timesteps": inserted_transitions})
        arrow_schema = arrow_schema.with_metadata({**arrow_schema.metadata, _HEADER_KEY: header.encode()})
        message = arrow_schema.serialize()
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_bytes(message)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _write_error(path, message.size, error) from error
        return cls(path, schema, arrow_schema, num_bytes=message.size)

    @classmethod
    def open(cls, path: Path) -> Segment:
        """A segment found on disk, of which nothing counts as sound before `scan`.

        Raises:
            DataError: it is no segment, or one of another schema version.
        """
        content = _map(path)
        schema, _ = read_stream(content, str(path))
        source = pa.BufferReader(content)
        return cls(path, schema, pa.ipc.open_stream(source).schema, num_bytes=source.tell())

    def scan(self, is_known: Callable[[EncodedEpisode], bool] = lambda encoded: False) -> Iterator[EncodedEpisode]:
        """Yield the sound episodes of an opened segment up to where it breaks off, counting them in.

        Those that are known already are passed over; they count as inserted here all the same.
        """
        _, episodes = scan_stream(_map(self.path), str(self.path))
        while True:
            try:
                encoded = next(episodes, None)
            except DataError:
                return
            if encoded is None:
                return
            if isinstance(encoded, DamagedEpisode):
                self.num_bytes = encoded.offset + encoded.num_bytes
                self.damaged.append(encoded.offset)
                continue
            self.num_bytes = encoded.offset + encoded.message.size
            if is_known(encoded):
                self._repeated_episodes += 1
                self._repeated_transitions += encoded.num_transitions
                continue
            self.num_episodes += 1
            self.num_transitions += encoded.num_transitions
            yield encoded

    def append(self, chunks: Sequence[pa.Buffer], *, num_episodes: int, num_transitions: int) -> int:
        """Append messages and return where the first begins; they are in the page cache, all of them, or none.

        Raises:
            DataError: the disk is full or fails; the segment is as before.
        """
        start = self.num_bytes
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDWR)
            end = start
            for chunk in chunks:
                end = _write_all(self._descriptor, chunk, end)
        except OSError as error:
            self._cut_file(start)
            raise _write_error(self.path, sum(chunk.size for chunk in chunks), error) from error
        self.num_bytes = end
        self.num_episodes += num_episodes
        self.num_transitions += num_transitions
        return start

    def read(self, offset: int, num_bytes: int) -> pa.Buffer:
        """One episode as it was appended, as a view on the mapped file."""
        if self._mapped is None or self._mapped.size < offset + num_bytes:
            self._mapped = _map(self.path)
        return self._mapped.slice(offset, num_bytes)

    def unmap(self) -> None:
        """Let go of the mapping; views that still use it keep it alive."""
        self._mapped = None

    def cut(self, num_bytes: int, *, num_episodes: int, num_transitions: int) -> int:
        """Shorten the file to its first `num_bytes`, which hold so much; returns the bytes cut.

        Nothing may still use a view on what is cut.
        """
        self.unmap()
        num_cut = self.path.stat().st_size - num_bytes
        if num_cut > 0:
            self._cut_file(num_bytes)
        self.num_bytes, self.num_episodes, self.num_transitions = num_bytes, num_episodes, num_transitions
        return num_cut

    def sync(self) -> None:
        """Force what was appended from the page cache to the disk."""
        if self._descriptor is not None:
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file; reading and appending open it again."""
        self.unmap()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def delete(self) -> None:
        """Remove the file; views on it stay valid."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _cut_file(self, num_bytes: int) -> None:
        os.truncate(self.path, num_bytes)


def _write_all(descriptor: int, chunk: pa.Buffer, offset: int) -> int:
    """Write a chunk at `offset`; returns where it ends."""
    view = memoryview(chunk)
    while len(view):
        num_written = os.pwrite(descriptor, view, offset)
        offset += num_written
        view = view[num_written:]
    return offset


def _map(path: Path) -> pa.Buffer:
    with path.open("rb") as file:
        return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _write_error(path: Path, num_bytes: int, error: OSError) -> DataError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    what = "disk full" if full else error.strerror
    return DataError(f"{path}: {what}: cannot append {num_bytes} bytes; nothing of them was stored")
