"""A packed batch on its way to another process."""

import pickle

import numpy as np
import pytest
from helpers.episodes import episodes
from hypothesis import given

from amago_ray.data.packing import EpisodeSlice, pack_sequences


@given(episodes())
@pytest.mark.parametrize("protocol", [4, 5])
def test_a_batch_is_pickled_as_it_is(protocol, episode):
    batch = pack_sequences([EpisodeSlice(episode, 0, len(episode))] * 2)
    found = pickle.loads(pickle.dumps(batch, protocol=protocol))
    assert list(found.observations) == list(batch.observations)
    assert vars(found).keys() == vars(batch).keys()
    assert found.max_seqlen == batch.max_seqlen
    pairs = [(found.observations[name], leaf) for name, leaf in batch.observations.items()]
    pairs += [(vars(found)[name], value) for name, value in vars(batch).items() if isinstance(value, np.ndarray)]
    for left, right in pairs:
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert left.tobytes() == right.tobytes()
    assert (found.action_mask is None) == (batch.action_mask is None)


@given(episodes())
def test_a_batch_travels_in_one_buffer_of_which_its_columns_are_views(episode):
    buffers = []
    batch = pack_sequences([EpisodeSlice(episode, 0, len(episode))])
    data = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
    (buffer,) = buffers
    content = np.frombuffer(bytes(buffer), np.uint8)
    found = pickle.loads(data, buffers=[content])
    for column in (*found.observations.values(), found.prev_action, found.reward, found.cu_seqlens):
        assert np.shares_memory(column, content) or not column.size
        assert not column.flags.writeable
