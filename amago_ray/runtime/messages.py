"""What the actors tell each other, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from amago_ray.data.episode import PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.replay.reports import ShardReport
from amago_ray.telemetry.bottleneck import Side

NO_VERSION = PolicyVersion(-1, -1)
STOP = -1
"""Instead of a shard's number: training is over."""


@dataclass(frozen=True)
class RunnerBeat:
    """An env runner's news since its last beat; it also says that the runner lives.

    replay_time_s: encoding and handing over episodes, and waiting for acknowledgements. weights_time_s: reading new
    weights and bringing running episodes under them. paused_time_s: waiting for the governor.
    """

    env_steps: int
    episodes: Sequence[EpisodeStats]
    policy_version: PolicyVersion
    policy_time_s: float
    env_time_s: float
    replay_time_s: float
    weights_time_s: float
    paused_time_s: float
    dropped_episodes: int
    failures: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RunnerOrders:
    """The answer to a beat. `weights` holds one reference to a newer snapshot, or none."""

    stop: bool
    may_act: bool
    global_env_steps: int
    weights: Sequence[Any] = ()


@dataclass(frozen=True)
class LearnerBeat:
    """A learner's news after an update: the credit that its batch had reserved and what was really trained.

    credit_wait_s: time without an outstanding request, for lack of credit. batch_wait_s: time for a requested batch.
    """

    version: PolicyVersion
    reserved: int
    trained: int
    learner_time_s: float = 0.0
    credit_wait_s: float = 0.0
    batch_wait_s: float = 0.0
    broadcast_time_s: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardBeat:
    """A replay shard's counts after an add; `life` grows when its process starts again."""

    shard: int
    life: int
    report: ShardReport


@dataclass(frozen=True)
class ControlReport:
    """Everything that the control actor gathered since it was asked last."""

    env_steps: int
    learner_steps: int
    num_episodes: int
    episodes: Sequence[EpisodeStats]
    metrics: Mapping[str, float]
    sides: Sequence[Side]
    warnings: Sequence[str]
    stop_requested: bool
