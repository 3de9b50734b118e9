"""The in-process backend of `--local`: every part in one process, in a fixed order, without Ray."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from amago_ray.acting.env_runner import make_env_runner
from amago_ray.acting.evaluation import Evaluator
from amago_ray.agent.weights import snapshot_to_bytes
from amago_ray.config import Config
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import CheckpointError
from amago_ray.learning.learner import Learner
from amago_ray.replay.make import make_shard
from amago_ray.replay.owner import Claim
from amago_ray.replay.shard import ReplayShard
from amago_ray.training.checkpoints import IMPORTED, Checkpoint
from amago_ray.training.governor import Governor
from amago_ray.training.ports import Capture, Counters, EvaluationResult, Report
from amago_ray.training.replay_metrics import replay_metrics

# Spawn key of the stream from which shards are drawn.
_STREAM = 2


class LocalBackend:
    """Acts until the governor gives credit to train, trains until it is spent, and so on.

    Deterministic: nothing depends on time, so two runs of one config are equal bit for bit, and so is a run that was
    stopped at a checkpoint and resumed. For that a capture drops the running episodes and hands the newest weights to
    the runner, in the uninterrupted run too. Results of an evaluation are handed over before any further training.
    """

    def __init__(self, config: Config, spec: EnvSpec, replay_directory: Path, claim: Claim) -> None:
        self._config = config
        self._learner = Learner(config, spec, device="cpu", seed=config.seed)
        self._runner = make_env_runner(config, run_id=claim.run_id, runner=0, incarnation=0)
        self._spec = spec
        self._replay_directory = replay_directory
        self._claim = claim
        self._shards: list[ReplayShard] = []
        self._evaluator = Evaluator(config) if config.evaluation.num_episodes else None
        self._governor = Governor(config.replay)
        # The key keeps this stream apart from those of the runner, the shards and the learner.
        self._rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(_STREAM,)))
        self._next_shard = 0
        self._episodes_total = 0
        self._finished: list[EpisodeStats] = []
        self._evaluations: list[EvaluationResult] = []
        self._warned_failures: set[str] = set()
        self._busy_s = {"acting": 0.0, "environment": 0.0, "replay": 0.0, "learner": 0.0, "broadcast": 0.0}

    @property
    def _counters(self) -> Counters:
        return Counters(self._runner.env_steps, self._learner.learner_steps, self._episodes_total)

    def start(self, checkpoint: Checkpoint | None) -> None:
        """Begin, or go on from a checkpoint: replay is cut back to where it was then.

        Raises: CheckpointError if the checkpoint is not one of a local run with as many shards.
        """
        for number in range(self._config.replay.num_shards):
            shard = make_shard(self._config, self._spec, self._replay_directory, self._claim, number)
            self._shards.append(shard)
            shard.begin()
            if checkpoint is None:
                # A run that ended before its first checkpoint begins anew, and would meet its own episodes here.
                shard.clear()
            self._report_shard(number)
        if checkpoint is not None:
            self._learner.load_files(checkpoint.read)
            if IMPORTED not in checkpoint.metadata:
                self._load_state(checkpoint)
        self._broadcast()

    def advance(self, timeout_s: float) -> Report:
        """Train `learner.metrics_interval` times, acting in between as the governor asks."""
        if self._evaluations:
            evaluations, self._evaluations = self._evaluations, []
            return Report(self._counters, evaluations=evaluations)
        counters = self._counters
        began = time.perf_counter()
        busy_before = dict(self._busy_s)
        acting_before = (self._runner.policy_time_s, self._runner.env_time_s)
        for _ in range(self._config.learner.metrics_interval):
            self._act_until_credit()
            self._train_once()
        elapsed = time.perf_counter() - began
        self._busy_s["acting"] += self._runner.policy_time_s - acting_before[0]
        self._busy_s["environment"] += self._runner.env_time_s - acting_before[1]
        report = Report(
            counters=self._counters,
            episodes=self._finished,
            metrics={
                **self._learner.metrics(),
                **self._governor.metrics(),
                **replay_metrics([shard.report() for shard in self._shards], self._config.replay),
                "time/env_steps_per_s": (self._counters.env_steps - counters.env_steps) / elapsed,
                "time/learner_steps_per_s": (self._counters.learner_steps - counters.learner_steps) / elapsed,
                "rollout/dropped_episodes": float(self._runner.num_dropped_episodes),
                "rollout/isolated_envs": float(self._runner.num_isolated_envs),
                "rollout/abandoned_episodes": float(self._runner.num_abandoned_episodes),
            },
            sides=[{name: (busy - busy_before[name]) / elapsed for name, busy in self._busy_s.items()}],
            warnings=self._new_failures(),
        )
        self._finished = []
        return report

    def request_evaluation(self, number: int) -> None:
        """Evaluate at once."""
        assert self._evaluator is not None
        began = time.perf_counter()
        snapshot = self._learner.snapshot()
        episodes = self._evaluator.evaluate(number, snapshot)
        time_s = time.perf_counter() - began
        self._evaluations.append(
            EvaluationResult(number, self._counters, episodes, time_s, snapshot_to_bytes(snapshot))
        )

    def capture(self) -> Capture:
        """The state of everything; running episodes are dropped."""
        self._broadcast()
        state: dict[str, Any] = {
            "runner": self._runner.state(),
            "shards": [shard.state() for shard in self._shards],
            "watermarks": [shard.watermark() for shard in self._shards],
            "governor": self._governor.state(),
            "rng": self._rng.bit_generator.state,
            "next_shard": self._next_shard,
            "episodes": self._episodes_total,
        }
        self._runner.abandon()
        return Capture(self._counters, self._learner.save_files(), state)

    def finish(self) -> None:
        """Nothing to do: while an evaluation is awaited, nothing else goes on."""

    def stop(self) -> None:
        """Release environments and files."""
        self._runner.close()
        if self._evaluator is not None:
            self._evaluator.close()
        for shard in self._shards:
            shard.close()

    def _load_state(self, checkpoint: Checkpoint) -> None:
        state: Mapping[str, Any] = checkpoint.metadata["state"]
        if "runner" not in state:
            raise CheckpointError(f"{checkpoint.path}: expected one of a --local run, found one of a run over Ray")
        if len(state["shards"]) != len(self._shards):
            raise CheckpointError(
                f"{checkpoint.path}: expected replay.num_shards {len(state['shards'])}, found {len(self._shards)}"
            )
        for shard, saved, watermark in zip(self._shards, state["shards"], state["watermarks"], strict=True):
            shard.truncate(watermark)
            shard.load_state(saved)
        self._governor.load_state(state["governor"])
        self._rng.bit_generator.state = state["rng"]
        self._next_shard = state["next_shard"]
        self._episodes_total = state["episodes"]
        self._runner.load_state(state["runner"])

    def _act_until_credit(self) -> None:
        acted = False
        while not self._governor.may_train() or (self._config.replay.samples_per_insert is None and not acted):
            acted = True
            self._runner.global_env_steps = self._runner.env_steps
            finished = self._runner.step()
            if finished:
                began = time.perf_counter()
                self._shards[self._next_shard].add([done.episode for done in finished])
                self._report_shard(self._next_shard)
                self._busy_s["replay"] += time.perf_counter() - began
                self._next_shard = (self._next_shard + 1) % len(self._shards)
                self._episodes_total += len(finished)
                self._finished.extend(done.stats for done in finished)

    def _train_once(self) -> None:
        began = time.perf_counter()
        batches = [self._sample() for _ in range(self._config.learner.batches_per_update)]
        sampled = time.perf_counter()
        for batch in batches:
            self._learner.step(batch)
            self._governor.confirm(0, batch.num_transitions)
        trained = time.perf_counter()
        if self._learner.learner_steps % self._config.learner.broadcast_interval == 0:
            self._broadcast()
        self._busy_s["replay"] += sampled - began
        self._busy_s["learner"] += trained - sampled
        self._busy_s["broadcast"] += time.perf_counter() - trained

    def _sample(self) -> SequenceBatch:
        sizes = np.array([shard.report().stored_timesteps for shard in self._shards], np.float64)
        shard = self._shards[int(self._rng.choice(len(sizes), p=sizes / sizes.sum()))]
        return shard.sample(self._config.learner.batch_size)

    def _broadcast(self) -> None:
        self._runner.load(self._learner.snapshot())

    def _new_failures(self) -> list[str]:
        messages = self._runner.failure_messages
        kinds = [kind for kind in messages if kind not in self._warned_failures]
        self._warned_failures.update(kinds)
        return [f"{messages[kind]}; it is made anew (said once per kind)" for kind in kinds]

    def _report_shard(self, number: int) -> None:
        report = self._shards[number].report()
        self._governor.report_shard(number, 0, report.inserted_timesteps, report.stored_timesteps)
