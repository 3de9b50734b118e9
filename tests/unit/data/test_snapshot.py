"""Versions and snapshots: the order of weights, and arrays that hold every dtype."""

from __future__ import annotations

import dataclasses
import itertools
import pickle

import numpy as np
import pytest

from amago_ray.data.episode import PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.data.snapshot import BFLOAT16, Snapshot


def test_a_restored_learners_weights_count_as_newer() -> None:
    """Compared by incarnation first, so that fewer updates of a later incarnation are newer."""
    ordered = [PolicyVersion(-1, -1), PolicyVersion(0, 0), PolicyVersion(0, 500), PolicyVersion(1, 20)]
    assert all(older < newer for older, newer in itertools.pairwise(ordered))
    assert max(ordered) == PolicyVersion(1, 20)


def test_bfloat16_arrays_are_bits_of_their_own_dtype() -> None:
    bits = np.array([0x3F80, 0xC000], np.uint16).view(BFLOAT16)
    assert bits.dtype == BFLOAT16
    assert bits.dtype != np.dtype(np.uint16), "not to be taken for integers"
    assert bits.dtype.itemsize == 2
    assert bits.view(np.uint16).tolist() == [0x3F80, 0xC000]


def test_a_snapshot_is_frozen_and_travels_between_processes() -> None:
    arrays = {"a": np.arange(3, dtype=np.float32), "b": np.array([1], np.uint16).view(BFLOAT16)}
    snapshot = Snapshot(PolicyVersion(2, 7), arrays)
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.version = PolicyVersion(0, 0)  # type: ignore[misc]
    # A local copy, as Ray would hand it over.
    copied = pickle.loads(pickle.dumps(snapshot))
    assert copied.version == PolicyVersion(2, 7)
    assert list(copied.arrays) == ["a", "b"]
    for name, array in arrays.items():
        assert copied.arrays[name].dtype == array.dtype
        assert copied.arrays[name].tobytes() == array.tobytes()


def test_statistics_of_equal_episodes_are_equal() -> None:
    stats = EpisodeStats("env", 1.0, 5, 3, PolicyVersion(0, 1))
    assert stats == EpisodeStats("env", 1.0, 5, 3, PolicyVersion(0, 1), None, {})
    assert stats != dataclasses.replace(stats, success=0.0), "unknown is not a failure"
