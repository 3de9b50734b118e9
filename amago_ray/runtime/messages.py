"""What the actors tell each other, as plain data.

Beats carry totals since their sender's process started, never increments: a lost, repeated or late one does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from amago_ray.data.episode import PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.replay.reports import ShardReport
from amago_ray.runtime.ledger import LedgerState, Totals
from amago_ray.telemetry.bottleneck import Side

NO_VERSION = PolicyVersion(-1, -1)
STOP = -1
"""Instead of a shard's number: training is over."""


@dataclass(frozen=True)
class RunnerBeat:
    """An env runner's news; it also says that the runner lives.

    totals: `env_steps`; `episodes` (finished), `stored_episodes` (acknowledged by replay), `dropped_episodes`;
    `isolated_envs`; and seconds by part of `telemetry.bottleneck`: `acting_s`, `environment_s`, `replay_s` (encoding
    and handing over episodes, waiting for acknowledgements), `broadcast_s` (taking new weights), `governor_s` (paused).
    failures: of environments, by kind. episodes: the newest ones, up to the last of those counted.
    """

    runner: int
    incarnation: int
    policy_version: PolicyVersion
    totals: Totals
    failures: Totals = field(default_factory=dict)
    episodes: Sequence[EpisodeStats] = ()


@dataclass(frozen=True)
class RunnerOrders:
    """The answer to a beat.

    allowed_env_steps: how many this incarnation may make in all, None for any number.
    weights: one reference to a newer snapshot, or none.
    """

    stop: bool
    may_act: bool
    global_env_steps: int
    allowed_env_steps: int | None = None
    weights: Sequence[Any] = ()


@dataclass(frozen=True)
class LearnerBeat:
    """A learner's news after a batch.

    totals: `updates`; `settled_transitions` (credit of batches that were trained or lost), `trained_transitions`; and
    seconds: `learner_s`, `governor_s` (without an outstanding request, for lack of credit), `replay_s` (for a requested
    batch), `broadcast_s`.
    """

    version: PolicyVersion
    totals: Totals
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardBeat:
    """A replay shard's counts; `incarnation` grows when its process starts again."""

    shard: int
    incarnation: int
    report: ShardReport


@dataclass(frozen=True)
class ControlState:
    """What a control actor is filled with, when it starts for the first time or again."""

    ledger: LedgerState
    stopping: bool = False


@dataclass(frozen=True)
class ControlReport:
    """Everything that the control actor gathered since it was asked last."""

    ledger: LedgerState
    env_steps: int
    learner_steps: int
    num_episodes: int
    episodes: Sequence[EpisodeStats]
    metrics: Mapping[str, float]
    sides: Sequence[Side]
    warnings: Sequence[str]
    stop_requested: bool
