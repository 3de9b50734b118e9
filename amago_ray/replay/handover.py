"""Hands over what a shard's directory holds, when another directory has taken its place."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from amago_ray.data.arrow_codec import encode_episodes, to_episode
from amago_ray.replay.layout import find_shards, shard_number
from amago_ray.replay.owner import Claim, epoch_of, run_id_of
from amago_ray.replay.store import SegmentStore

_EPISODES_PER_GROUP = 64


def find_files(replay: Path, run_id: int, wanted: Collection[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those of the wanted files of a run's shards, by number and epoch, that are in `replay`.

    Raises:
        DataError: whose a directory is cannot be read.
    """
    there = [
        (shard_number(directory), epoch_of(directory))
        for directory in find_shards(replay)
        if run_id_of(directory) == run_id
    ]
    return [each for each in there if each in wanted]


def hand_over(
    directory: Path, claim: Claim, *, shard: int, incarnation: int, take: Callable[[bytes], int]
) -> tuple[int, int]:
    """Give a shard's episodes to `take`, the newest segments first, and remove its directory.

    take: stores a group of encoded episodes, and returns how many of them it had room for and lacked. incarnation:
    above that of any process that wrote there, which can write no longer. Broken off, it can be done again.

    Returns: how many episodes were taken, of how many.

    Raises:
        DataError: the directory is another's by now, or cannot be read.
    """
    store = SegmentStore(
        directory,
        claim,
        shard=shard,
        incarnation=incarnation,
        segment_bytes=1,
        segment_transitions=1,
        fsync="never",
        goal_rule=None,
    )
    num_taken = num_found = 0
    if (schema := store.schema) is not None:
        segments = [[encoded for _, encoded in group] for _, group in groupby(store.recover(), key=itemgetter(0))]
        for segment in reversed(segments):
            num_found += len(segment)
            for start in range(0, len(segment), _EPISODES_PER_GROUP):
                group = segment[start : start + _EPISODES_PER_GROUP]
                num_taken += take(encode_episodes([to_episode(encoded, schema) for encoded in group]))
    store.remove()
    return num_taken, num_found
