"""Makes a run's replay shards."""

from __future__ import annotations

from pathlib import Path

from amago_ray.config import Config
from amago_ray.data.specs import EnvSpec
from amago_ray.relabel.make import make_relabeler
from amago_ray.replay.layout import find_shards, shard_directory, shard_number
from amago_ray.replay.owner import Claim, run_id_of
from amago_ray.replay.shard import ReplayShard


def make_shard(
    config: Config, spec: EnvSpec, replay: Path, claim: Claim, shard: int, incarnation: int = 0
) -> ReplayShard:
    """Shard number `shard`, reopened if its directory in `replay` holds segments of the run that `claim` names.

    Raises:
        ConfigError: relabeling does not fit the environment.
        DataError: the directory is another run's or no shard's, or stored segments cannot be read.
    """
    return ReplayShard(
        config.replay,
        directory=shard_directory(replay, shard),
        context_length=config.model.sequence_model.context_length,
        relabeler=make_relabeler(config.relabel, spec),
        spec=spec,
        claim=claim,
        shard=shard,
        incarnation=incarnation,
        seed=config.seed,
        num_shards=config.replay.num_shards,
    )


def surplus_shards(config: Config, replay: Path, claim: Claim) -> list[int]:
    """Shards that the run had when there were more of them, and whose directories are here.

    Raises:
        DataError: whose a directory is cannot be read.
    """
    return [
        shard_number(directory)
        for directory in find_shards(replay)
        if shard_number(directory) >= config.replay.num_shards and run_id_of(directory) in (claim.run_id, None)
    ]
