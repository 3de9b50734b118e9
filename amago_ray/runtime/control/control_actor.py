"""`ControlActor`: where every process of a run reports, and learns what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.errors import ConfigError, TrainingError
from amago_ray.replay.draws import draw_shards
from amago_ray.replay.reports import ShardReport
from amago_ray.runtime.control.credit import Credit
from amago_ray.runtime.control.liveness import Liveness
from amago_ray.runtime.control.ray_metrics import RayMetrics
from amago_ray.runtime.control.roster import Roster
from amago_ray.runtime.control.routes import MOST_BEATS_PER_S
from amago_ray.runtime.control.untold import Untold
from amago_ray.runtime.control.weight_board import WeightBoard
from amago_ray.runtime.protocol.ledger import RUNNERS, Ledger, LedgerState, Reporter
from amago_ray.runtime.protocol.messages import (
    NO_TABLE,
    NO_VERSION,
    BatchNumber,
    ControlReport,
    ControlState,
    LearnerBeat,
    NotYet,
    OrdersOfRunners,
    Received,
    Reserved,
    RunnerBeat,
    RunnerBeats,
    RunnerOrders,
    ShardBeat,
    gather,
    learner_name,
)
from amago_ray.runtime.protocol.pulse import Pulse
from amago_ray.runtime.protocol.shard_table import ShardTable
from amago_ray.telemetry.bottleneck import Side
from amago_ray.telemetry.metrics import RateMeter
from amago_ray.training.governor import Governor
from amago_ray.training.replay_metrics import replay_metrics

if TYPE_CHECKING:
    from amago_ray.data.snapshot import Snapshot

# A learner that waits is answered at the latest after this time and asks again, so that a lost answer does no harm.
_LONGEST_WAIT_S = 2.0
# What is kept for a driver that does not ask for it.
_MOST_WARNINGS = 1_000
# Reports over which shares of time are taken: long updates and pauses are reported when they end.
_REPORTS_PER_WINDOW = 4
_TOLD_OF_RUNNERS = ("stored_episodes", "dropped_episodes", "abandoned_episodes", "env_failures", "isolated_envs")
_SCALE = "asked for another number of env runners"
# Where the time of the processes of a role goes, by part of the bottleneck's verdict.
_SIDES = {
    RUNNERS: ("acting", "environment", "replay", "broadcast", "governor"),
    "learner": ("learner", "replay", "broadcast", "governor"),
}


class ControlActor:
    """A shell over ledger, weight board, governor, quota of env steps and liveness, which know nothing of processes.

    An asyncio actor: its methods run on one event loop, none blocks it, and of those whom there may be many, env
    runners and shards, none is kept waiting. It starts empty, also when it is started again; until it is filled,
    learners wait and others are told to come again. What was under way is sent to it again.
    """

    def __init__(
        self,
        config: Config,
        *,
        put: Callable[[Any], Any] = ray.put,
        publish: Callable[[Mapping[str, float]], None] | None = None,
        longest_wait_s: float = _LONGEST_WAIT_S,
    ) -> None:
        """put: makes a reference of a snapshot. publish: takes the newest metrics; None gives them to Ray's metrics."""
        self._config = config
        self._put = put
        self._publish = publish or RayMetrics(config.name).set
        self._longest_wait_s = longest_wait_s
        self._filled = asyncio.Event()
        self._changed = asyncio.Condition()
        self._stopping = False
        self._stop_requested = False
        self._closed = False
        self._called_for: set[str] = set()
        self._incarnation = time.time_ns()
        self._ledger = Ledger(LedgerState())
        self._board = WeightBoard(config.rollout.stuck_policy_alarm_s)
        self._liveness = Liveness()
        self._governor = Governor(config.replay)
        self._credit = Credit(self._governor)
        self._rng = np.random.default_rng()
        self._num_wanted = config.rollout.num_env_runners
        self._is_wanted_told = True
        """Whether the trainer knows how many env runners are wanted."""
        self._table: ShardTable | None = None
        self._early: dict[int, ShardBeat] = {}
        """The newest of each shard, before this actor was filled."""
        self._shards: dict[int, ShardReport] = {}
        self._num_shard_warnings: dict[tuple[int, int], int] = {}
        """Lines that a shard's incarnation has said, and that were passed on."""
        self._warnings: Untold[str] = Untold(_MOST_WARNINGS)
        self._roster = Roster(config, self._ledger, self._board, self._liveness, self._warnings.extend)
        self._pulses: dict[str, Pulse] = {}
        self._metrics: dict[str, float] = {}
        self._shares = {role: RateMeter(_REPORTS_PER_WINDOW * config.report.interval_s) for role in _SIDES}
        self._collected_at = time.monotonic()
        self._collected = (0, 0)
        self._num_runners = 0
        """At the last report."""
        self._runner_time_s = 0.0
        """Of all env runners together."""

    async def fill(self, state: ControlState) -> None:
        """Begin with what is known of the run; a second filling changes nothing."""
        if self._filled.is_set():
            return
        self._ledger = self._roster.ledger = Ledger(state.ledger)
        self._stopping = state.stopping
        for node, relay in state.relays.items():
            await self.add_relay(node, [relay])
        if state.table is not None:
            await self.set_table(state.table)
        self._num_wanted = state.num_env_runners or self._num_wanted
        self._collected = self._progress()
        self._collected_at = time.monotonic()
        self._filled.set()
        for beat in self._early.values():
            await self.beat_shard(beat)

    async def watch(self) -> bool:
        """Answers when the trainer should look: asked to stop, at the run's end; or, with True, to be filled.

        Who calls this keeps waiting while the actor is started again, and is answered by the new one.
        """
        if not self._filled.is_set():
            return True
        async with self._changed:
            await self._changed.wait_for(lambda: self._reasons_to_look() > self._called_for)
        self._called_for = self._reasons_to_look()
        return False

    async def pulse(self, name: str, pulse: Pulse) -> None:
        """A process lives; the driver, who collects, judges it."""
        self._pulses[name] = pulse

    async def push_weights(self, snapshot: Snapshot) -> None:
        """Take over a learner's newest weights: put them once into the object store, owned by this actor."""
        await self._filled.wait()
        self._take_learner(snapshot.version)
        if snapshot.version > self._board.version:
            self._board.put(snapshot.version, self._put(snapshot))
            await self._notify()

    async def weights(self) -> Sequence[Any]:
        """One reference to the newest snapshot, in a list, or the first as soon as there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._board.version > NO_VERSION)
        return self._board.newest()

    async def set_table(self, table: ShardTable) -> None:
        """Everyone whose shard table is older gets this one with the next answer."""
        if table.version <= self._table_version:
            return
        before = {} if self._table is None else self._table.entries
        for number, entry in table.entries.items():
            if number in before and before[number].epoch not in (None, entry.epoch):
                # What it had is left behind; the shard's next report is that of other files.
                self._shards.pop(number, None)
                self._governor.replace_shard(number)
        self._table = table
        await self._notify()

    async def add_relay(self, node: str, relay: Sequence[Any]) -> None:
        """A node has a relay, or another one: its handle, in a list."""
        self._roster.routes.add_relay(node, relay[0], time.monotonic())

    async def beat_runner(self, beat: RunnerBeat) -> RunnerOrders | NotYet:
        """An env runner's news."""
        orders = await self.beat_runners(gather([beat]))
        return orders if isinstance(orders, NotYet) else orders.of(0, beat)

    async def beat_runners(self, beats: RunnerBeats) -> OrdersOfRunners | NotYet:
        """News of many env runners."""
        now = time.monotonic()
        if not self._filled.is_set():
            self._roster.routes.heard(beats.runners, beats.node, now, is_relayed=beats.is_relayed)
            return NotYet(self._roster.routes.beat_in_s(beats.node, is_relayed=beats.is_relayed))
        news = self._roster.take(beats, now)
        if self._reasons_to_look() > self._called_for:
            await self._notify()
        may_act = self._governor.may_act()
        return self._roster.orders(beats, news, now, stop=self._stopping, may_act=may_act, table=self._table)

    # Not called again by Ray, which would say so for each at the run's end: a next incarnation tells the same.
    @ray.method(max_task_retries=0)
    async def runner_gone(self, runner: int, incarnation: int) -> None:
        """An env runner's process is known to be dead: what it was granted is there for others."""
        await self._filled.wait()
        self._roster.gone(runner, incarnation)

    # The driver calls it over and over.
    @ray.method(max_task_retries=0)
    async def send_away(self, leaving: Mapping[int, int]) -> None:
        """Exactly these env runners, of these incarnations or earlier ones, are told to leave when they beat."""
        self._roster.leaving = leaving

    async def scale(self, num_env_runners: int) -> int:
        """Let the trainer have so many env runners from now on (`amago-ray scale`); returns how many it had wanted.

        Answers when the trainer knows: it tells this actor when that is started again.

        Raises:
            ConfigError: the run may not have so many.
            TrainingError: the run ends.
        """
        await self._filled.wait()
        fewest, most = self._config.rollout.fewest_env_runners, self._config.rollout.most_env_runners
        if not fewest <= num_env_runners <= most:
            raise ConfigError(
                f"env runners: expected from {fewest} to {most} (rollout.min_env_runners to max_env_runners of the "
                f"run), got {num_env_runners}"
            )
        before, self._num_wanted = self._num_wanted, num_env_runners
        self._is_wanted_told = before == num_env_runners and self._is_wanted_told
        await self._notify()
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_wanted_told or self._stopping)
        if not self._is_wanted_told:
            raise TrainingError("the run ends")
        return before

    async def beat_shard(self, beat: ShardBeat) -> float:
        """A shard's newest counts; returns the seconds after which to send the next ones."""
        pause_s = self._config.replay.num_shards / MOST_BEATS_PER_S
        if not self._filled.is_set():
            self._early[beat.shard] = beat
            return pause_s
        if not self._is_current(beat):
            # A shard that has opened its files is asked for its counts when the table says so.
            return pause_s
        report = beat.report
        self._liveness.heard(f"replay_shard_{beat.shard}", time.monotonic())
        counts = {
            "duplicate_episodes": report.num_duplicates,
            "torn_bytes": report.torn_bytes,
            "returned_episodes": report.returned_episodes,
        }
        self._ledger.report(Reporter("replay_shard", beat.shard, beat.incarnation), counts)
        if self._governor.report_shard(
            beat.shard,
            beat.incarnation,
            report.inserted_transitions,
            report.stored_transitions,
            report.returned_transitions,
        ):
            known = self._num_shard_warnings.get((beat.shard, beat.incarnation), 0)
            self._warnings.extend(report.warnings_after(known))
            self._num_shard_warnings[beat.shard, beat.incarnation] = report.num_warnings
            self._shards[beat.shard] = report
            await self._notify()
        return pause_s

    async def reserve(
        self,
        transitions: int,
        num_batches: int,
        table_version: int = NO_TABLE,
        first: BatchNumber | None = None,
        received: Received | None = None,
    ) -> Reserved:
        """Credit for up to `num_batches` batches of about `transitions` each, and the shard to ask for each of them.

        Shards are drawn in proportion to the newest reported sizes. Waits a while for the first credit; who asks for
        no batch waits for the end of training. first: number of the first of these batches, from one of several
        learners. received: what the learner has got, so that an answer that is lost takes no credit with it.
        """
        await self._filled.wait()
        if received is not None:
            self._credit.settle(received)
            if not self._ledger.is_newest_learner(PolicyVersion(received.incarnation, 0)):
                # It lives on, though another has taken its place: nobody would settle what it got.
                num_batches = 0
        await self._wait(lambda: self._stopping or (num_batches > 0 and self._may_train(first)))
        table = self._table if self._table_version > table_version else None
        if self._stopping:
            return Reserved(stop=True, table=table)
        num_reserved = self._credit.reserve(first, num_batches, transitions) if self._may_train(first) else 0
        if received is not None:
            self._credit.give(received, num_reserved * transitions)
        return Reserved(shards=self._draw(num_reserved), table=table)

    async def beat_learner(self, beat: LearnerBeat) -> None:
        """A learner's news after a batch."""
        await self._filled.wait()
        self._liveness.heard(
            learner_name(beat.rank, self._config.learner.num_learners).replace(" ", "_"), time.monotonic()
        )
        self._take_learner(beat.version)
        new = self._ledger.report(Reporter("learner", beat.rank, beat.version.incarnation), beat.totals)
        if self._ledger.is_newest_learner(beat.version):
            # A former learner's credit is void already.
            self._governor.confirm(int(new.get("settled_transitions", 0)), int(new.get("trained_transitions", 0)))
            self._metrics.update(beat.metrics)
        await self._notify()

    async def request_stop(self) -> None:
        """Ask the trainer to checkpoint and stop (`amago-ray stop`)."""
        self._stop_requested = True
        await self._notify()

    async def stop(self) -> None:
        """Training is over: everyone who asks is told so."""
        self._stopping = True
        await self._notify()

    async def close(self) -> None:
        """Nobody needs to watch any more."""
        self._closed = True
        await self._notify()

    async def collect(self) -> ControlReport | None:
        """Everything since the last call; None where this actor has to be filled first."""
        if not self._filled.is_set():
            return None
        now = time.monotonic()
        elapsed = max(now - self._collected_at, 1e-6)
        ledger = self._ledger
        self._count_untold()
        runners = ledger.sums(RUNNERS)
        env_steps, updates = (new - old for new, old in zip(self._progress(), self._collected, strict=True))
        metrics = {
            **self._metrics,
            **self._governor.metrics(),
            **self._replay_metrics(),
            "time/env_steps_per_s": env_steps / elapsed,
            "time/learner_steps_per_s": updates / elapsed,
            "time/oldest_beat_s": self._liveness.oldest_s(now),
            **{f"rollout/{name}": runners[name] for name in _TOLD_OF_RUNNERS},
            "rollout/untold_episodes": float(ledger.total("report", "untold_episodes")),
            "report/untold_warnings": float(ledger.total("report", "untold_warnings")),
        }
        if (lag := self._board.largest_lag()) is not None:
            metrics["time/runner_lag_max"] = float(lag)
        report = ControlReport(
            ledger=ledger.state(),
            num_env_runners=self._num_wanted,
            env_steps=ledger.total(RUNNERS, "env_steps"),
            learner_steps=ledger.learner_steps,
            num_episodes=ledger.total(RUNNERS, "episodes"),
            episodes=self._roster.episodes.take(),
            metrics=metrics,
            sides=self._sides(now),
            warnings=self._warnings.take(),
            stop_requested=self._stop_requested,
            crowded=self._roster.routes.crowded(now),
            pulses=self._pulses,
            shards=dict(self._shards),
        )
        self._publish({**metrics, "env_steps": report.env_steps, "learner_steps": report.learner_steps})
        self._collected, self._collected_at = self._progress(), now
        self._metrics, self._pulses = {}, {}
        self._is_wanted_told = True
        self._called_for.discard(_SCALE)
        await self._notify()
        return report

    def _count_untold(self) -> None:
        reporter = Reporter("report", 0, self._incarnation)
        untold = {
            "untold_episodes": self._roster.num_untold_episodes,
            "untold_warnings": self._warnings.num_forgotten,
        }
        were_told = not self._ledger.total("report", "untold_episodes")
        new = self._ledger.report(reporter, untold)
        if "untold_episodes" in new and were_told:
            self._warnings.extend(
                ["more episodes end than reports tell of: the others are counted, their returns are not"]
            )
        if "untold_warnings" in new:
            self._warnings.extend([f"{new['untold_warnings']:g} more warnings were left out"])

    def _take_learner(self, version: PolicyVersion) -> None:
        if self._ledger.take_learner(version):
            # What the former learner had reserved is void, and nobody makes up for what it had trained.
            self._governor.rebase()

    def _progress(self) -> tuple[int, int]:
        """Env steps and updates that only grow, whatever is started again."""
        return self._ledger.total(RUNNERS, "env_steps"), self._ledger.total("learner", "updates")

    def _reasons_to_look(self) -> set[str]:
        stop = self._config.stop
        reasons = {
            "closed": self._closed,
            "asked to stop": self._stop_requested,
            _SCALE: not self._is_wanted_told,
            "last env step": stop.env_steps is not None and self._progress()[0] >= stop.env_steps,
            "last update": stop.learner_steps is not None and self._ledger.learner_steps >= stop.learner_steps,
        }
        return {reason for reason, holds in reasons.items() if holds}

    def _sides(self, now: float) -> list[Side]:
        """Shares of the env runners' and of the learners' time."""
        num_runners = self._ledger.runners.num_runners
        # When those came or went who did so since the last report, nobody knows: shares are never more than the whole.
        self._runner_time_s += max(num_runners, self._num_runners) * (now - self._collected_at)
        self._num_runners = num_runners
        times_s = {RUNNERS: self._runner_time_s, "learner": self._config.learner.num_learners * now}
        sides: list[Side] = []
        for role, parts in _SIDES.items():
            sums = self._ledger.sums(role)
            totals = {part: sums.get(f"{part}_s", 0.0) for part in parts}
            self._shares[role].update(now, {**totals, "processes": times_s[role]})
            shares = self._shares[role].per_s()
            processes = shares.pop("processes", 0.0)
            sides.append({part: share / processes for part, share in shares.items()} if processes else {})
        return sides if sides[0] else []

    def _replay_metrics(self) -> Mapping[str, float]:
        """Nothing until every shard has reported: sums of some would read as a loss."""
        if len(self._shards) < self._config.replay.num_shards:
            return {}
        # Counts that a shard begins anew with its process are those of all its processes.
        sums = {f"replay/{name}": float(total) for name, total in self._ledger.sums("replay_shard").items()}
        left_behind = [] if self._table is None else [each.counts for each in self._table.left_behind]
        return {**replay_metrics(list(self._shards.values()), self._config.replay, left_behind), **sums}

    def _draw(self, num_batches: int) -> Sequence[int]:
        """A shard for each batch, in proportion to their newest reported sizes."""
        if not num_batches:
            return ()
        return draw_shards(self._open_shards(), self._config.replay.sampling, num_batches, self._rng)

    def _open_shards(self) -> Mapping[int, ShardReport]:
        """The newest reports of those that can be asked now."""
        table = self._table
        return {
            number: report for number, report in self._shards.items() if table is None or table.entries[number].is_open
        }

    def _may_train(self, first: BatchNumber | None) -> bool:
        is_stored = any(report.stored_transitions for report in self._open_shards().values())
        return is_stored and self._credit.is_there(first)

    def _is_current(self, beat: ShardBeat) -> bool:
        """Whether a shard's beat is of the process that the table names, about files that it knows."""
        if self._table is None:
            return True
        entry = self._table.entries[beat.shard]
        return entry.is_open and entry.incarnation == beat.incarnation

    @property
    def _table_version(self) -> int:
        return NO_TABLE if self._table is None else self._table.version

    async def _wait(self, ready: Callable[[], bool]) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(ready), self._longest_wait_s)
            except TimeoutError:
                return

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
