"""`ControlActor`: weights by version, the governor, and everything that the trainer reports."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.replay.reports import ShardReport
from amago_ray.runtime.messages import (
    NO_VERSION,
    STOP,
    ControlReport,
    LearnerBeat,
    RunnerBeat,
    RunnerOrders,
    ShardBeat,
)
from amago_ray.runtime.ray_metrics import RayMetrics
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


class ControlActor:
    """The hub: env runners, shards and learners report here, and wait here for their turn.

    An asyncio actor: its methods run on one event loop, none blocks it. Restarted, it starts empty and is filled again
    by what the others report next; `base` restores the run's totals.
    """

    def __init__(self, config: Config, base: Mapping[str, int]) -> None:
        self._config = config
        self._governor = Governor(config.replay)
        self._rng = np.random.default_rng()
        self._changed = asyncio.Condition()
        self._stopping = False
        self._stop_requested = False
        self._weights: Any = None
        self._version = NO_VERSION
        self._env_steps = base["env_steps"]
        self._num_episodes = base["episodes"]
        self._learner_steps = base["learner_steps"]
        self._episodes: list[EpisodeStats] = []
        self._warnings: list[str] = []
        self._metrics: dict[str, float] = {}
        self._shards: dict[int, ShardReport] = {}
        self._runner_versions: dict[int, tuple[PolicyVersion, float]] = {}
        self._failures: Counter[str] = Counter()
        self._dropped_episodes = 0
        # Seconds ever, of all env runners together and of the learner.
        self._runner_times = dict.fromkeys(("acting", "environment", "replay", "broadcast", "governor"), 0.0)
        self._learner_times = dict.fromkeys(("learner", "replay", "broadcast", "governor"), 0.0)
        self._runner_shares = RateMeter(_REPORTS_PER_WINDOW * config.report.interval_s)
        self._learner_shares = RateMeter(_REPORTS_PER_WINDOW * config.report.interval_s)
        self._collected_at = time.monotonic()
        self._last_counts = (self._env_steps, self._learner_steps)
        self._ray_metrics = RayMetrics(config.name)

    async def push_weights(self, snapshot: Snapshot) -> None:
        """Take over a learner's newest weights: put them once into the object store, owned by this actor."""
        if snapshot.version > self._version:
            self._weights = ray.put(snapshot)
            self._version = snapshot.version
            await self._notify()

    async def weights(self) -> Sequence[Any]:
        """One reference to the newest snapshot, or the first as soon as there is one.

        In a list, so that Ray does not resolve it.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._weights is not None)
        return [self._weights]

    async def beat_runner(self, runner: int, beat: RunnerBeat) -> RunnerOrders:
        """An env runner's news; answers at once."""
        self._env_steps += beat.env_steps
        self._num_episodes += len(beat.episodes)
        self._episodes.extend(beat.episodes)
        self._dropped_episodes += beat.dropped_episodes
        for error, count in beat.failures.items():
            if error not in self._failures:
                self._warnings.append(f"env runner {runner}: environment failed and was rebuilt: {error}")
            self._failures[error] += count
        times = self._runner_times
        times["acting"] += beat.policy_time_s
        times["environment"] += beat.env_time_s
        times["replay"] += beat.replay_time_s
        times["broadcast"] += beat.weights_time_s
        times["governor"] += beat.paused_time_s
        before, since = self._runner_versions.get(runner, (NO_VERSION, time.monotonic()))
        if beat.policy_version != before or beat.policy_version >= self._version:
            since = time.monotonic()
        elif time.monotonic() - since > self._config.rollout.stuck_policy_alarm_s:
            self._warnings.append(
                f"env runner {runner}: still acts with weights of learner step {beat.policy_version.learner_steps}, "
                f"the newest are of {self._version.learner_steps}"
            )
            since = time.monotonic()
        self._runner_versions[runner] = (beat.policy_version, since)
        return self._orders(beat.policy_version)

    async def wait_turn(self, version: PolicyVersion) -> RunnerOrders:
        """What a paused runner calls: answers when it may act again, or after a while."""
        await self._wait(lambda: self._stopping or self._governor.may_act())
        return self._orders(version)

    async def beat_shard(self, beat: ShardBeat) -> None:
        """A shard's newest counts."""
        report = beat.report
        if self._governor.report_shard(beat.shard, beat.life, report.inserted_timesteps, report.stored_timesteps):
            self._shards[beat.shard] = report
            await self._notify()

    async def reserve(self, transitions: int) -> int | None:
        """Credit for one batch, and the shard to ask, drawn in proportion to the newest reported sizes.

        None: no credit came within a while, ask again. STOP: training is over.
        """
        await self._wait(lambda: self._stopping or self._governor.may_train())
        if self._stopping:
            return STOP
        if not self._governor.reserve(transitions):
            return None
        numbers = sorted(self._shards)
        sizes = np.array([self._shards[number].stored_timesteps for number in numbers], np.float64)
        return int(self._rng.choice(numbers, p=sizes / sizes.sum()))

    async def beat_learner(self, beat: LearnerBeat) -> None:
        """A learner's news after an update."""
        self._governor.confirm(beat.reserved, beat.trained)
        self._learner_steps = max(self._learner_steps, beat.version.learner_steps)
        times = self._learner_times
        times["learner"] += beat.learner_time_s
        times["replay"] += beat.batch_wait_s
        times["broadcast"] += beat.broadcast_time_s
        times["governor"] += beat.credit_wait_s
        self._metrics.update(beat.metrics)
        await self._notify()

    async def learner_lost(self, learner_steps: int) -> None:
        """The learner starts again from a checkpoint of this step; what it had reserved is void."""
        self._learner_steps = learner_steps
        self._last_counts = (self._last_counts[0], learner_steps)
        self._governor.rebase()
        await self._notify()

    async def request_stop(self) -> None:
        """Ask the trainer to checkpoint and stop (`amago-ray stop`)."""
        self._stop_requested = True

    async def stop(self) -> None:
        """Training is over: everyone who asks is told so."""
        self._stopping = True
        await self._notify()

    async def collect(self) -> ControlReport:
        """Everything since the last call."""
        now = time.monotonic()
        elapsed = max(now - self._collected_at, 1e-6)
        env_steps, learner_steps = self._last_counts
        lags = [
            self._version.learner_steps - version.learner_steps
            for version, _ in self._runner_versions.values()
            if version.incarnation == self._version.incarnation
        ]
        metrics = {
            **self._metrics,
            **self._governor.metrics(),
            **self._replay_metrics(),
            "time/env_steps_per_s": (self._env_steps - env_steps) / elapsed,
            "time/learner_steps_per_s": (self._learner_steps - learner_steps) / elapsed,
            "rollout/dropped_episodes": float(self._dropped_episodes),
        }
        if lags:
            metrics["time/runner_lag_max"] = float(max(lags))
        self._ray_metrics.set({**metrics, "env_steps": self._env_steps, "learner_steps": self._learner_steps})
        report = ControlReport(
            env_steps=self._env_steps,
            learner_steps=self._learner_steps,
            num_episodes=self._num_episodes,
            episodes=self._episodes,
            metrics=metrics,
            sides=self._sides(now),
            warnings=self._warnings,
            stop_requested=self._stop_requested,
        )
        self._last_counts = (self._env_steps, self._learner_steps)
        self._collected_at = now
        self._episodes, self._warnings, self._metrics = [], [], {}
        return report

    def _sides(self, now: float) -> list[Side]:
        """Shares of the env runners' and of the learner's time."""
        self._runner_shares.update(now, self._runner_times)
        self._learner_shares.update(now, self._learner_times)
        runners = max(len(self._runner_versions), 1)
        shares = {part: share / runners for part, share in self._runner_shares.per_s().items()}
        return [shares, self._learner_shares.per_s()] if shares else []

    def _replay_metrics(self) -> dict[str, float]:
        """Nothing until every shard has reported: sums of some would read as a loss."""
        if len(self._shards) < self._config.replay.num_shards:
            return {}
        return replay_metrics(list(self._shards.values()), self._config.replay)

    def _orders(self, version: PolicyVersion) -> RunnerOrders:
        return RunnerOrders(
            stop=self._stopping,
            may_act=self._governor.may_act(),
            global_env_steps=self._env_steps,
            weights=[self._weights] if self._version > version else [],
        )

    async def _wait(self, ready: Any) -> None:
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(ready), _LONGEST_WAIT_S)
            except TimeoutError:
                return

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
