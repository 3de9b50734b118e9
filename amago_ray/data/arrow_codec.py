"""Episodes in Arrow: one record batch each, in an IPC *stream*.

A stream has one schema for all its batches, and a batch's columns all have one length, so what is said once per
episode (id, flags, seed, versions) travels as custom metadata of the batch's message: no column is wasted on it, and
any Arrow reader can show it. Reading costs no copy: columns are views on the buffer, read-only as it is. Beside the
header stands a CRC-32 of header and columns, made where the episode is encoded and compared by `scan_stream`.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from amago_ray.data.arrow_schema import REWARD, Column, EpisodeSchema
from amago_ray.data.episode import AchievedGoals, Episode, EpisodeId, PolicyVersion, validate_episode
from amago_ray.data.goal_rule import GoalRule
from amago_ray.errors import DataError

_EPISODE_KEY = b"amago_ray.episode"
_CHECKSUM_KEY = b"amago_ray.crc32"
_INT64_LIMIT = 2**63
_GOAL_OFFSETS = Column("offsets", (), "int32")


class EpisodeHeader(NamedTuple):
    """What is said once per episode."""

    episode_id: EpisodeId
    env_name: str
    seed: int
    terminated: bool
    truncated: bool
    first_policy_version: PolicyVersion
    last_policy_version: PolicyVersion

    @classmethod
    def from_episode(cls, episode: Episode) -> EpisodeHeader:
        """The header of an episode."""
        return cls(
            EpisodeId(*map(int, episode.episode_id)),
            str(episode.env_name),
            int(episode.seed),
            bool(episode.terminated),
            bool(episode.truncated),
            PolicyVersion(*map(int, episode.first_policy_version)),
            PolicyVersion(*map(int, episode.last_policy_version)),
        )

    def to_json(self) -> bytes:
        """As custom metadata of a record batch."""
        return json.dumps(self).encode()

    @classmethod
    def from_metadata(cls, metadata: pa.KeyValueMetadata | None, where: str) -> EpisodeHeader:
        """Read back what `to_json` wrote.

        Raises:
            DataError: it is missing or malformed.
        """
        try:
            if metadata is None:
                raise KeyError(_EPISODE_KEY)
            episode_id, env_name, seed, terminated, truncated, first, last = json.loads(metadata[_EPISODE_KEY])
            for number in (*episode_id, seed, *first, *last):
                if not -_INT64_LIMIT <= number < _INT64_LIMIT:
                    raise ValueError(f"{number} needs more than 64 bits")
            return cls(
                EpisodeId(*episode_id),
                str(env_name),
                seed,
                bool(terminated),
                bool(truncated),
                PolicyVersion(*first),
                PolicyVersion(*last),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{where}: expected an episode's header in the batch metadata ({error!r})") from error


class EncodedEpisode(NamedTuple):
    """One episode in a stream: its message takes bytes `offset : offset + message.size`.

    layout: where in the message the values of each column begin, and before those of achieved goals their offsets.
    checksum: CRC-32 of the message.
    """

    header: EpisodeHeader
    message: pa.Buffer
    offset: int
    num_transitions: int
    layout: tuple[int, ...]
    checksum: int


class DamagedEpisode(NamedTuple):
    """An episode that is not as it was encoded; its message takes bytes `offset : offset + num_bytes`."""

    offset: int
    num_bytes: int


class _Message(NamedTuple):
    batch: pa.RecordBatch
    metadata: pa.KeyValueMetadata | None
    offset: int
    content: pa.Buffer


def encode_episodes(
    episodes: Sequence[Episode], *, schema: EpisodeSchema | None = None, goal_rule: GoalRule | None = None
) -> pa.Buffer:
    """A group of at least one episode as an Arrow IPC stream; `schema` is that of the first one by default.

    The buffer pickles out of band, so it travels between processes without a copy.

    Raises:
        DataError: the group is empty, or an episode is invalid or of another schema.
    """
    if not episodes:
        raise DataError("group of episodes: expected at least one, got none")
    if schema is None:
        validate_episode(episodes[0])
        schema = EpisodeSchema.from_episode(episodes[0])
    arrow_schema = schema.to_arrow(goal_rule)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, arrow_schema) as writer:
        for episode in episodes:
            validate_episode(episode)
            if not schema.fits(episode):
                schema.require(EpisodeSchema.from_episode(episode), f"episode {tuple(episode.episode_id)}")
            batch = to_record_batch(episode, schema, arrow_schema)
            header = EpisodeHeader.from_episode(episode).to_json()
            metadata = {_EPISODE_KEY: header, _CHECKSUM_KEY: b"%08x" % _checksum(header, batch)}
            writer.write_batch(batch, custom_metadata=metadata)
    return sink.getvalue()


def decode_episodes(group: bytes | pa.Buffer) -> list[Episode]:
    """The episodes of a stream, as read-only views on `group`.

    Raises:
        DataError: the stream is broken, or of another schema version.
    """
    schema, encoded = read_stream(group, "group of episodes")
    return [to_episode(entry, schema) for entry in encoded]


def read_stream(group: bytes | pa.Buffer, where: str) -> tuple[EpisodeSchema, Iterator[EncodedEpisode]]:
    """The schema of a stream and, lazily, its episodes; nothing is copied.

    The iterator raises DataError where the stream breaks off or a batch is malformed; all before it is sound.

    Raises:
        DataError: the stream has no readable schema, or one of another version.
    """
    schema, messages = _open_stream(group, where)
    return schema, (_decode(message, schema, where) for message in messages)


def scan_stream(
    group: bytes | pa.Buffer, where: str
) -> tuple[EpisodeSchema, Iterator[EncodedEpisode | DamagedEpisode]]:
    """As `read_stream`, for a stream that may have been damaged: each episode is compared with its checksum.

    The iterator raises DataError where the stream breaks off.

    Raises:
        DataError: the stream has no readable schema, or one of another version.
    """
    schema, messages = _open_stream(group, where)
    return schema, (_examine(message, schema, where) for message in messages)


def to_record_batch(episode: Episode, schema: EpisodeSchema, arrow_schema: pa.Schema) -> pa.RecordBatch:
    """T+1 rows; row T of actions and rewards is a zero filler."""
    num_rows = len(episode) + 1
    columns = [episode.observations[name] for name in schema.leaf_names]
    columns += [_fill_last_row(episode.actions), _fill_last_row(episode.rewards)]
    achieved = episode.achieved_goals
    if achieved is not None:
        columns.append(achieved.values)
    if episode.action_mask is not None:
        columns.append(episode.action_mask)
    arrays: list[pa.Array] = []
    for arrow_type, column, values in zip(schema.arrow_types, schema.columns, columns, strict=True):
        if achieved is not None and column is schema.achieved_goals:
            offsets = pa.py_buffer(np.ascontiguousarray(achieved.offsets, np.int32))
            goals = _to_arrow(arrow_type.value_type, values)
            arrays.append(pa.Array.from_buffers(arrow_type, num_rows, [None, offsets], children=[goals]))
        else:
            arrays.append(_to_arrow(arrow_type, values))
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema)


def to_episode(encoded: EncodedEpisode, schema: EpisodeSchema) -> Episode:
    """An episode whose columns are views on its message."""
    return view_episode(encoded.message, encoded.layout, encoded.num_transitions, encoded.header, schema)


def view_episode(
    message: pa.Buffer, layout: Sequence[int], num_transitions: int, header: EpisodeHeader, schema: EpisodeSchema
) -> Episode:
    """As `to_episode`, of a message that Arrow need not parse again."""
    num_rows = num_transitions + 1
    starts = iter(layout)
    observations = {
        name: _view(column, num_rows, message, next(starts))
        for name, column in zip(schema.leaf_names, schema.observations, strict=True)
    }
    actions = _view(schema.action, num_rows, message, next(starts))[:-1]
    rewards = _view(REWARD, num_transitions, message, next(starts))
    achieved: AchievedGoals | None = None
    if schema.achieved_goals is not None:
        offsets: npt.NDArray[np.int32] = _view(_GOAL_OFFSETS, num_rows + 1, message, next(starts))
        achieved = AchievedGoals(_view(schema.achieved_goals, int(offsets[-1]), message, next(starts)), offsets)
    return Episode(
        observations=observations,
        actions=actions,
        rewards=rewards,
        terminated=header.terminated,
        truncated=header.truncated,
        episode_id=header.episode_id,
        env_name=header.env_name,
        seed=header.seed,
        first_policy_version=header.first_policy_version,
        last_policy_version=header.last_policy_version,
        achieved_goals=achieved,
        action_mask=None if schema.action_mask is None else _view(schema.action_mask, num_rows, message, next(starts)),
    )


def _open_stream(group: bytes | pa.Buffer, where: str) -> tuple[EpisodeSchema, Iterator[_Message]]:
    content = pa.py_buffer(group)
    source = pa.BufferReader(content)
    try:
        reader = pa.ipc.open_stream(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{where}: expected an Arrow IPC stream ({error})") from error
    return EpisodeSchema.from_arrow(reader.schema, where), _read_messages(reader, source, content, where)


def _read_messages(
    reader: pa.RecordBatchStreamReader, source: pa.BufferReader, content: pa.Buffer, where: str
) -> Iterator[_Message]:
    while True:
        offset = source.tell()
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            return
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{where}: broken at byte {offset} ({error})") from error
        yield _Message(batch, metadata, offset, content.slice(offset, source.tell() - offset))


def _decode(message: _Message, schema: EpisodeSchema, where: str) -> EncodedEpisode:
    batch = message.batch
    if batch.num_rows < 2:
        raise DataError(f"{where}: expected episodes of at least 1 transition, got {batch.num_rows - 1}")
    if schema.achieved_goals is not None:
        goals = batch.column(len(schema.observations) + 2)
        offsets = np.frombuffer(goals.buffers()[1], np.int32, batch.num_rows + 1)
        if offsets[0] != 0 or offsets[-1] != len(goals.values) or (offsets[1:] < offsets[:-1]).any():
            raise DataError(f"{where}: achieved goals: offsets do not span the goals")
    header = EpisodeHeader.from_metadata(message.metadata, where)
    content = message.content
    layout = _layout(batch, content, schema, where)
    return EncodedEpisode(header, content, message.offset, batch.num_rows - 1, layout, zlib.crc32(content))


def _layout(batch: pa.RecordBatch, content: pa.Buffer, schema: EpisodeSchema, where: str) -> tuple[int, ...]:
    starts: list[int] = []
    for column, array in zip(schema.columns, batch.columns, strict=True):
        buffers = array.buffers()
        for buffer in [buffers[1], buffers[-1]] if column is schema.achieved_goals else [buffers[-1]]:
            starts.append(0 if buffer is None or not buffer.size else buffer.address - content.address)
    if not all(0 <= start < content.size for start in starts):
        raise DataError(f"{where}: expected columns as they lie in memory, got compressed ones")
    return tuple(starts)


def _examine(message: _Message, schema: EpisodeSchema, where: str) -> EncodedEpisode | DamagedEpisode:
    metadata = message.metadata
    damaged = DamagedEpisode(message.offset, message.content.size)
    if metadata is None or _EPISODE_KEY not in metadata or _CHECKSUM_KEY not in metadata:
        return damaged
    if metadata[_CHECKSUM_KEY] != b"%08x" % _checksum(metadata[_EPISODE_KEY], message.batch):
        return damaged
    return _decode(message, schema, where)


def _checksum(header: bytes, batch: pa.RecordBatch) -> int:
    checksum = zlib.crc32(header, batch.num_rows)
    for column in batch.columns:
        for buffer in column.buffers():
            if buffer is not None:
                checksum = zlib.crc32(buffer, checksum)
    return checksum


def _to_arrow(arrow_type: pa.DataType, values: npt.NDArray[Any]) -> pa.Array:
    data = pa.py_buffer(np.ascontiguousarray(values))
    if not pa.types.is_fixed_size_list(arrow_type):
        return pa.Array.from_buffers(arrow_type, len(values), [None, data])
    flat = pa.Array.from_buffers(arrow_type.value_type, values.size, [None, data])
    return pa.Array.from_buffers(arrow_type, len(values), [None], children=[flat])


def _view(column: Column, num_rows: int, message: pa.Buffer, start: int) -> npt.NDArray[Any]:
    shape = (num_rows, *column.shape)
    if 0 not in shape:
        return np.ndarray(shape, column.dtype, buffer=message, offset=start)
    empty: npt.NDArray[Any] = np.empty(shape, column.dtype)
    empty.flags.writeable = False
    return empty


def _fill_last_row(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    filled = np.zeros((len(values) + 1, *values.shape[1:]), values.dtype)
    filled[:-1] = values
    return filled
