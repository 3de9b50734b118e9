"""Statistics of episodes on their way to the driver, who alone reads them: bytes to everyone else."""

from __future__ import annotations

import pickle

from amago_ray.data.episode import PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats


def pack(stats: EpisodeStats) -> bytes:
    """One episode's statistics as bytes: what passes thousands of them on need not make objects of them."""
    fields = (stats.env_name, stats.episode_return, stats.length, stats.counter, stats.success, dict(stats.events))
    return pickle.dumps((*fields, tuple(stats.policy_version)))


def unpack(packed: bytes) -> EpisodeStats:
    """The statistics that were packed in this run."""
    env_name, episode_return, length, counter, success, events, version = pickle.loads(packed)
    return EpisodeStats(env_name, episode_return, length, counter, PolicyVersion(*version), success, events)
