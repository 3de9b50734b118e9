"""The in-process backend of `--local`: every part in one process, in a fixed order, without Ray."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from amago_ray.acting.env_runner import make_env_runner
from amago_ray.acting.evaluation import EvaluationInterrupted, Evaluator
from amago_ray.agent.weights import snapshot_to_bytes
from amago_ray.config import Config
from amago_ray.data.episode import Episode
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import CheckpointError, DiskFullError, EnvError
from amago_ray.learning.learner import Learner
from amago_ray.replay.draws import draw_shards
from amago_ray.replay.make import make_shard
from amago_ray.replay.owner import Claim
from amago_ray.replay.shard import ReplayShard
from amago_ray.training.checkpoints import IMPORTED, Checkpoint
from amago_ray.training.governor import Governor
from amago_ray.training.ports import Capture, Counters, EvaluationResult, Report
from amago_ray.training.replay_metrics import replay_metrics

_FULL_DISK_PAUSE_S = 0.5
# Spawn key of the stream from which shards are drawn.
_STREAM = 2


@dataclass(frozen=True)
class _Mark:
    """How things stood at a time: totals, the time at work, and in each part of it."""

    counters: Counters = field(default_factory=Counters)
    worked_s: float = 0.0
    busy_s: Mapping[str, float] = field(default_factory=dict)


class LocalBackend:
    """Acts until the governor gives credit to train, trains until it is spent, and so on.

    Deterministic: nothing depends on time, so two runs of one config are equal bit for bit, and so is a run that was
    stopped at a checkpoint and resumed. For that a capture drops the running episodes and hands the newest weights to
    the runner, in the uninterrupted run too. Evaluations wanted come before any further training. The clock decides
    about interim reports alone, and where `stop.time_s` ends the run.
    """

    def __init__(self, config: Config, spec: EnvSpec, replay_directory: Path, claim: Claim) -> None:
        self._config = config
        self._learner = Learner(config, spec, device="cpu", seed=config.seed)
        self._runner = make_env_runner(config, run_id=claim.run_id, runner=0, incarnation=0, spec=spec)
        self._spec = spec
        self._replay_directory = replay_directory
        self._claim = claim
        self._shards: list[ReplayShard] = []
        with ExitStack() as failing:
            failing.callback(self._runner.close)
            self._evaluator = Evaluator(config) if config.evaluation.num_episodes else None
            failing.pop_all()
        self._governor = Governor(config.replay)
        # The key keeps this stream apart from those of the runner, the shards and the learner.
        self._rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(_STREAM,)))
        self._begins_anew = True
        self._saved: Mapping[str, Any] | None = None
        self._next_shard = 0
        self._unstored: Sequence[Episode] = []
        """Episodes that replay had no room for; not in a checkpoint, as they are not acknowledged."""
        self._episodes_total = 0
        self._episodes: list[EpisodeStats] = []
        self._num_shard_warnings: Counter[int] = Counter()
        self._wanted_evaluations: list[int] = []
        self._warned_failures: set[str] = set()
        self._end_at_s = math.inf
        self._is_interrupted = False
        self._is_finished = False
        self._has_acted = False
        # Updates until the next whole report, and how things stood at the one before.
        self._updates_left = config.learner.metrics_interval
        self._reported = _Mark()
        self._worked_s = self._replay_s = self._learner_s = self._broadcast_s = 0.0

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """Open the shards and load the learner.

        Raises:
            CheckpointError: the checkpoint is not one of a local run with as many shards, or of another agent.
            DataError: replay is another run's, or lacks what it held at the checkpoint.
        """
        if checkpoint is not None:
            self._learner.load_files(checkpoint.read)
            if IMPORTED not in checkpoint.metadata:
                self._saved = self._state_of(checkpoint)
        self._begins_anew = checkpoint is None
        # Last, as opening leaves its mark.
        for number in range(self._config.replay.num_shards):
            self._shards.append(make_shard(self._config, self._spec, self._replay_directory, self._claim, number))
        if self._saved is not None:
            for shard, watermark in zip(self._shards, self._saved["watermarks"], strict=True):
                shard.check_watermark(watermark)

    def start(self) -> None:
        """Begin, or go on from the checkpoint: replay is cut back to where it was then."""
        if self._config.stop.time_s is not None:
            self._end_at_s = time.monotonic() + self._config.stop.time_s
        for number, shard in enumerate(self._shards):
            shard.begin()
            if self._begins_anew:
                # A run that ended before its first checkpoint would meet its own episodes here.
                shard.clear()
            self._report_shard(number)
        if self._saved is not None:
            self._load_state(self._saved)
        self._broadcast()
        self._reported = self._mark()

    def advance(self, timeout_s: float) -> Report:
        """Train `learner.metrics_interval` times, acting in between as the governor asks, or evaluate.

        What takes longer than `timeout_s` is told in interim reports.
        """
        if self._wanted_evaluations and not self._must_return:
            return self._evaluate()
        began = time.perf_counter()
        is_whole = self._is_finished or self._work(time.monotonic() + timeout_s)
        self._worked_s += time.perf_counter() - began
        if is_whole and self._counters != self._reported.counters:
            return self._report()
        return Report(self._counters, warnings=self._new_warnings(), is_interim=True)

    def request_evaluation(self, number: int) -> None:
        """Evaluate before anything else goes on."""
        self._wanted_evaluations.append(number)

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
        """Neither act nor train any more."""
        self._is_finished = True

    def interrupt(self) -> None:
        """Come back from whatever is under way at its next step."""
        self._is_interrupted = True

    def stop(self) -> None:
        """Release environments and files."""
        self._runner.close()
        if self._evaluator is not None:
            self._evaluator.close()
        for shard in self._shards:
            shard.close()

    def _state_of(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        state: Mapping[str, Any] = checkpoint.metadata["state"]
        if "runner" not in state:
            raise CheckpointError(f"{checkpoint.path}: expected one of a --local run, got one of a run over Ray")
        num_shards = self._config.replay.num_shards
        if len(state["shards"]) != num_shards:
            raise CheckpointError(
                f"{checkpoint.path}: expected replay.num_shards {len(state['shards'])}, got {num_shards}"
            )
        return state

    def _load_state(self, state: Mapping[str, Any]) -> None:
        for shard, saved, watermark in zip(self._shards, state["shards"], state["watermarks"], strict=True):
            shard.truncate(watermark)
            shard.load_state(saved)
        self._governor.load_state(state["governor"])
        self._rng.bit_generator.state = state["rng"]
        self._next_shard = state["next_shard"]
        self._episodes_total = state["episodes"]
        self._runner.load_state(state["runner"])

    @property
    def _counters(self) -> Counters:
        return Counters(self._runner.env_steps, self._learner.learner_steps, self._episodes_total)

    @property
    def _must_return(self) -> bool:
        is_late = not self._is_finished and time.monotonic() >= self._end_at_s
        return self._is_interrupted or is_late

    @property
    def _is_acted(self) -> bool:
        limit = self._config.stop.env_steps
        return limit is not None and self._runner.env_steps >= limit

    @property
    def _is_trained(self) -> bool:
        limit = self._config.stop.learner_steps
        return limit is not None and self._learner.learner_steps >= limit

    def _work(self, until_s: float) -> bool:
        """Train as often as a whole report needs, acting in between; False: there is more to do, but the time is up."""
        while self._updates_left and not self._is_trained and not self._must_return:
            if self._may_train():
                self._train_once()
                self._updates_left -= 1
            elif self._is_acted:
                break
            elif self._unstored:
                self._wait_for_room()
            else:
                self._act()
            if time.monotonic() >= until_s:
                return not self._updates_left
        return True

    def _may_train(self) -> bool:
        """Whether the governor gives credit; running free, every update has one step of acting before it."""
        is_acting_first = self._config.replay.samples_per_insert is None and not self._has_acted
        return self._governor.may_train() and not is_acting_first

    def _act(self) -> None:
        self._has_acted = True
        self._runner.global_env_steps = self._runner.env_steps
        finished = self._runner.step()
        if finished:
            began = time.perf_counter()
            self._unstored = self._runner.take_episodes()
            self._store()
            self._replay_s += time.perf_counter() - began
            self._episodes_total += len(finished)
            self._episodes.extend(finished)

    def _store(self) -> None:
        """Hand the newest episodes to replay; where its disk is full they are kept, and nothing is acted meanwhile."""
        number = self._next_shard
        with suppress(DiskFullError):
            self._shards[number].add(self._unstored)
            self._unstored = []
            self._next_shard = (number + 1) % len(self._shards)
        self._report_shard(number)

    def _wait_for_room(self) -> None:
        """Try again after a while."""
        began = time.perf_counter()
        time.sleep(_FULL_DISK_PAUSE_S)
        self._store()
        self._replay_s += time.perf_counter() - began

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
        self._has_acted = False
        self._replay_s += sampled - began
        self._learner_s += trained - sampled
        self._broadcast_s += time.perf_counter() - trained

    def _evaluate(self) -> Report:
        """Evaluate, unless that is interrupted: then the evaluation is still wanted."""
        assert self._evaluator is not None
        number = self._wanted_evaluations[0]
        began = time.perf_counter()
        snapshot = self._learner.snapshot()
        episodes: list[EpisodeStats] = []
        given_up = None
        try:
            episodes = self._evaluator.evaluate(number, snapshot, is_interrupted=lambda: self._must_return)
        except EvaluationInterrupted:
            return Report(self._counters, is_interim=True)
        except EnvError as error:
            given_up = str(error)
        self._wanted_evaluations.pop(0)
        policy = None if given_up else snapshot_to_bytes(snapshot)
        time_s = time.perf_counter() - began
        result = EvaluationResult(number, self._counters, episodes, time_s, policy, given_up)
        return Report(self._counters, evaluations=[result])

    def _mark(self) -> _Mark:
        busy_s = {
            "acting": self._runner.policy_time_s,
            "environment": self._runner.env_time_s,
            "replay": self._replay_s,
            "learner": self._learner_s,
            "broadcast": self._broadcast_s,
        }
        return _Mark(self._counters, self._worked_s, busy_s)

    def _report(self) -> Report:
        """Everything since the whole report before."""
        before, now = self._reported, self._mark()
        elapsed = max(now.worked_s - before.worked_s, 1e-9)
        report = Report(
            counters=now.counters,
            episodes=self._episodes,
            metrics={
                **self._learner.metrics(),
                **self._governor.metrics(),
                **replay_metrics([shard.report() for shard in self._shards], self._config.replay),
                "time/env_steps_per_s": (now.counters.env_steps - before.counters.env_steps) / elapsed,
                "time/learner_steps_per_s": (now.counters.learner_steps - before.counters.learner_steps) / elapsed,
                "rollout/dropped_episodes": float(self._runner.num_dropped_episodes),
                "rollout/isolated_envs": float(self._runner.num_isolated_envs),
                "rollout/abandoned_episodes": float(self._runner.num_abandoned_episodes),
            },
            sides=[{name: (busy_s - before.busy_s[name]) / elapsed for name, busy_s in now.busy_s.items()}],
            warnings=self._new_warnings(),
        )
        self._episodes = []
        self._updates_left = self._config.learner.metrics_interval
        self._reported = now
        return report

    def _sample(self) -> SequenceBatch:
        reports = {number: shard.report() for number, shard in enumerate(self._shards)}
        (number,) = draw_shards(reports, self._config.replay.sampling, 1, self._rng)
        return self._shards[number].sample(self._config.learner.batch_size)

    def _broadcast(self) -> None:
        self._runner.load(self._learner.snapshot())

    def _new_warnings(self) -> list[str]:
        lines = self._new_failures()
        for number, shard in enumerate(self._shards):
            report = shard.report()
            lines.extend(report.warnings_after(self._num_shard_warnings[number]))
            self._num_shard_warnings[number] = report.num_warnings
        return lines

    def _new_failures(self) -> list[str]:
        messages = self._runner.failure_messages
        kinds = [kind for kind in messages if kind not in self._warned_failures]
        self._warned_failures.update(kinds)
        return [f"{messages[kind]}; it is made anew (said once per kind)" for kind in kinds]

    def _report_shard(self, number: int) -> None:
        report = self._shards[number].report()
        self._governor.report_shard(number, 0, report.inserted_transitions, report.stored_transitions)
