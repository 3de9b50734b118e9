"""What replay holds, read from disk."""

from __future__ import annotations

from pathlib import Path

from amago_ray.data.episode import EpisodeId
from amago_ray.replay.layout import find_segments, find_shards
from amago_ray.replay.segment import Segment


def stored_episodes(replay: Path) -> list[EpisodeId]:
    """The ids of all episodes in a run's replay, shard by shard."""
    segments = [Segment.open(path) for shard in find_shards(replay) for path in find_segments(shard)]
    return [encoded.header.episode_id for segment in segments for encoded in segment.scan()]
