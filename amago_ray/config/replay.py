"""Settings of replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from amago_ray.config.ranges import FOLDER, NON_NEGATIVE, POSITIVE, POSITIVE_INTEGER

MIN_SEGMENTS = 16
"""A full shard has at least about this many segments, so that an eviction takes at most such a share of it."""


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Replay shards: append-only Arrow segments of whole episodes on disk."""

    num_shards: Annotated[int, POSITIVE_INTEGER] = 1
    """Shard processes; under `--local` the shards live in the driver's process."""
    capacity_timesteps: Annotated[int, POSITIVE_INTEGER] = 5_000_000
    """Transitions, one a timestep, stored over all shards; the oldest segments go first."""
    capacity_bytes: Annotated[int, POSITIVE_INTEGER] | None = None
    """Bytes on disk over all shards; None sets no limit."""
    directory: Annotated[str, FOLDER] | None = None
    """Where shards write; None is `replay/` in the run directory of the shard's node. On a file system that all nodes
    share nothing is lost with a node."""
    segment_bytes: Annotated[int, POSITIVE_INTEGER] = 32 * 1024 * 1024
    """A segment file is closed and a new one begun past this size; eviction removes whole segments."""
    fsync: Literal["never", "segment", "add"] = "never"
    """When acknowledged episodes are forced from the page cache to the disk."""
    sampling: Literal["episodes", "timesteps"] = "episodes"
    """"episodes": each stored episode is drawn with equal probability; "timesteps": in proportion to its length."""
    min_timesteps: Annotated[int, POSITIVE_INTEGER] = 1
    """Training starts when this many transitions were stored, those counted that had to make room."""
    samples_per_insert: Annotated[float, POSITIVE] | None = 400.0
    """Transitions trained per transition inserted, held by the governor; None lets both sides run free."""
    samples_per_insert_tolerance: Annotated[float, POSITIVE] = 0.1
    """How far either side may run ahead, as a share of the transitions inserted (and at least one batch)."""
    num_cpus_per_shard: Annotated[float, NON_NEGATIVE] = 0.5
    """Logical CPUs that Ray reserves for each shard."""
