"""What the actors tell each other, as plain data.

Beats carry totals since their sender's process started, never increments: a lost, repeated or late one does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from amago_ray.data.episode import PolicyVersion
from amago_ray.replay.reports import ShardReport
from amago_ray.runtime.protocol.ledger import LedgerState, Totals
from amago_ray.runtime.protocol.pulse import Pulse
from amago_ray.runtime.protocol.runner_ledger import RunnerTotals
from amago_ray.runtime.protocol.shard_table import ShardTable
from amago_ray.telemetry.bottleneck import Side

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

NO_VERSION = PolicyVersion(-1, -1)
NO_TABLE = -1
"""Version of the shard table of who has none."""
MOST_EPISODES = 200
"""Of how many episodes one message carries statistics."""


@dataclass(frozen=True)
class RunnerBeat:
    """An env runner's news; it also says that the runner lives.

    failures: kinds of failures of its environments. episodes: packed statistics of the newest ones, up to the last of
    those counted in `totals`. table_version: of the shard table that it knows. node: id of the node that it is on.
    """

    runner: int
    incarnation: int
    policy_version: PolicyVersion
    totals: RunnerTotals
    failures: Sequence[str] = ()
    episodes: Sequence[bytes] = ()
    table_version: int = NO_TABLE
    node: str = ""


@dataclass(frozen=True)
class NotYet:
    """The answer where there is no control actor that knows of the run: nothing was taken in, beat again then."""

    beat_in_s: float


@dataclass(frozen=True)
class RunnerOrders:
    """The answer to a beat.

    stop: training is over, or this runner is to leave. beat_in_s: the soonest that it may beat again.
    allowed_env_steps: how many this incarnation may make in all, None for any number. weights: one reference to a newer
    snapshot, or none. table: the newest shard table where the runner's is older. relay: one handle of the actor to beat
    from now on, or none where that stays the same.
    """

    stop: bool
    may_act: bool
    global_env_steps: int
    beat_in_s: float
    allowed_env_steps: int | None = None
    weights: Sequence[Any] = ()
    table: ShardTable | None = None
    relay: Sequence[Any] = ()


@dataclass(frozen=True)
class RunnerBeats:
    """Beats of R different env runners of a node, as columns.

    totals: columns of `RunnerTotals`. episodes: packed statistics by row. is_relayed: they come from the node's relay.
    """

    node: str
    is_relayed: bool

    runners: Int[np.ndarray, " R"]
    incarnations: Int[np.ndarray, " R"]
    versions: Int[np.ndarray, "R 2"]
    totals: Float[np.ndarray, "R _"]
    table_versions: Int[np.ndarray, " R"]
    failures: Sequence[tuple[int, str]] = ()
    """Kinds of failures of environments, each with a runner that had it."""
    episodes: Mapping[int, Sequence[bytes]] = field(default_factory=dict)


def gather(beats: Sequence[RunnerBeat], relayed_by: str | None = None) -> RunnerBeats:
    """The beats of different env runners of a node as one message; relayed_by: the node, where its relay sends it."""
    kinds = {kind: beat.runner for beat in beats for kind in beat.failures}
    rows = [row for row, beat in enumerate(beats) if beat.episodes][:MOST_EPISODES]
    share = MOST_EPISODES // max(len(rows), 1)
    return RunnerBeats(
        node=beats[0].node if relayed_by is None else relayed_by,
        is_relayed=relayed_by is not None,
        runners=np.array([beat.runner for beat in beats], np.int64),
        incarnations=np.array([beat.incarnation for beat in beats], np.int64),
        versions=np.array([beat.policy_version for beat in beats], np.int64),
        totals=np.array([beat.totals for beat in beats], np.float64),
        table_versions=np.array([beat.table_version for beat in beats], np.int64),
        failures=[(runner, kind) for kind, runner in kinds.items()],
        episodes={row: beats[row].episodes[-share:] for row in rows},
    )


@dataclass(frozen=True)
class OrdersOfRunners:
    """The answer to `RunnerBeats`: what is common to all of them, and what is each one's own.

    beat_in_s: as in `RunnerOrders`. gather_s: for how long to gather their next beats. must_leave: it was told to, or
    another incarnation has taken its place. allowed_env_steps: None for any number. weights: one reference to the
    newest snapshot, of `version`, where one of the runners lacks it. table: the newest shard table, of `table_version`,
    where one of the runners lacks it.
    """

    stop: bool
    may_act: bool
    global_env_steps: int
    beat_in_s: float
    gather_s: float
    must_leave: Bool[np.ndarray, " R"]
    allowed_env_steps: Int[np.ndarray, " R"] | None = None
    version: PolicyVersion = NO_VERSION
    weights: Sequence[Any] = ()
    table_version: int = NO_TABLE
    table: ShardTable | None = None
    relay: Sequence[Any] = ()

    def of(self, row: int, beat: RunnerBeat) -> RunnerOrders:
        """The orders of the runner whose beat stood in a row."""
        allowed = None if self.allowed_env_steps is None else int(self.allowed_env_steps[row])
        return RunnerOrders(
            stop=self.stop or bool(self.must_leave[row]),
            may_act=self.may_act and (allowed is None or allowed > beat.totals.env_steps),
            global_env_steps=self.global_env_steps,
            beat_in_s=self.beat_in_s,
            allowed_env_steps=allowed,
            weights=self.weights if self.version > beat.policy_version else (),
            table=self.table if self.table_version > beat.table_version else None,
            relay=self.relay,
        )


def learner_name(rank: int, num_learners: int) -> str:
    """How a learner is called among the processes of a run."""
    return "learner" if num_learners == 1 else f"learner {rank}"


class BatchNumber(NamedTuple):
    """Which of its batches a learner of several asks for, counted from the start of their common incarnation."""

    incarnation: int
    number: int


class Received(NamedTuple):
    """Credit that a learner has got since its process started, in transitions; it asks for more by one call at a time.

    What it was given beyond that was lost on its way.
    """

    rank: int
    incarnation: int
    transitions: float


@dataclass(frozen=True)
class LearnerBeat:
    """A learner's news after a batch.

    totals: `updates`; `settled_transitions` (credit of batches that were trained or lost), `trained_transitions`; and
    seconds: `learner_s`, `governor_s` (without an outstanding request, for lack of credit), `replay_s` (for a requested
    batch), `broadcast_s`. Updates are counted by the first of several learners only; those that wait for one another
    do so in `learner_s`.
    """

    version: PolicyVersion
    totals: Totals
    metrics: Mapping[str, float] = field(default_factory=dict)
    rank: int = 0


@dataclass(frozen=True)
class Reserved:
    """The answer to a learner that asks for batches.

    stop: training is over. shards: numbers of those to ask, one for each batch that has got credit; fewer than were
    asked for, or none, where there is no more. table: the newest shard table where the learner's is older.
    """

    stop: bool = False
    shards: Sequence[int] = ()
    table: ShardTable | None = None


@dataclass(frozen=True)
class ShardBeat:
    """A replay shard's counts; `incarnation` grows when its process starts again."""

    shard: int
    incarnation: int
    report: ShardReport


@dataclass(frozen=True)
class ControlState:
    """What a control actor is filled with, when it starts for the first time or again.

    num_env_runners: as many are wanted; None takes the setting.
    """

    ledger: LedgerState
    stopping: bool = False
    relays: Mapping[str, Any] = field(default_factory=dict)
    """Their handles, by id of the node."""
    table: ShardTable | None = None
    num_env_runners: int | None = None


@dataclass(frozen=True)
class ControlReport:
    """Everything that the control actor gathered since it was asked last.

    num_env_runners: as many are wanted, by whoever asked last. pulses: the newest of each process that gave any.
    shards: the newest report of each.
    """

    ledger: LedgerState
    num_env_runners: int
    env_steps: int
    learner_steps: int
    num_episodes: int
    episodes: Sequence[bytes]
    metrics: Mapping[str, float]
    sides: Sequence[Side]
    warnings: Sequence[str]
    stop_requested: bool
    crowded: Sequence[str] = ()
    """Ids of nodes that need a relay, or another one."""
    pulses: Mapping[str, Pulse] = field(default_factory=dict)
    shards: Mapping[int, ShardReport] = field(default_factory=dict)
