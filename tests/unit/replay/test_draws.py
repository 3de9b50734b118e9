"""Every stored episode, or transition, of all shards is equally likely, while shards die and return."""

from dataclasses import fields

import numpy as np
import pytest
from helpers.numeric import assert_share

from amago_ray.data import EpisodeId, PolicyVersion
from amago_ray.data.arrow_codec import EpisodeHeader
from amago_ray.replay.draws import draw_shards
from amago_ray.replay.index import EpisodeTable, StoredEpisode
from amago_ray.replay.reports import ShardReport

LENGTHS = {0: [1, 9, 2], 4: [5], 7: [3, 3, 30, 1, 1, 8], 9: []}
"""Of the episodes of each shard."""


def report(lengths):
    values = {field.name: 0 for field in fields(ShardReport)}
    return ShardReport(**{**values, "stored_episodes": len(lengths), "stored_transitions": sum(lengths)})


def table_of(lengths):
    table = EpisodeTable()
    for counter, length in enumerate(lengths):
        version = PolicyVersion(0, 0)
        header = EpisodeHeader(EpisodeId(0, 0, 0, counter), "env", 0, True, False, version, version)
        table.append(StoredEpisode(0, 100 * counter, 100, length, header, (0,), 0))
    return table


class EveryNumberOnce:
    """Stands for a random generator: its integers run through the whole range, each once."""

    def integers(self, high, size):
        return np.arange(high)


@pytest.mark.parametrize("sampling", ["episodes", "timesteps"])
def test_shards_come_exactly_in_proportion_to_what_they_hold(sampling):
    reports = {number: report(lengths) for number, lengths in LENGTHS.items()}
    drawn = draw_shards(reports, sampling, 1, EveryNumberOnce())
    sizes = {number: len(lengths) if sampling == "episodes" else sum(lengths) for number, lengths in LENGTHS.items()}
    assert {number: drawn.count(number) for number in LENGTHS} == sizes


@pytest.mark.parametrize("sampling", ["episodes", "timesteps"])
def test_each_episode_is_as_likely_as_it_should_be_while_shards_die_and_return(sampling):
    """A request whose shard is dead when it is served is drawn anew; shares are those of the shards that live."""
    rng = np.random.default_rng(5)
    reports = {number: report(lengths) for number, lengths in LENGTHS.items()}
    tables = {number: table_of(lengths) for number, lengths in LENGTHS.items()}
    num_draws = 20_000
    for dead in (None, 7, 0):
        counts = {number: np.zeros(len(lengths)) for number, lengths in LENGTHS.items()}
        for _ in range(num_draws):
            number = dead
            while number == dead:
                (number,) = draw_shards(reports, sampling, 1, rng)
            counts[number][int(tables[number].draw(1, sampling, rng)[0])] += 1
        weights = {
            number: np.array([1 if sampling == "episodes" else length for length in lengths])
            for number, lengths in LENGTHS.items()
            if number != dead
        }
        total = sum(each.sum() for each in weights.values())
        for number, of_shard in weights.items():
            for count, weight in zip(counts[number], of_shard, strict=True):
                assert_share(count / num_draws, weight / total, num_draws)
