"""The episode table: positions, exact draws, ids."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amago_ray.data import EpisodeId, PolicyVersion
from amago_ray.data.arrow_codec import EpisodeHeader
from amago_ray.replay.index import EpisodeIdSet, EpisodeTable, StoredEpisode


def stored(counter, num_transitions=5, segment=0):
    header = EpisodeHeader(
        EpisodeId(2**62, counter % 3, 1, counter),
        f"env{counter % 2}",
        counter - 7,
        counter % 2 == 0,
        counter % 5 == 0,
        PolicyVersion(0, counter),
        PolicyVersion(1, counter + 1),
    )
    layout = (counter, 2**32 - 1, 7)
    return StoredEpisode(segment, counter * 100, 100, num_transitions, header, layout, 2**32 - 1 - counter)


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["append", "drop_oldest", "drop_newest"]), st.integers(0, 700)), max_size=12
)


@given(OPERATIONS)
def test_table_equals_a_list(operations):
    table, expected, counter = EpisodeTable(), [], 0
    for operation, count in operations:
        if operation == "append":
            for _ in range(count):
                episode = stored(counter, 1 + counter % 7)
                table.append(episode)
                expected.append(episode)
                counter += 1
        else:
            count = min(count, len(expected))
            getattr(table, operation)(count)
            expected = expected[count:] if operation == "drop_oldest" else expected[: len(expected) - count]
        assert len(table) == len(expected)
        assert table.num_transitions == sum(episode.num_transitions for episode in expected)
    assert [table[position] for position in range(len(table))] == expected
    present = {episode.header.episode_id for episode in expected}
    for number in range(counter):
        episode_id = stored(number).header.episode_id
        assert (episode_id in table) == (episode_id in present)


def test_types_survive():
    table = EpisodeTable()
    table.append(stored(4))
    header = table[0].header
    assert isinstance(header.episode_id, EpisodeId)
    assert isinstance(header.last_policy_version, PolicyVersion)
    assert (type(header.terminated), type(header.seed), type(header.env_name)) == (bool, int, str)


class EveryNumberOnce:
    """Stands for a random generator: its integers run through the whole range, each once."""

    def integers(self, low, high=None, size=None):
        return np.arange(low) if high is None else np.arange(low, high)


@pytest.mark.parametrize("dropped", [0, 3])
def test_draws_are_exact(dropped):
    """Over all equally likely random numbers, each episode comes up once, or once per transition."""
    table, lengths = EpisodeTable(), [3, 1, 4, 1, 5, 9, 2, 6]
    for counter, length in enumerate(lengths):
        table.append(stored(counter, length))
    table.drop_oldest(dropped)
    table.drop_newest(1)
    lengths = lengths[dropped:-1]
    assert np.bincount(table.draw(1, "episodes", EveryNumberOnce())).tolist() == [1] * len(lengths)
    assert np.bincount(table.draw(1, "timesteps", EveryNumberOnce())).tolist() == lengths


def test_many_draws_follow_the_generator():
    table = EpisodeTable()
    for counter in range(10):
        table.append(stored(counter, 1 + 9 * (counter == 3)))
    rng = np.random.default_rng(0)
    assert abs(np.mean(table.draw(10_000, "episodes", rng) == 3) - 0.1) < 0.02
    assert abs(np.mean(table.draw(10_000, "timesteps", rng) == 3) - 10 / 19) < 0.03


@given(st.lists(st.tuples(st.booleans(), st.integers(-600, 600)), max_size=200))
def test_id_set_equals_a_set(operations):
    ids, expected = EpisodeIdSet(), set()
    for is_add, counter in operations:
        episode_id = EpisodeId(1, counter % 2, 0, counter)
        (ids.add if is_add else ids.discard)(episode_id)
        (expected.add if is_add else expected.discard)(episode_id)
    for counter in range(-600, 601):
        assert (EpisodeId(1, counter % 2, 0, counter) in ids) == (EpisodeId(1, counter % 2, 0, counter) in expected)


def test_id_set_stays_small():
    ids = EpisodeIdSet()
    tracemalloc.start()
    for window in range(8):
        # As a shard has them: new ones come, as many old ones go.
        for counter in range(5_000):
            ids.add(EpisodeId(1, 2, 3, 5_000 * window + counter))
            if window:
                ids.discard(EpisodeId(1, 2, 3, 5_000 * (window - 1) + counter))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 2 * 5_000, "at most two bytes for each that is in, nothing for those that were"
