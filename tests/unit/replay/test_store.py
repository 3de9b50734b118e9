"""The segments of a directory: rolling over, evicting, going back."""

from pathlib import Path

import pytest
from helpers.episodes import make_episode

from amago_ray.data.arrow_codec import encode_episodes, read_stream, to_episode
from amago_ray.data.arrow_schema import EpisodeSchema
from amago_ray.errors import DataError
from amago_ray.replay.inventory import Count
from amago_ray.replay.layout import find_segments
from amago_ray.replay.owner import NO_RUN
from amago_ray.replay.segment import Segment
from amago_ray.replay.store import MAX_MAPPED, SegmentStore

SCHEMA = EpisodeSchema.from_episode(make_episode(5))

MAPS = Path("/proc/self/maps")


def open_store(directory, **settings):
    defaults = {"shard": 0, "incarnation": 0, "segment_bytes": 10**9, "segment_transitions": 10, "fsync": "never"}
    store = SegmentStore(directory, NO_RUN, goal_rule=None, **{**defaults, **settings})
    return store, list(store.recover())


def append(store, counter, num_transitions=5):
    group = encode_episodes([make_episode(num_transitions, counter=counter, grid=1000)])
    _, encoded = read_stream(group, "test")
    (entry,) = encoded
    sequence, offset = store.append([entry.message], SCHEMA, num_episodes=1, num_transitions=num_transitions)
    return sequence, offset, entry


def files(directory):
    return [path.name for path in find_segments(directory)]


@pytest.mark.parametrize("fsync", ["never", "segment", "add"])
def test_full_segments_are_followed_by_new_ones(tmp_path, fsync):
    store, found = open_store(tmp_path, fsync=fsync)
    assert (found, store.schema, len(store), store.num_bytes, store.inventory.accepted) == ([], None, 0, 0, Count())
    assert [append(store, counter)[0] for counter in range(5)] == [0, 0, 1, 1, 2]
    assert store.schema == SCHEMA
    assert store.num_bytes == sum(path.stat().st_size for path in find_segments(tmp_path))
    assert store.inventory.accepted == Count(5, 25)
    store.close()


def test_segments_roll_over_by_bytes_too(tmp_path):
    store, _ = open_store(tmp_path, segment_bytes=1, segment_transitions=10**9)
    assert [append(store, counter)[0] for counter in range(3)] == [0, 1, 2]


def test_totals_survive_eviction_and_reopening(tmp_path):
    store, _ = open_store(tmp_path)
    for counter in range(5):
        append(store, counter)
    store.evict_oldest()
    assert files(tmp_path) == ["segment_00000001_000000.arrows", "segment_00000002_000000.arrows"]
    store.close()
    store, found = open_store(tmp_path, incarnation=1)
    assert [(sequence, encoded.header.episode_id.counter) for sequence, encoded in found] == [(1, 2), (1, 3), (2, 4)]
    assert store.inventory.accepted == Count(5, 25)


def test_reopened_by_a_newer_incarnation_appends_go_to_a_segment_of_its_own(tmp_path):
    store, _ = open_store(tmp_path)
    append(store, 0)
    newer, _ = open_store(tmp_path, incarnation=1)
    assert append(newer, 1)[0] == 1
    assert files(tmp_path) == ["segment_00000000_000000.arrows", "segment_00000001_000001.arrows"]
    with pytest.raises(DataError, match="belongs to incarnation 1"):
        append(store, 2)


def test_a_claim_during_an_append_keeps_it_from_being_acknowledged(tmp_path, monkeypatch):
    store, _ = open_store(tmp_path)
    append(store, 0)
    original = Segment.append

    def claimed_meanwhile(self, *args, **kwargs):
        open_store(tmp_path, incarnation=1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Segment, "append", claimed_meanwhile)
    with pytest.raises(DataError, match="belongs to incarnation 1"):
        append(store, 1)


def test_a_stale_segment_of_an_older_incarnation_is_removed(tmp_path):
    store, _ = open_store(tmp_path, incarnation=1)
    append(store, 0)
    (path,) = find_segments(tmp_path)
    path.with_name("segment_00000000_000000.arrows").write_bytes(path.read_bytes())
    reopened, found = open_store(tmp_path, incarnation=2)
    assert files(tmp_path) == ["segment_00000000_000001.arrows"]
    assert len(found) == 1
    assert reopened.torn_bytes == path.stat().st_size


def test_leftovers_of_a_crash_are_removed(tmp_path):
    store, _ = open_store(tmp_path)
    store.begin()
    store.close()
    (tmp_path / "segment_00000003_000000.tmp").write_bytes(b"half")
    (tmp_path / "segment_00000004_000000.arrows").touch()
    store, found = open_store(tmp_path)
    assert (found, len(store)) == ([], 0)
    assert not list(tmp_path.glob("segment_*"))


@pytest.mark.skipif(not MAPS.exists(), reason="the kernel does not tell what is mapped")
def test_few_segments_are_mapped_at_once(tmp_path):
    store, _ = open_store(tmp_path, segment_transitions=1)
    places = [append(store, counter) for counter in range(MAX_MAPPED + 20)]
    for _ in range(2):
        for counter, (sequence, offset, entry) in enumerate(places):
            message = store.read(sequence, offset, entry.message.size, entry.checksum)
            assert message.equals(entry.message)
            episode = to_episode(entry._replace(message=message), SCHEMA)
            assert episode.episode_id.counter == counter
    del message, episode
    assert sum(str(tmp_path) in line for line in MAPS.read_text().splitlines()) == MAX_MAPPED


def test_evicted_files_stay_until_the_next_watermark_but_one(tmp_path):
    store, _ = open_store(tmp_path)
    for counter in range(4):
        append(store, counter)
    mark = store.watermark()
    store.evict_oldest()
    append(store, 4)
    store.watermark()
    assert len(store) == 2
    assert len(files(tmp_path)) == 3
    reopened, _ = open_store(tmp_path)
    reopened.truncate(reopened.check_watermark(mark), last_num_episodes=2, last_num_transitions=10)
    assert files(tmp_path) == ["segment_00000000_000000.arrows", "segment_00000001_000000.arrows"]
    reopened.evict_oldest()
    reopened.watermark()
    assert len(files(tmp_path)) == 2
    reopened.watermark()
    assert files(tmp_path) == ["segment_00000001_000000.arrows"]
    with pytest.raises(DataError, match="cannot go back to the watermark: expected segments 0 to 1"):
        reopened.check_watermark(mark)


def test_malformed_watermarks_are_refused(tmp_path):
    store, _ = open_store(tmp_path)
    with pytest.raises(DataError, match="expected a watermark of a replay shard"):
        store.check_watermark({"step": 3})
