"""`EpisodeStats`: what is reported of a finished episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from amago_ray.data.episode import PolicyVersion


@dataclass(frozen=True)
class EpisodeStats:
    """A finished episode in numbers.

    counter: the episode's number within its runner's incarnation. success: 1 or 0, None where the environment knows
    none. events: the mean of each other number that the environment reported, by name.
    """

    env_name: str
    episode_return: float
    length: int
    counter: int
    policy_version: PolicyVersion
    success: float | None = None
    events: Mapping[str, float] = field(default_factory=dict)
