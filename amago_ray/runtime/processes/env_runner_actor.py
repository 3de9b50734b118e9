"""`EnvRunnerActor`: a process that runs an `EnvRunner` and hands its episodes to replay."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import ray

from amago_ray.config import Config
from amago_ray.data.specs import EnvSpec
from amago_ray.envs.hang_watch import hung_call
from amago_ray.runtime.processes.control_link import ControlLink
from amago_ray.runtime.processes.episode_sender import EpisodeSender
from amago_ray.runtime.protocol.actors import get_unless_lost, this_node
from amago_ray.runtime.protocol.messages import MOST_EPISODES, RunnerBeat, RunnerOrders
from amago_ray.runtime.protocol.packed_stats import pack
from amago_ray.runtime.protocol.pulse import LOST_EPISODES, PulseThread, start_pulses
from amago_ray.runtime.protocol.runner_ledger import RunnerTotals
from amago_ray.runtime.protocol.shard_table import ShardTable

# Seconds between beats, unless the control actor wants fewer; each brings new orders and weights.
_BEAT_INTERVAL_S = 0.1
# Steps between looks at the clock and at what has arrived.
_STEPS_PER_CHECK = 4


class EnvRunnerActor:
    """A thin shell around `EnvRunner`: `run` goes on until the control actor says stop, to all or to this one.

    A beat is under way while the environments step; what it answers is applied between steps.
    """

    def __init__(
        self,
        config: Config,
        spec: EnvSpec,
        run_id: int,
        runner: int,
        incarnation: int,
        control: Any,
        table: ShardTable,
        *,
        begin_pulses: Callable[..., PulseThread] = start_pulses,
    ) -> None:
        self._config = config
        self._spec = spec
        self._run_id, self._number, self._incarnation = run_id, runner, incarnation
        self._link = ControlLink(control)
        self._sender = EpisodeSender(
            table,
            first_shard=runner,
            episodes_per_add=config.rollout.episodes_per_add,
            max_unacknowledged_adds=config.rollout.max_unacknowledged_adds,
            lost_after_s=config.supervision.dead_after_s,
        )
        self._stats: list[bytes] = []
        """Of the newest episodes: those in no beat that was answered, but not more than a beat carries."""
        self._num_beaten = 0
        """Of `_stats`, how many are in the beat under way."""
        self._num_episodes = 0
        self._num_running = 0
        """Episodes: one in each environment, once these step."""
        self._weights_time_s = self._paused_time_s = 0.0
        self._pulses = begin_pulses(config, f"env runner {runner}", control, hung=hung_call, at_stake=self._at_stake)

    def whereabouts(self) -> tuple[str, str]:
        """Node id and host: the first call, so that its answer says that there is a place for this process."""
        host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return this_node(), host

    def make(self) -> None:
        """Make the environments and the policy: before `run`, and apart from it, so that the caller learns why not."""
        self._pulses.works("making environments and policy")
        # Imported here, not above: the driver, which names this class, needs no torch.
        import torch

        from amago_ray.acting.env_runner import make_env_runner

        torch.set_num_threads(1)
        device = "cuda" if self._config.rollout.num_gpus_per_env_runner > 0 else "cpu"
        self._runner = make_env_runner(
            self._config,
            run_id=self._run_id,
            runner=self._number,
            incarnation=self._incarnation,
            device=device,
            spec=self._spec,
        )

    def run(self) -> None:
        """Step the environments until told to stop; what is finished then has been handed over."""
        self._node = this_node()
        self._pulses.waits("waiting for training to begin")
        orders: RunnerOrders | None = None
        while orders is None or not orders.stop:
            may_act = orders is not None and orders.may_act
            for _ in range(_STEPS_PER_CHECK):
                if not self._may_step(orders):
                    break
                self._step()
            # Who has used up its env steps asks for more at once.
            after_s = 0.0 if may_act and not self._has_steps(orders) else _BEAT_INTERVAL_S
            if self._link.is_due(after_s):
                self._sender.send(force=True)
                self._link.beat(self._news())
            if self._sender.is_full:
                self._sender.wait(_BEAT_INTERVAL_S)
                self._sender.send()
            elif not self._may_step(orders):
                began = time.monotonic()
                self._link.rest(after_s)
                if orders is not None and not may_act:
                    self._paused_time_s += time.monotonic() - began
            if (newer := self._link.orders()) is not None:
                orders = newer
                self._apply(newer)
        self._hand_over()
        self._link.finish(self._news(num_abandoned=self._runner.num_partial_episodes))
        self._runner.close()

    def __repr__(self) -> str:
        """The name in logs and in the Ray dashboard."""
        return f"EnvRunner({self._number})"

    def _at_stake(self) -> Mapping[str, int]:
        return dict(zip(LOST_EPISODES, (self._num_running, self._sender.num_unacknowledged), strict=True))

    def _may_step(self, orders: RunnerOrders | None) -> bool:
        return orders is not None and orders.may_act and self._has_steps(orders) and not self._sender.is_full

    def _has_steps(self, orders: RunnerOrders | None) -> bool:
        if orders is None:
            return False
        return orders.allowed_env_steps is None or self._runner.env_steps < orders.allowed_env_steps

    def _step(self) -> None:
        self._pulses.works("stepping environments")
        self._num_running = self._runner.num_envs
        finished = self._runner.step()
        self._pulses.waits("handing over episodes or waiting for its turn")
        if finished:
            self._sender.put(self._runner.take_episodes())
            self._num_episodes += len(finished)
            self._stats.extend(map(pack, finished))
            num_over = max(len(self._stats) - MOST_EPISODES, 0)
            del self._stats[:num_over]
            self._num_beaten = max(self._num_beaten - num_over, 0)
        self._sender.send()

    def _hand_over(self) -> None:
        """Wait until all episodes are stored, or only full disks are in the way; beats tell of replaced shards."""
        while not self._sender.is_done and not self._sender.is_refused:
            self._sender.send(force=True)
            self._sender.wait(_BEAT_INTERVAL_S)
            if self._link.is_due(_BEAT_INTERVAL_S):
                self._link.beat(self._news())
            if (newer := self._link.orders()) is not None:
                self._apply(newer)

    def _apply(self, orders: RunnerOrders) -> None:
        del self._stats[: self._num_beaten]
        self._num_beaten = 0
        self._runner.global_env_steps = orders.global_env_steps
        if orders.table is not None:
            self._sender.update(orders.table)
        if orders.weights:
            began = time.monotonic()
            self._take_weights(orders.weights[0])
            self._weights_time_s += time.monotonic() - began

    def _take_weights(self, reference: Any) -> None:
        # If the control actor died with the weights, a learner pushes new ones to its successor; the next beat says so.
        snapshot = get_unless_lost(reference, self._config.supervision.dead_after_s)
        if snapshot is not None and snapshot.version > self._runner.policy.version:
            self._runner.load(snapshot)

    def _news(self, num_abandoned: int = 0) -> RunnerBeat:
        runner = self._runner
        self._num_beaten = len(self._stats)
        return RunnerBeat(
            runner=self._number,
            incarnation=self._incarnation,
            policy_version=runner.policy.version,
            totals=RunnerTotals(
                env_steps=runner.env_steps,
                episodes=self._num_episodes,
                stored_episodes=self._sender.num_stored,
                dropped_episodes=runner.num_dropped_episodes,
                abandoned_episodes=num_abandoned,
                env_failures=sum(runner.failures.values()),
                isolated_envs=runner.num_isolated_envs,
                acting_s=runner.policy_time_s,
                environment_s=runner.env_time_s,
                replay_s=self._sender.time_s,
                broadcast_s=self._weights_time_s,
                governor_s=self._paused_time_s,
            ),
            failures=list(runner.failures),
            episodes=list(self._stats),
            table_version=self._sender.table_version,
            node=self._node,
        )
