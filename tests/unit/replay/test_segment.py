"""One append-only file."""

import gc
import json
import resource

import numpy as np
import pyarrow as pa
import pytest
from helpers.episodes import assert_equal_episodes, make_episode

from amago_ray.data import GoalRule
from amago_ray.data.arrow_codec import encode_episodes, read_stream, to_episode
from amago_ray.data.arrow_schema import EpisodeSchema
from amago_ray.errors import DataError
from amago_ray.replay.layout import find_segments
from amago_ray.replay.segment import Segment

EPISODES = [make_episode(3 + counter, counter=counter, grid=1000) for counter in range(6)]
SCHEMA = EpisodeSchema.from_episode(EPISODES[0])


def create(directory):
    return Segment.create(
        directory,
        SCHEMA,
        sequence=4,
        incarnation=2,
        inserted_episodes=10,
        inserted_transitions=70,
        goal_rule=GoalRule(tolerance=0.5),
    )


def append(segment, episodes):
    """Append episodes; returns offset and size of each."""
    group = encode_episodes(episodes)
    _, encoded = read_stream(group, "test")
    entries = list(encoded)
    chunks = [entry.message for entry in entries]
    lengths = [len(episode) for episode in episodes]
    offset = segment.append(chunks, num_episodes=len(entries), num_transitions=sum(lengths))
    places = []
    for entry in entries:
        places.append((offset, entry.message.size, entry))
        offset += entry.message.size
    return places


def read(segment, place):
    offset, num_bytes, entry = place
    return to_episode(entry._replace(message=segment.read(offset, num_bytes, entry.checksum)), SCHEMA)


def test_episodes_can_be_read_while_the_segment_grows(tmp_path):
    segment = create(tmp_path)
    places = append(segment, EPISODES[:2])
    early = read(segment, places[1])
    places += append(segment, EPISODES[2:])
    for place, expected in zip(places, EPISODES, strict=True):
        assert_equal_episodes(read(segment, place), expected)
    assert_equal_episodes(early, EPISODES[1])
    assert segment.num_bytes == segment.path.stat().st_size
    assert (segment.num_episodes, segment.num_transitions) == (6, sum(map(len, EPISODES)))


def test_any_arrow_reader_reads_it(tmp_path):
    segment = create(tmp_path)
    append(segment, EPISODES)
    with pa.ipc.open_stream(segment.path) as reader:
        assert GoalRule(**json.loads(reader.schema.metadata[b"amago_ray.goal_rule"])) == GoalRule(tolerance=0.5)
        table = reader.read_all()
    assert table.num_rows == sum(len(episode) + 1 for episode in EPISODES)
    assert table["reward"].null_count == 0


def test_reopening_finds_everything(tmp_path):
    segment = create(tmp_path)
    append(segment, EPISODES)
    segment.close()
    (path,) = find_segments(tmp_path)
    found = Segment.open(path)
    assert (found.sequence, found.incarnation) == (4, 2)
    assert (found.inserted_episodes_before, found.inserted_transitions_before) == (10, 70)
    for encoded, expected in zip(found.scan(), EPISODES, strict=True):
        assert_equal_episodes(to_episode(encoded, found.schema), expected)
    assert (found.num_bytes, found.num_episodes, found.num_transitions) == (
        segment.num_bytes,
        segment.num_episodes,
        segment.num_transitions,
    )


@pytest.mark.parametrize("kept", [1, 3, 4, 7, 8, 9, 100, 0.5, 0.99])
def test_a_torn_tail_is_not_sound(tmp_path, kept):
    segment = create(tmp_path)
    places = append(segment, EPISODES)
    offset, num_bytes, _ = places[-1]
    num_kept = kept if isinstance(kept, int) else int(num_bytes * kept)
    with segment.path.open("r+b") as file:
        file.truncate(offset + num_kept)
    found = Segment.open(segment.path)
    assert [encoded.header.episode_id.counter for encoded in found.scan()] == [0, 1, 2, 3, 4]
    assert found.num_bytes == offset
    assert found.cut(offset, num_episodes=5, num_transitions=found.num_transitions) == num_kept
    assert segment.path.stat().st_size == offset
    append(found, EPISODES[5:])
    assert len(list(Segment.open(segment.path).scan())) == 6


@pytest.mark.parametrize("garbage", [b"\0" * 64, b"\xff" * 64, b"abcdefgh" * 8])
def test_garbage_at_the_end_is_not_sound(tmp_path, garbage):
    segment = create(tmp_path)
    append(segment, EPISODES)
    with segment.path.open("ab") as file:
        file.write(garbage)
    found = Segment.open(segment.path)
    assert len(list(found.scan())) == 6
    assert found.num_bytes == segment.num_bytes


def test_deleting_leaves_views_valid(tmp_path):
    segment = create(tmp_path)
    places = append(segment, EPISODES)
    episode = read(segment, places[2])
    segment.delete()
    gc.collect()
    assert not segment.path.exists()
    assert_equal_episodes(episode, EPISODES[2])
    assert not episode.rewards.flags.writeable


def test_a_full_disk_is_said_and_nothing_half_written_stays(tmp_path):
    segment = create(tmp_path)
    places = append(segment, EPISODES[:1])
    size = segment.path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, hard))
    try:
        with pytest.raises(DataError, match=r"disk full: cannot append \d+ bytes; nothing of them was stored"):
            append(segment, EPISODES[1:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert segment.path.stat().st_size == segment.num_bytes == size
    places += append(segment, EPISODES[1:])
    for place, expected in zip(places, EPISODES, strict=True):
        assert_equal_episodes(read(segment, place), expected)


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "segment_00000000_000000.arrows"
    path.write_bytes(encode_episodes(EPISODES).to_pybytes())
    with pytest.raises(DataError, match="expected a segment of a replay shard"):
        Segment.open(path)
    path.write_bytes(np.arange(100).tobytes())
    with pytest.raises(DataError, match=r"segment_00000000_000000\.arrows: expected an Arrow IPC stream"):
        Segment.open(path)
