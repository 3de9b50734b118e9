"""What a node does that comes back with files of replay shards: it hands them to those who took their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray

from amago_ray.errors import AmagoRayError
from amago_ray.replay.handover import find_files, hand_over
from amago_ray.replay.layout import shard_directory
from amago_ray.replay.owner import Claim
from amago_ray.runtime.protocol.actors import get

# An answer may be lost for good; a group that was taken already is not taken again.
_TAKE_TIMEOUT_S = 120.0


class ReturnedFiles(NamedTuple):
    """Files of a shard that were handed over: so many of their episodes were taken; or why they were not."""

    number: int
    epoch: int
    num_taken: int = 0
    num_found: int = 0
    error: str | None = None


def return_files(
    replay: str, claim: Claim, incarnation: int, wanted: Mapping[tuple[int, int], Any]
) -> Sequence[ReturnedFiles]:
    """Hand over those of the wanted files that are on this node. A task of Ray's, on that node.

    wanted: the actors of shards, by number and epoch of the files.
    """
    returned = []
    for number, epoch in find_files(Path(replay), claim.run_id, wanted):
        actor = wanted[number, epoch]

        def take(group: bytes, actor: Any = actor) -> int:
            taken: int = get(actor.take_back.remote(group), _TAKE_TIMEOUT_S)
            return taken

        try:
            counts = hand_over(
                shard_directory(Path(replay), number), claim, shard=number, incarnation=incarnation, take=take
            )
        except (AmagoRayError, ray.exceptions.RayError) as error:
            returned.append(ReturnedFiles(number, epoch, error=" ".join(str(error).split())))
        else:
            returned.append(ReturnedFiles(number, epoch, *counts))
    return returned
