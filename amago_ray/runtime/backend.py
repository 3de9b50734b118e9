"""`RayBackend`: the ports of training, implemented with Ray actors."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray

from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.files import POLICY_FILE, TRAINING_STATE_FILE
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import TrainingError
from amago_ray.replay.owner import Claim
from amago_ray.runtime.actors import ending, get, is_ready, wait_any, was_made
from amago_ray.runtime.endings import Ending, short_line
from amago_ray.runtime.evaluations import Evaluations
from amago_ray.runtime.ledger import LedgerState, Totals
from amago_ray.runtime.messages import ControlReport, ControlState
from amago_ray.runtime.placement import (
    alive_nodes,
    gpus_per_learner,
    place_shards,
    shard_hosts,
    share_out,
)
from amago_ray.runtime.run_actors import RunActors
from amago_ray.runtime.supervisor import RestartBudget, Started, Supervisor
from amago_ray.training.checkpoints import Checkpoint
from amago_ray.training.ports import Capture, CaptureError, Counters, EvaluationResult, Report

_log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 20.0
_ANSWER_TIMEOUT_S = 10.0
_CAPTURE_TIMEOUT_S = 60.0
_BEGIN_TIMEOUT_S = 60.0
_LONGEST_SILENT_START_S = 30.0


@dataclass
class _ShardWatch:
    """What is known of a shard's process; its incarnation is 0 before it was made."""

    number: int
    incarnation: int = 0
    budget: RestartBudget = field(default_factory=RestartBudget)


