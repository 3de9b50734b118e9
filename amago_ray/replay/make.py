"""Makes a run's replay shards."""

from __future__ import annotations

from pathlib import Path

from amago_ray.config import Config
from amago_ray.data.specs import EnvSpec
from amago_ray.relabel.make import make_relabeler
from amago_ray.replay.shard import ReplayShard


def make_shard(config: Config, spec: EnvSpec, directory: Path, shard: int, incarnation: int = 0) -> ReplayShard:
    """Shard number `shard`, reopened if its directory `directory/shard_<number>` holds segments.

    Raises: ConfigError if relabeling does not fit the environment; DataError if stored segments cannot be read.
    """
    return ReplayShard(
        config.replay,
        directory=directory / f"shard_{shard}",
        context_length=config.model.sequence_model.context_length,
        relabeler=make_relabeler(config.relabel, spec),
        spec=spec,
        shard=shard,
        incarnation=incarnation,
        seed=config.seed,
        num_shards=config.replay.num_shards,
    )
