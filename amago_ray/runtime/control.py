"""`ControlActor`: where every process of a run reports, and waits for its turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.replay.reports import ShardReport
from amago_ray.runtime.ledger import Ledger, LedgerState, Reporter
from amago_ray.runtime.liveness import Liveness
from amago_ray.runtime.messages import (
    NO_VERSION,
    STOP,
    ControlReport,
    ControlState,
    LearnerBeat,
    RunnerBeat,
    RunnerOrders,
    ShardBeat,
)
from amago_ray.runtime.ray_metrics import RayMetrics
from amago_ray.runtime.step_quota import StepQuota
from amago_ray.runtime.weight_board import WeightBoard
from amago_ray.telemetry.bottleneck import Side
from amago_ray.telemetry.metrics import RateMeter
from amago_ray.training.governor import Governor
from amago_ray.training.replay_metrics import replay_metrics

if TYPE_CHECKING:
    from amago_ray.data.snapshot import Snapshot

# A caller that waits is answered at the latest after this time and asks again, so that a lost answer does no harm.
_LONGEST_WAIT_S = 2.0
# Reports over which shares of time are taken: long updates and pauses are reported when they end.
_REPORTS_PER_WINDOW = 4
# Where the time of the processes of a role goes, by part of the bottleneck's verdict.
_SIDES = {
    "env_runner": ("acting", "environment", "replay", "broadcast", "governor"),
    "learner": ("learner", "replay", "broadcast", "governor"),
}


class ControlActor:
    """A shell over ledger, weight board, governor, quota of env steps and liveness, which know nothing of processes.

    An asyncio actor: its methods run on one event loop, none blocks it. It starts empty, also when it is started again,
    and lets everyone wait until it is filled; what was under way is then sent to it again.
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
        self._ledger = Ledger(LedgerState())
        self._board = WeightBoard(config.rollout.stuck_policy_alarm_s)
        self._liveness = Liveness()
        self._governor = Governor(config.replay)
        self._quota = StepQuota(config.stop.env_steps, step_size=config.rollout.num_envs_per_env_runner)
        self._rng = np.random.default_rng()
        self._shards: dict[int, ShardReport] = {}
        self._episodes: list[EpisodeStats] = []
        self._warnings: list[str] = []
        self._metrics: dict[str, float] = {}
        self._shares = {role: RateMeter(_REPORTS_PER_WINDOW * config.report.interval_s) for role in _SIDES}
        self._collected_at = time.monotonic()
        self._collected = (0, 0)

    async def fill(self, state: ControlState) -> None:
        """Begin with what is known of the run; a second filling changes nothing."""
        if self._filled.is_set():
            return
        self._ledger = Ledger(state.ledger)
        self._stopping = state.stopping
        self._collected = self._progress()
        self._collected_at = time.monotonic()
        self._filled.set()

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
        return self._board.newer_than(NO_VERSION)

    async def beat_runner(self, beat: RunnerBeat) -> RunnerOrders:
        """An env runner's news; answers at once."""
        await self._filled.wait()
        now = time.monotonic()
        reporter = Reporter("env_runner", beat.runner, beat.incarnation)
        known = set(self._ledger.sums("failures"))
        self._warnings.extend(
            f"env runner {beat.runner}: environment failed and was rebuilt: {kind}"
            for kind in self._ledger.report(reporter._replace(role="failures"), beat.failures)
            if kind not in known
        )
        new = self._ledger.report(reporter, beat.totals)
        if num_new := int(new.get("episodes", 0)):
            self._episodes.extend(beat.episodes[-num_new:])
        self._liveness.heard(f"env_runner_{beat.runner}", now)
        if (stuck := self._board.seen(beat.runner, beat.policy_version, now)) is not None:
            self._warnings.append(stuck)
        if self._reasons_to_look() > self._called_for:
            await self._notify()
        return self._orders(beat)

    async def wait_turn(self, beat: RunnerBeat) -> RunnerOrders:
        """What a paused runner calls: news, answered when it may act again, or after a while."""
        orders = await self.beat_runner(beat)
        if orders.stop or orders.may_act:
            return orders
        await self._wait(lambda: self._stopping or self._orders(beat).may_act)
        return self._orders(beat)

    async def beat_shard(self, beat: ShardBeat) -> None:
        """A shard's newest counts."""
        await self._filled.wait()
        report = beat.report
        self._liveness.heard(f"replay_shard_{beat.shard}", time.monotonic())
        counts = {"duplicate_episodes": report.num_duplicates, "torn_bytes": report.torn_bytes}
        self._ledger.report(Reporter("replay_shard", beat.shard, beat.incarnation), counts)
        if self._governor.report_shard(
            beat.shard, beat.incarnation, report.inserted_transitions, report.stored_transitions
        ):
            self._shards[beat.shard] = report
            await self._notify()

    async def reserve(self, transitions: int, update: int) -> int | None:
        """Credit for one batch of an update, and the shard to ask, drawn in proportion to the newest reported sizes.

        None: no credit came within a while, ask again. STOP: training is over.
        """
        await self._filled.wait()
        last = self._config.stop.learner_steps
        is_wanted = last is None or update <= last
        await self._wait(lambda: self._stopping or (is_wanted and self._governor.may_train()))
        if self._stopping:
            return STOP
        if not is_wanted or not self._governor.reserve(transitions):
            return None
        numbers = sorted(self._shards)
        sizes = np.array([self._shards[number].stored_transitions for number in numbers], np.float64)
        return int(self._rng.choice(numbers, p=sizes / sizes.sum()))

    async def beat_learner(self, beat: LearnerBeat) -> None:
        """A learner's news after a batch."""
        await self._filled.wait()
        self._liveness.heard("learner", time.monotonic())
        self._take_learner(beat.version)
        new = self._ledger.report(Reporter("learner", 0, beat.version.incarnation), beat.totals)
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
        env_steps, updates = (new - old for new, old in zip(self._progress(), self._collected, strict=True))
        metrics = {
            **self._metrics,
            **self._governor.metrics(),
            **self._replay_metrics(),
            "time/env_steps_per_s": env_steps / elapsed,
            "time/learner_steps_per_s": updates / elapsed,
            "time/oldest_beat_s": max(self._liveness.ages_s(now).values(), default=0.0),
            "rollout/dropped_episodes": float(ledger.total("env_runner", "dropped_episodes")),
            "rollout/isolated_envs": float(ledger.total("env_runner", "isolated_envs")),
            "rollout/stored_episodes": float(ledger.total("env_runner", "stored_episodes")),
        }
        if (lag := self._board.largest_lag()) is not None:
            metrics["time/runner_lag_max"] = float(lag)
        report = ControlReport(
            ledger=ledger.state(),
            env_steps=ledger.total("env_runner", "env_steps"),
            learner_steps=ledger.learner_steps,
            num_episodes=ledger.total("env_runner", "episodes"),
            episodes=self._episodes,
            metrics=metrics,
            sides=self._sides(now),
            warnings=self._warnings,
            stop_requested=self._stop_requested,
        )
        self._publish({**metrics, "env_steps": report.env_steps, "learner_steps": report.learner_steps})
        self._collected, self._collected_at = self._progress(), now
        self._episodes, self._warnings, self._metrics = [], [], {}
        return report

    def _take_learner(self, version: PolicyVersion) -> None:
        if self._ledger.take_learner(version):
            # What the former learner had reserved is void, and nobody makes up for what it had trained.
            self._governor.rebase()

    def _progress(self) -> tuple[int, int]:
        """Env steps and updates that only grow, whatever is started again."""
        return self._ledger.total("env_runner", "env_steps"), self._ledger.total("learner", "updates")

    def _reasons_to_look(self) -> set[str]:
        stop = self._config.stop
        reasons = {
            "closed": self._closed,
            "asked to stop": self._stop_requested,
            "last env step": stop.env_steps is not None and self._progress()[0] >= stop.env_steps,
            "last update": stop.learner_steps is not None and self._ledger.learner_steps >= stop.learner_steps,
        }
        return {reason for reason, holds in reasons.items() if holds}

    def _sides(self, now: float) -> list[Side]:
        """Shares of the env runners' and of the learner's time."""
        sides: list[Side] = []
        for role, parts in _SIDES.items():
            sums = self._ledger.sums(role)
            self._shares[role].update(now, {part: sums.get(f"{part}_s", 0.0) for part in parts})
            processes = self._board.num_runners if role == "env_runner" else 1
            shares = self._shares[role].per_s()
            sides.append({part: share / max(processes, 1) for part, share in shares.items()})
        return sides if sides[0] else []

    def _replay_metrics(self) -> Mapping[str, float]:
        """Nothing until every shard has reported: sums of some would read as a loss."""
        if len(self._shards) < self._config.replay.num_shards:
            return {}
        # Counts that a shard begins anew with its process are those of all its processes.
        sums = {f"replay/{name}": float(total) for name, total in self._ledger.sums("replay_shard").items()}
        return {**replay_metrics(list(self._shards.values()), self._config.replay), **sums}

    def _orders(self, beat: RunnerBeat) -> RunnerOrders:
        env_steps, made = self._ledger.total("env_runner", "env_steps"), int(beat.totals["env_steps"])
        allowed = self._quota.allow(beat.runner, beat.incarnation, made, env_steps)
        return RunnerOrders(
            stop=self._stopping,
            may_act=self._governor.may_act() and (allowed is None or allowed > made),
            global_env_steps=env_steps,
            allowed_env_steps=allowed,
            weights=self._board.newer_than(beat.policy_version),
        )

    async def _wait(self, ready: Callable[[], bool]) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(ready), self._longest_wait_s)
            except TimeoutError:
                return

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