class RayBackend:
    """Starts the actors of a run, restarts those that die, and gathers what they report."""

    def __init__(self, config: Config, spec: EnvSpec, replay_directory: Path, claim: Claim, session: int) -> None:
        self._config = config
        self._actors = RunActors(config, spec, replay_directory, claim, session)
        # Env runners and learner, which end with training. Ray restarts control actor and shards, whom we watch.
        self._supervisor = Supervisor(time.monotonic)
        self._evaluations = Evaluations(self._start_evaluator, lambda: self._control.weights.remote())
        self._results: list[EvaluationResult] = []
        self._warnings: list[str] = []
        self._stopping = False
        self._is_interrupted = False
        self._ledger = LedgerState()
        self._counters = Counters()
        # What a learner that starts goes on from: a checkpoint's files.
        self._files: Mapping[str, bytes] | None = None
        self._first_env_steps = 0
        self._control: Any = None
        self._watch: Any = None
        self._is_filled = False
        self._shards: list[Any] = []
        self._shard_watches: dict[Any, _ShardWatch] = {}
        self._hosts: dict[str, str] = {}
        self._hosts_before: dict[int, str] = {}

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """Create all actors, in parallel, and wait until each has been made. They wait for the control actor's filling.

        Raises:
            TrainingError: the cluster has an actor of this run's already.
            AmagoRayError: one cannot be made.
        """
        config = self._config
        nodes = alive_nodes()
        if checkpoint is not None:
            self._counters = Counters(
                *(int(checkpoint.metadata[name]) for name in ("env_steps", "learner_steps", "episodes"))
            )
            self._files = {name: checkpoint.read(name) for name in (POLICY_FILE, TRAINING_STATE_FILE)}
            self._hosts_before = shard_hosts(checkpoint.metadata.get("state", {}))
        places = place_shards(config.replay.num_shards, nodes, spread=config.cluster.spread, before=self._hosts_before)
        self._hosts = {str(place.number): place.host for place in places}
        self._first_env_steps = self._counters.env_steps
        base: dict[str, Totals] = {
            "env_runner": {"env_steps": self._counters.env_steps, "episodes": self._counters.episodes}
        }
        self._ledger = LedgerState(base, learner=PolicyVersion(-1, self._counters.learner_steps))
        self._control = self._actors.start_control()
        for place in places:
            shard = self._actors.start_shard(place)
            self._shards.append(shard)
            self._shard_watches[shard.watch.remote(0)] = _ShardWatch(place.number)
        self._learner_gpus = gpus_per_learner(config, nodes)
        self._supervisor.start("learner", self._start_learner)
        for number in range(config.rollout.num_env_runners):
            self._supervisor.start(f"env runner {number}", partial(self._start_runner, number))
        self._await_makings()

    def start(self) -> None:
        """Let shards take over their directories, and everyone begin.

        Raises:
            AmagoRayError: a shard cannot write its directory.
        """
        begun = [shard.begin.remote() for shard in self._shards]
        late = ray.wait(begun, num_returns=len(begun), timeout=_BEGIN_TIMEOUT_S)[1]
        for number, reference in enumerate(begun):
            if reference in late:
                raise TrainingError(f"the replay shard {number} did not begin within {_BEGIN_TIMEOUT_S:g} s")
            end = ending(reference, reference)
            if end.kind != "returned":
                raise end.failure(f"the replay shard {number} cannot begin")
        if self._files is not None:
            self._take_over_shards()
        for shard in self._shards:
            shard.report.remote()
        self._watch = self._control.watch.remote()

    def _take_over_shards(self) -> None:
        """Let shards take over what belonged to shards that the run has no longer."""
        num_shards, num_before = len(self._shards), len(self._hosts_before)
        shares = share_out([get(shard.surplus.remote(), _BEGIN_TIMEOUT_S) for shard in self._shards])
        takings = [shard.adopt.remote(share) for shard, share in zip(self._shards, shares, strict=True)]
        while ray.wait(takings, num_returns=len(takings), timeout=_LONGEST_SILENT_START_S)[1]:
            _log.warning("still taking over the episodes of replay shards that are no longer")
        taken: dict[int, int] = {}
        for number, reference in enumerate(takings):
            end = ending(reference)
            if end.kind != "returned":
                raise end.failure(f"the replay shard {number} cannot take over the episodes of others")
            taken |= end.value
        if num_before and num_before != num_shards:
            each = self._config.replay.capacity_timesteps // num_shards
            self._warnings.append(
                f"replay.num_shards is {num_shards}, was {num_before}: each shard now holds up to {each:,} transitions"
            )
        for shard, num_episodes in sorted(taken.items()):
            self._warnings.append(f"{num_episodes:,} episodes of the former replay shard {shard} were taken over")
        for shard, host in sorted(self._hosts_before.items()):
            if shard >= num_shards and shard not in taken:
                self._warnings.append(
                    f"the episodes of the former replay shard {shard} on {host} are out of use: no shard is there"
                )

    def advance(self, timeout_s: float) -> Report:
        """Wait a while, or until something happens, and report.

        Raises:
            AmagoRayError: training cannot go on; one that an actor raised, or could not be made for.
        """
        if self._is_interrupted:
            timeout_s = 0.0
        self._look(timeout_s if self._stopping else min(timeout_s, self._supervisor.next_due_s()))
        if not self._stopping:
            self._supervisor.start_due()
        collected = self._collect()
        self._begin_evaluations()
        report = Report(self._counters, evaluations=self._results, warnings=self._warnings)
        self._results, self._warnings = [], []
        if collected is None:
            return report
        return dataclasses.replace(
            report,
            episodes=collected.episodes,
            metrics=collected.metrics,
            sides=collected.sides,
            warnings=[*collected.warnings, *report.warnings],
            stop_requested=collected.stop_requested,
        )

    def request_evaluation(self, number: int) -> None:
        """Evaluate the newest weights, or the first if there are none yet, while training goes on."""
        self._evaluations.ask(number, self._counters)
        self._begin_evaluations()

    def capture(self) -> Capture:
        """The learner's files; replay is on disk already, and is not cut back to a checkpoint.

        Raises:
            CaptureError: the learner is dead, or does not answer.
        """
        try:
            learner_steps, files = get(self._learner.capture.remote(), timeout_s=_CAPTURE_TIMEOUT_S)
        except ray.exceptions.RayError as error:
            raise CaptureError(f"the learner does not answer: {short_line(error)}") from error
        self._files = files
        counters = Counters(self._counters.env_steps, learner_steps, self._counters.episodes)
        return Capture(counters, files, {"shard_hosts": self._hosts})

    def finish(self) -> None:
        """Tell env runners and learner to stop; finished episodes are handed over, the last weights broadcast.

        Raises:
            AmagoRayError: one that an actor raised.
        """
        self._stopping = True
        self._control.stop.remote()
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        while self._supervisor.running and time.monotonic() < deadline_s:
            self._look(deadline_s - time.monotonic())
        for name in self._supervisor.names:
            self._warnings.append(f"the {name} did not end within {_STOP_TIMEOUT_S:g} s")

    def interrupt(self) -> None:
        """Wait no longer in `advance`."""
        self._is_interrupted = True

    def stop(self) -> None:
        """Tell everyone to stop, wait until finished episodes are handed over, and end the actors."""
        self._stopping = True
        for warning in self._warnings:
            # No report will tell.
            _log.warning("%s", warning)
        if self._control is None:
            return
        try:
            if self._is_filled:
                get(self._control.stop.remote(), timeout_s=_ANSWER_TIMEOUT_S)
                if running := list(self._supervisor.running):
                    ray.wait(running, num_returns=len(running), timeout=_STOP_TIMEOUT_S)
            self._actors.kill_supervised()
            ends = [part.close.remote() for part in (self._control, *self._shards)]
            ends += [*self._shard_watches, *([] if self._watch is None else [self._watch])]
            ray.wait(ends, num_returns=len(ends), timeout=_ANSWER_TIMEOUT_S)
        except (ray.exceptions.RayError, TimeoutError) as error:
            # Everything acknowledged is on disk.
            _log.info("ending what does not answer: %s", short_line(error))
        self._actors.kill_all()

    def _look(self, timeout_s: float) -> None:
        """Wait a while, or until something ends or happens, and deal with it."""
        running, evaluations = self._supervisor.running, self._evaluations.running
        watch = [] if self._watch is None else [self._watch]
        for reference in wait_any([*running, *evaluations, *self._shard_watches, *watch], timeout_s):
            if reference in running:
                end = ending(reference, running[reference].made)
                if self._stopping and end.kind != "raised":
                    name = self._supervisor.forget(reference)
                    if end.kind != "returned":
                        self._warnings.append(f"the {name} died when training ended: {end.line}")
                else:
                    self._warnings.append(self._supervisor.ended(reference, end))
            elif reference in evaluations:
                result, warning = self._evaluations.ended(reference, ending(reference, evaluations[reference].made))
                self._results.extend([] if result is None else [result])
                self._warnings.extend([] if warning is None else [warning])
            elif reference in self._shard_watches:
                self._answer_shard(reference)
            else:
                self._answer_control()

    def _await_makings(self) -> None:
        """Wait until all actors have been made; those that cannot be are tried a few times."""
        while True:
            self._look(0.0)
            self._supervisor.start_due()
            running, due_s = self._supervisor.running, self._supervisor.next_due_s()
            unmade = {
                name: each.made
                for name, each in zip(self._supervisor.names, running.values(), strict=True)
                if not was_made(each.made)
            }
            for reference, watch in self._shard_watches.items():
                if not watch.incarnation:
                    unmade[f"replay shard {watch.number}"] = reference
            if not unmade and due_s == float("inf"):
                return
            # Of one that could not be made, the end of its run tells.
            awaited = [*running, *(reference for reference in unmade.values() if not is_ready(reference))]
            if not wait_any(awaited, min(due_s, _LONGEST_SILENT_START_S)) and due_s > _LONGEST_SILENT_START_S:
                _log.warning("still waiting until the cluster has made: %s", ", ".join(unmade))

    def _answer_shard(self, reference: Any) -> None:
        watch = self._shard_watches.pop(reference)
        name = f"replay shard {watch.number}"
        end = ending(reference)
        if end.kind != "returned":
            raise end.failure(f"the {name} cannot be made")
        now_s = time.monotonic()
        if watch.incarnation:
            self._warnings.append(f"the {name} died and was started again: it goes on from what is on its disk")
            watch.budget.failed(name, Ending("died", error=TrainingError("its process died")), now_s)
            self._shards[watch.number].report.remote()
        watch.budget.started(now_s)
        watch.incarnation = end.value
        self._shard_watches[self._shards[watch.number].watch.remote(watch.incarnation)] = watch

    def _answer_control(self) -> None:
        end = ending(self._watch)
        if end.kind != "returned":
            raise end.failure("the control actor cannot be made")
        if end.value:
            self._fill_control()
        self._watch = self._control.watch.remote()

    def _fill_control(self) -> None:
        try:
            get(self._control.fill.remote(ControlState(self._ledger, self._stopping)), timeout_s=_ANSWER_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError:
            # Watching again, we are told again.
            return
        if self._is_filled:
            self._warnings.append("the control actor died and was started again: it goes on from the last report")
            for shard in self._shards:
                shard.report.remote()
            self._learner.broadcast.remote()
        self._is_filled = True

    def _collect(self) -> ControlReport | None:
        """What the control actor gathered; None where it does not answer, or has just been started again."""
        try:
            report: ControlReport | None = get(self._control.collect.remote(), timeout_s=_ANSWER_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError:
            self._warnings.append(f"the control actor did not answer within {_ANSWER_TIMEOUT_S:g} s")
            return None
        except ray.exceptions.RayError as error:
            raise TrainingError(f"the control actor failed: {short_line(error)}") from error
        if report is not None:
            self._ledger = report.ledger
            self._counters = Counters(report.env_steps, report.learner_steps, report.num_episodes)
        return report

    def _start_runner(self, number: int) -> Started:
        runner = self._actors.start_runner(number, self._control, self._shards)
        return Started(runner.make.remote(), runner.run.remote())

    def _start_learner(self) -> Started:
        self._learner = self._actors.start_learner(self._control, self._shards, self._files, self._learner_gpus)
        return Started(self._learner.make.remote(), self._learner.run.remote())

    def _start_evaluator(self) -> tuple[Any, Any]:
        evaluator = self._actors.start_evaluator()
        return evaluator, evaluator.make.remote()

    def _begin_evaluations(self) -> None:
        # What trains starts first: the evaluator would share the processors with it.
        if not self._supervisor.running or self._counters.env_steps > self._first_env_steps:
            self._evaluations.begin()
