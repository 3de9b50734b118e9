"""`Segment`: one append-only file of whole episodes."""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from amago_ray.data.arrow_codec import DamagedEpisode, EncodedEpisode, read_stream, scan_stream
from amago_ray.data.arrow_schema import EpisodeSchema
from amago_ray.data.goal_rule import GoalRule
from amago_ray.errors import DamagedError, DataError, DiskFullError
from amago_ray.replay.inventory import Cause, Count
from amago_ray.replay.layout import FULL, SEGMENT_NAME

_HEADER_KEY = b"amago_ray.segment"
_CHECKSUM_KEY = b"amago_ray.segment_crc32"


class LossError(DamagedError):
    """What lay in bytes `start:stop` of a segment is lost, or the last of it."""

    def __init__(self, sequence: int, cause: Cause, start: int = 0, stop: int = 2**63 - 1) -> None:
        super().__init__(f"segment {sequence}: {cause} from byte {start} on")
        self.sequence, self.cause, self.start, self.stop = sequence, cause, start, stop


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
        self.repeated = Count()
        """Episodes that `scan` passed over as they are in another segment, too."""
        self._arrow_schema = arrow_schema
        self.is_whole = True
        """Whether it can take appends: what is cut short by others is left as it is."""
        self._descriptor: int | None = None
        self._file: mmap.mmap | None = None
        self._mapped: pa.Buffer | None = None

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
        metadata = {**arrow_schema.metadata, _HEADER_KEY: header.encode()}
        arrow_schema = arrow_schema.with_metadata({**metadata, _CHECKSUM_KEY: _checksum(metadata)})
        message = arrow_schema.serialize()
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_bytes(message)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise write_error(path, message.size, error) from error
        return cls(path, schema, arrow_schema, num_bytes=message.size)

    @classmethod
    def open(cls, path: Path) -> Segment:
        """A segment found on disk, of which nothing counts as sound before `scan`.

        Raises:
            DamagedError: its header is not what was written.
            DataError: it is no segment, or one of another schema version.
        """
        _, content = _map(path)
        try:
            source = pa.BufferReader(content)
            arrow_schema = pa.ipc.open_stream(source).schema
            num_bytes = source.tell()
        except (pa.ArrowInvalid, OSError) as error:
            raise DamagedError(f"{path}: expected an Arrow IPC stream ({error})") from error
        metadata = dict(arrow_schema.metadata or {})
        # Segments of earlier versions have none.
        checksum = metadata.pop(_CHECKSUM_KEY, None)
        if checksum is not None and checksum != _checksum(metadata):
            raise DamagedError(f"{path}: its header is damaged")
        schema, _ = read_stream(content, str(path))
        return cls(path, schema, arrow_schema, num_bytes=num_bytes)

    def scan(self, is_known: Callable[[EncodedEpisode], bool] = lambda encoded: False) -> Iterator[EncodedEpisode]:
        """Yield the sound episodes of an opened segment up to where it breaks off, counting them in.

        Those that are known already are passed over.
        """
        _, content = _map(self.path)
        _, episodes = scan_stream(content, str(self.path))
        while True:
            try:
                encoded = next(episodes, None)
            except DataError:
                return
            if encoded is None:
                return
            if isinstance(encoded, DamagedEpisode):
                self.num_bytes = encoded.offset + encoded.num_bytes
                continue
            self.num_bytes = encoded.offset + encoded.message.size
            if is_known(encoded):
                self.repeated += Count(1, encoded.num_transitions)
                continue
            self.num_episodes += 1
            self.num_transitions += encoded.num_transitions
            yield encoded

    def append(self, chunks: Sequence[pa.Buffer], *, num_episodes: int, num_transitions: int) -> int:
        """Append messages and return where the first begins; they are in the page cache, all of them, or none.

        Raises:
            LossError: others have deleted or cut the file.
            DiskFullError: there is no room; the segment is as before.
            DataError: the disk fails; the segment is as before.
        """
        start = self.num_bytes
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise LossError(self.sequence, "deleted") from error
        except OSError as error:
            raise DataError(f"{self.path}: cannot append ({error.strerror})") from error
        status = os.fstat(self._descriptor)
        if status.st_nlink == 0:
            raise LossError(self.sequence, "deleted")
        if status.st_size < start:
            raise LossError(self.sequence, "damaged", status.st_size)
        try:
            end = start
            for chunk in chunks:
                end = _write_all(self._descriptor, chunk, end)
        except OSError as error:
            os.ftruncate(self._descriptor, start)
            raise write_error(self.path, sum(chunk.size for chunk in chunks), error) from error
        self.num_bytes = end
        self.num_episodes += num_episodes
        self.num_transitions += num_transitions
        return start

    def read(self, offset: int, num_bytes: int, checksum: int) -> pa.Buffer:
        """One episode as it was appended, as a view on the mapped file.

        Raises:
            LossError: it is gone, or not what was appended.
        """
        if self._mapped is None or self._mapped.size < offset + num_bytes:
            try:
                self._file, self._mapped = _map(self.path)
            except FileNotFoundError as error:
                raise LossError(self.sequence, "deleted") from error
            except (OSError, ValueError) as error:
                # Nothing, not even its header, is left of it, or the disk cannot give it.
                raise LossError(self.sequence, "damaged") from error
        assert self._file is not None
        # Looked at before its pages are: those of a file that others cut short cannot be had, and cost the process.
        size = self._file.size()
        if size < offset + num_bytes:
            raise LossError(self.sequence, "damaged", size)
        message = self._mapped.slice(offset, num_bytes)
        if zlib.crc32(message) != checksum:
            raise LossError(self.sequence, "damaged", offset, offset + num_bytes)
        return message

    def forget(self, *, num_episodes: int, num_transitions: int) -> None:
        """So much in it is lost."""
        self.num_episodes -= num_episodes
        self.num_transitions -= num_transitions

    def unmap(self) -> None:
        """Let go of the mapping; views that still use it keep it alive."""
        self._file = self._mapped = None

    def cut(self, num_bytes: int, *, num_episodes: int, num_transitions: int) -> int:
        """Shorten the file to its first `num_bytes`, which hold so much; returns the bytes cut.

        Nothing may still use a view on what is cut.
        """
        self.unmap()
        num_cut = self.path.stat().st_size - num_bytes
        if num_cut > 0:
            os.truncate(self.path, num_bytes)
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


def _write_all(descriptor: int, chunk: pa.Buffer, offset: int) -> int:
    """Write a chunk at `offset`; returns where it ends."""
    view = memoryview(chunk)
    while len(view):
        num_written = os.pwrite(descriptor, view, offset)
        offset += num_written
        view = view[num_written:]
    return offset


def _map(path: Path) -> tuple[mmap.mmap, pa.Buffer]:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return mapped, pa.py_buffer(mapped)


def _checksum(metadata: Mapping[bytes, bytes]) -> bytes:
    return b"%08x" % zlib.crc32(b"".join(key + value for key, value in sorted(metadata.items())))


def write_error(path: Path, num_bytes: int, error: OSError) -> DataError:
    """What an append that failed says."""
    if error.errno in FULL:
        return DiskFullError(f"{path}: disk full: cannot append {num_bytes} bytes; nothing of them was stored")
    return DataError(f"{path}: {error.strerror}: cannot append {num_bytes} bytes; nothing of them was stored")
