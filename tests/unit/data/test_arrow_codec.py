"""Episodes through Arrow and back."""

import pickle
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from helpers.episodes import assert_equal_episodes, episodes, make_episode
from hypothesis import given

from amago_ray.data.arrow_codec import (
    DamagedEpisode,
    EncodedEpisode,
    decode_episodes,
    encode_episodes,
    read_stream,
    scan_stream,
    to_episode,
)
from amago_ray.data.arrow_schema import EpisodeSchema
from amago_ray.errors import DataError


def views(episode):
    yield from episode.observations.values()
    yield episode.actions
    yield episode.rewards
    if episode.achieved_goals is not None:
        yield episode.achieved_goals.values
        yield episode.achieved_goals.offsets
    if episode.action_mask is not None:
        yield episode.action_mask


@given(episodes())
def test_round_trip(episode):
    (found,) = decode_episodes(encode_episodes([episode]))
    assert_equal_episodes(found, episode)


def test_round_trip_of_a_group_with_one_transition_and_no_goals():
    group = [make_episode(1, counter=0, goals_per_row=(0,)), make_episode(40, counter=1, goals_per_row=(0, 3))]
    for found, expected in zip(decode_episodes(encode_episodes(group).to_pybytes()), group, strict=True):
        assert_equal_episodes(found, expected)


def test_reading_is_a_view_and_read_only_pitfall_a5():
    group = encode_episodes([make_episode(8, has_action_mask=True)])
    (found,) = decode_episodes(group)
    start, end = group.address, group.address + group.size
    for view in views(found):
        assert not view.flags.writeable
        assert start <= view.__array_interface__["data"][0] < end


def test_discrete_actions_beyond_256_survive_pitfall_a9():
    episode = make_episode(4, grid=1000)
    episode = replace(episode, actions=np.array([0, 255, 256, 70_000]))
    (found,) = decode_episodes(encode_episodes([episode]))
    assert found.actions.tolist() == [0, 255, 256, 70_000]
    assert found.actions.dtype == np.int64


def test_leaves_are_sorted_whatever_the_order_of_the_dict_pitfall_a10():
    episode = make_episode(4)
    turned = replace(episode, observations=dict(sorted(episode.observations.items(), reverse=True)))
    assert list(turned.observations) != sorted(turned.observations)
    first, second = encode_episodes([episode]), encode_episodes([turned])
    assert first.equals(second)
    assert list(decode_episodes(second)[0].observations) == ["desired_goal", "observation"]
    assert EpisodeSchema.from_episode(turned).leaf_names == ("desired_goal", "observation")


def test_numpy_scalars_in_the_header_become_plain_ones():
    episode = replace(make_episode(2), seed=np.int64(5), terminated=np.True_, env_name=np.str_("x"))
    (found,) = decode_episodes(encode_episodes([episode]))
    assert (type(found.seed), type(found.terminated), type(found.env_name)) == (int, bool, str)


def test_groups_pickle_out_of_band():
    buffers = []
    group = encode_episodes([make_episode(100, grid=1000)])
    data = pickle.dumps(group, protocol=5, buffer_callback=buffers.append)
    assert len(data) < 500
    assert len(buffers) == 1


def test_empty_group_is_refused():
    with pytest.raises(DataError, match="expected at least one, got none"):
        encode_episodes([])


def test_invalid_episode_is_refused():
    episode = make_episode(4)
    with pytest.raises(DataError, match="actions: expected"):
        encode_episodes([replace(episode, actions=episode.actions[1:])])


def test_group_of_unequal_episodes_is_refused_and_the_column_named():
    other = make_episode(4, num_goals=3, counter=7)
    message = r"episode \(1, 0, 0, 7\): column 'observations/desired_goal'.*expected int32\[2, 2\], got int32\[3, 2\]"
    with pytest.raises(DataError, match=message):
        encode_episodes([make_episode(4), other])


def test_garbage_is_refused():
    with pytest.raises(DataError, match="expected an Arrow IPC stream"):
        decode_episodes(b"no arrow at all")


def test_batch_without_header_is_refused():
    with pa.ipc.open_stream(encode_episodes([make_episode(3)])) as reader:
        batch, schema = reader.read_next_batch(), reader.schema
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(DataError, match="expected an episode's header"):
        decode_episodes(sink.getvalue())


def test_offsets_that_do_not_span_the_goals_are_refused():
    group = encode_episodes([make_episode(3, grid=1000)])
    (found,) = decode_episodes(group)
    offset = found.achieved_goals.offsets.__array_interface__["data"][0] - group.address
    broken = bytearray(group.to_pybytes())
    broken[offset + 4 : offset + 8] = (99).to_bytes(4, "little")
    with pytest.raises(DataError, match="offsets do not span the goals"):
        decode_episodes(bytes(broken))


def test_broken_stream_yields_what_is_sound_before_it():
    group = encode_episodes([make_episode(3, counter=0), make_episode(30, counter=1, grid=1000)]).to_pybytes()
    _, encoded = read_stream(group[:-500], "here")
    assert next(encoded).header.episode_id.counter == 0
    with pytest.raises(DataError, match="here: broken at byte"):
        next(encoded)


def test_no_flipped_byte_makes_another_episode():
    """It is found damaged, breaks the stream, or (between what is read) changes nothing."""
    episode = make_episode(6, has_action_mask=True)
    group = bytearray(encode_episodes([episode]).to_pybytes())
    schema, entries = scan_stream(bytes(group), "test")
    (whole,) = entries
    assert isinstance(whole, EncodedEpisode)
    (batch,) = pa.ipc.open_stream(bytes(group))
    body = sum(buffer.size for column in batch.columns for buffer in column.buffers() if buffer is not None)
    num_damaged = 0
    for position in range(whole.offset, whole.offset + whole.message.size):
        group[position] ^= 0x10
        with suppress(DataError):
            for entry in scan_stream(bytes(group), "test")[1]:
                if isinstance(entry, DamagedEpisode):
                    num_damaged += 1
                else:
                    assert_equal_episodes(to_episode(entry, schema), episode)
        group[position] ^= 0x10
    assert num_damaged >= body


def test_seed_beyond_64_bits_is_refused():
    group = encode_episodes([replace(make_episode(3), seed=2**63)])
    with pytest.raises(DataError, match="more than 64 bits"):
        decode_episodes(group)
