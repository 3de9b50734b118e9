"""`RayBackend`: the ports of training, implemented with Ray actors."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
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
from amago_ray.runtime.endings import short_line
from amago_ray.runtime.evaluations import Evaluations
from amago_ray.runtime.learners import Learners
from amago_ray.runtime.ledger import RUNNERS, Ledger, LedgerState, Totals
from amago_ray.runtime.messages import ControlReport, ControlState
from amago_ray.runtime.packed_stats import unpack
from amago_ray.runtime.placement import (
    alive_nodes,
    gpus_per_learner,
    nodes_for,
    place_shards,
    shard_hosts,
)
from amago_ray.runtime.relays import Relays
from amago_ray.runtime.run_actors import RunActors
from amago_ray.runtime.runners import Runners
from amago_ray.runtime.shards import Shards
from amago_ray.runtime.supervisor import Supervisor
from amago_ray.training.checkpoints import Checkpoint
from amago_ray.training.ports import Capture, Counters, EvaluationResult, Report

_log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 20.0
_ANSWER_TIMEOUT_S = 10.0
_LONGEST_SILENT_START_S = 30.0


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
        self._first_env_steps = 0
        self._control: Any = None
        self._watch: Any = None
        self._is_filled = False
        self._shards = Shards(config, self._actors)
        self._runners = Runners(self._actors, self._supervisor)
        self._relays = Relays(self._actors)
        self._is_resumed = False
        self._hosts_before: Mapping[int, str] = {}

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """Create all actors, in parallel, and wait until each has been made. They wait for the control actor's filling.

        Raises:
            TrainingError: the cluster has an actor of this run's already.
            AmagoRayError: one cannot be made.
        """
        config = self._config
        nodes = alive_nodes()
        files = None
        base: dict[str, Totals] = {}
        if checkpoint is not None:
            self._is_resumed = True
            self._counters = Counters(
                *(int(checkpoint.metadata[name]) for name in ("env_steps", "learner_steps", "episodes"))
            )
            files = {name: checkpoint.read(name) for name in (POLICY_FILE, TRAINING_STATE_FILE)}
            state = checkpoint.metadata.get("state", {})
            self._hosts_before = shard_hosts(state)
            # Earlier versions saved no totals.
            base = dict(state.get("totals", {}))
        candidates = nodes_for("replay_shard", config, nodes)
        spread = config.cluster.spread
        places = place_shards(config.replay.num_shards, candidates, spread=spread, before=self._hosts_before)
        self._first_env_steps = self._counters.env_steps
        counted = {"env_steps": self._counters.env_steps, "episodes": self._counters.episodes}
        base[RUNNERS] = {**base.get(RUNNERS, {}), **counted}
        self._ledger = LedgerState(base, learner=PolicyVersion(-1, self._counters.learner_steps))
        self._control = self._actors.start_control()
        self._shards.start(places)
        self._learners = Learners(self._actors, self._supervisor, files)
        self._learners.start(self._control, self._shards.handles, gpus_per_learner(config, nodes))
        self._runners.start(config.rollout.num_env_runners, self._control, self._shards.handles)
        self._await_makings()

    def start(self) -> None:
        """Let shards take over their directories, and everyone begin.

        Raises:
            AmagoRayError: a shard cannot write its directory.
        """
        self._shards.begin()
        if self._is_resumed:
            self._warnings.extend(self._shards.take_over(self._hosts_before))
        self._shards.report()
        self._watch = self._control.watch.remote()

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
            episodes=[unpack(stats) for stats in collected.episodes],
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
        learner_steps, files = self._learners.capture()
        counters = Counters(self._counters.env_steps, learner_steps, self._counters.episodes)
        return Capture(counters, files, {"shard_hosts": self._shards.hosts, "totals": Ledger(self._ledger).totals()})

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
            ends = [
                self._control.close.remote(),
                *self._shards.close(),
                *([] if self._watch is None else [self._watch]),
            ]
            ray.wait(ends, num_returns=len(ends), timeout=_ANSWER_TIMEOUT_S)
        except (ray.exceptions.RayError, TimeoutError) as error:
            # Everything acknowledged is on disk.
            _log.info("ending what does not answer: %s", short_line(error))
        self._actors.kill_all()

    def _look(self, timeout_s: float) -> None:
        """Wait a while, or until something ends or happens, and deal with it."""
        running, evaluations = self._supervisor.running, self._evaluations.running
        watch = [] if self._watch is None else [self._watch]
        for reference in wait_any([*running, *evaluations, *self._shards.watches, *watch], timeout_s):
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
            elif reference in self._shards.watches:
                warning = self._shards.answer(reference)
                self._warnings.extend([] if warning is None else [warning])
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
            unmade |= self._shards.unmade
            if not unmade and due_s == float("inf"):
                return
            # Of one that could not be made, the end of its run tells.
            awaited = [*running, *(reference for reference in unmade.values() if not is_ready(reference))]
            if not wait_any(awaited, min(due_s, _LONGEST_SILENT_START_S)) and due_s > _LONGEST_SILENT_START_S:
                _log.warning("still waiting until the cluster has made: %s", ", ".join(unmade))

    def _answer_control(self) -> None:
        end = ending(self._watch)
        if end.kind != "returned":
            raise end.failure("the control actor cannot be made")
        if end.value:
            self._fill_control()
        self._watch = self._control.watch.remote()

    def _fill_control(self) -> None:
        try:
            state = ControlState(self._ledger, self._stopping, self._relays.handles)
            get(self._control.fill.remote(state), timeout_s=_ANSWER_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError:
            # Watching again, we are told again.
            return
        if self._is_filled:
            self._warnings.append("the control actor died and was started again: it goes on from the last report")
            self._shards.report()
            self._learners.broadcast()
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
            self._warnings.extend(self._relays.start(report.crowded, self._control))
            self._counters = Counters(report.env_steps, report.learner_steps, report.num_episodes)
        return report

    def _start_evaluator(self) -> tuple[Any, Any]:
        evaluator = self._actors.start_evaluator()
        return evaluator, evaluator.make.remote()

    def _begin_evaluations(self) -> None:
        # What trains starts first: the evaluator would share the processors with it.
        if not self._supervisor.running or self._counters.env_steps > self._first_env_steps:
            self._evaluations.begin()
