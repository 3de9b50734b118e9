"""`RayBackend`: the ports of training, implemented with Ray actors."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.files import POLICY_FILE, TRAINING_STATE_FILE
from amago_ray.data.specs import EnvSpec
from amago_ray.replay.owner import Claim
from amago_ray.runtime.cluster.gcs_watch import GcsWatch
from amago_ray.runtime.cluster.node_watch import NodeWatch
from amago_ray.runtime.cluster.placement import (
    Node,
    alive_nodes,
    draining_nodes,
    gpus_per_learner,
    nodes_for,
    place_shards,
)
from amago_ray.runtime.driver.control_keeper import ControlKeeper
from amago_ray.runtime.driver.evaluations import Evaluations
from amago_ray.runtime.driver.learners import Learners
from amago_ray.runtime.driver.patience import Patience
from amago_ray.runtime.driver.pulse_watch import PulseWatch
from amago_ray.runtime.driver.relays import Relays
from amago_ray.runtime.driver.run_actors import RunActors
from amago_ray.runtime.driver.runners import Runners
from amago_ray.runtime.driver.shards import Shards
from amago_ray.runtime.driver.supervisor import Supervisor
from amago_ray.runtime.protocol.actors import ending, get, is_ready, wait_any, was_made
from amago_ray.runtime.protocol.endings import short_line
from amago_ray.runtime.protocol.ledger import RUNNERS, Ledger, LedgerState, Totals
from amago_ray.runtime.protocol.messages import ControlReport, ControlState
from amago_ray.runtime.protocol.packed_stats import unpack
from amago_ray.runtime.protocol.pulse import LOST_EPISODES, Pulse, pulse_interval_s
from amago_ray.runtime.protocol.shard_table import read_table
from amago_ray.training.checkpoints import Checkpoint
from amago_ray.training.ports import Capture, Counters, EvaluationResult, Report

_log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 20.0
_ANSWER_TIMEOUT_S = 10.0
_LAST_CAPTURE_TIMEOUT_S = 60.0
# A control actor that is slower than that tells its news with a later report.
_COLLECT_TIMEOUT_S = 2.0
_LONGEST_SILENT_START_S = 30.0
# In the status of a run.
_SHOWN_PROCESSES = 100
# After an interrupt all waiting together takes no longer, so that everything has ended within 20 s.
_INTERRUPTED_TIMEOUT_S = 14.0


class RayBackend:
    """Starts the actors of a run, restarts those that die, and gathers what they report."""

    def __init__(self, config: Config, spec: EnvSpec, replay_directory: Path, claim: Claim, session: int) -> None:
        self._config = config
        self._actors = RunActors(config, spec, replay_directory, claim, session)
        self._patience = Patience(time.monotonic)
        self._pulses = PulseWatch(config.supervision, pulse_interval_s(config), time.monotonic)
        self._control = ControlKeeper(self._actors, config.supervision, self._patience, time.monotonic)
        # Env runners and learner, which end with training. Ray restarts the control actor, `Shards` the shards.
        self._supervisor = Supervisor(time.monotonic, self._pulses)
        self._evaluations = Evaluations(
            self._start_evaluator, lambda: self._control.handle.weights.remote(), self._bury_evaluator
        )
        self._shards = Shards(config, self._actors, self._shard_nodes, self._pulses, lambda: self._nodes.draining)
        self._nodes = NodeWatch(draining_nodes)
        self._runners = Runners(
            config.rollout, self._actors, self._supervisor, lambda: self._nodes.draining, time.monotonic
        )
        self._results: list[EvaluationResult] = []
        self._warnings: list[str] = []
        self._stopping = False
        self._counters = Counters()
        self._first_env_steps = 0
        self._relays = Relays(self._actors)
        self._num_kills = 0
        self._is_resumed = False
        self._hosts_before: Mapping[int, str] = {}

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """Create all actors, in parallel, and wait until each has been made that is needed to begin.

        They wait for the control actor's filling.

        Raises:
            TrainingError: the cluster has an actor of this run's already.
            AmagoRayError: one cannot be made.
        """
        config = self._config
        nodes = alive_nodes()
        files = None
        base: dict[str, Totals] = {}
        table, counts = read_table({}, config.replay.num_shards)
        if checkpoint is not None:
            self._is_resumed = True
            self._counters = Counters(
                *(int(checkpoint.metadata[name]) for name in ("env_steps", "learner_steps", "episodes"))
            )
            files = {name: checkpoint.read(name) for name in (POLICY_FILE, TRAINING_STATE_FILE)}
            state = checkpoint.metadata.get("state", {})
            table, counts = read_table(state, config.replay.num_shards)
            self._hosts_before = {int(number): str(host) for number, host in state.get("shard_hosts", {}).items()}
            # Earlier versions saved no totals.
            base = dict(state.get("totals", {}))
        candidates, draining = self._shard_nodes(), draining_nodes()
        candidates = [node for node in candidates if node.node_id not in draining] or candidates
        spread = config.cluster.spread
        places = place_shards(
            config.replay.num_shards,
            candidates,
            spread=spread,
            before=table.hosts,
            num_cpus=config.replay.num_cpus_per_shard,
        )
        self._first_env_steps = self._counters.env_steps
        counted = {"env_steps": self._counters.env_steps, "episodes": self._counters.episodes}
        base[RUNNERS] = {**base.get(RUNNERS, {}), **counted}
        self._control.start(LedgerState(base, learner=PolicyVersion(-1, self._counters.learner_steps)))
        self._shards.start(places, self._control.handle, table, counts)
        self._learners = Learners(self._actors, self._supervisor, config.learner.num_learners, files)
        self._learners.start(self._control.handle, lambda: self._shards.table, gpus_per_learner(config, nodes))
        self._runners.start(self._control.handle, lambda: self._shards.table)
        self._await_makings()

    def start(self) -> None:
        """Let shards take over their directories, and everyone begin.

        Raises:
            AmagoRayError: a shard cannot write its directory.
        """
        self._warnings.extend(self._shards.begin())
        if self._is_resumed:
            self._warnings.extend(self._shards.take_over(self._hosts_before))
        self._shards.report()
        self._nodes.start()
        self._control.watch()
        self._gcs = GcsWatch(ray.get_runtime_context().gcs_address, time.monotonic)

    def advance(self, timeout_s: float) -> Report:
        """Wait a while, or until something happens, and report.

        Raises:
            AmagoRayError: training cannot go on; one that an actor raised, or could not be made for.
        """
        if self._patience.is_ending:
            timeout_s = 0.0
        timeout_s = min(timeout_s, self._shards.next_due_s())
        self._look(timeout_s if self._stopping else min(timeout_s, self._supervisor.next_due_s()))
        if not self._stopping:
            self._supervisor.start_due()
            self._warnings.extend(self._runners.look())
        collected = self._collect()
        self._warnings.extend(self._shards.settle({} if collected is None else collected.shards))
        self._supervise({} if collected is None else collected.pulses)
        self._begin_evaluations()
        report = Report(
            self._counters,
            evaluations=self._results,
            warnings=self._warnings,
            processes=self._pulses.sights(_SHOWN_PROCESSES),
        )
        self._results, self._warnings = [], []
        if collected is None:
            return report
        return dataclasses.replace(
            report,
            episodes=[unpack(stats) for stats in collected.episodes],
            metrics={**collected.metrics, **self._metrics(), **self._runners.metrics()},
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
            CaptureError: the learner is dead, or does not answer in time; what it answers later, a later call takes.
        """
        timeout_s = _LAST_CAPTURE_TIMEOUT_S if self._stopping else _ANSWER_TIMEOUT_S
        learner_steps, files = self._learners.capture(self._patience.s(timeout_s, share=1 / 2), anew=self._stopping)
        counters = Counters(self._counters.env_steps, learner_steps, self._counters.episodes)
        state = {
            "shard_hosts": {str(number): host for number, host in self._shards.table.hosts.items()},
            "shard_table": self._shards.state(),
            "totals": Ledger(self._control.ledger).totals(),
        }
        return Capture(counters, files, state)

    def finish(self) -> None:
        """Tell env runners and learner to stop; finished episodes are handed over, the last weights broadcast.

        Raises:
            AmagoRayError: one that an actor raised.
        """
        self._stopping = True
        self._runners.finish()
        self._control.handle.stop.remote()
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        while self._supervisor.running and not self._patience.is_ending and time.monotonic() < deadline_s:
            self._look(min(deadline_s - time.monotonic(), self._shards.next_due_s()))
            self._warnings.extend(self._shards.settle({}))
        for name in self._supervisor.names:
            self._warnings.append(f"the {name} did not end within {_STOP_TIMEOUT_S:g} s")

    def interrupt(self) -> None:
        """Wait no longer in `advance`, and nowhere for long; called again, not at all."""
        self._patience.end_within(0.0 if self._patience.is_ending else _INTERRUPTED_TIMEOUT_S)

    def stop(self) -> None:
        """Tell everyone to stop, wait until finished episodes are handed over, and end the actors."""
        self._stopping = True
        for warning in self._warnings:
            # No report will tell.
            _log.warning("%s", warning)
        if self._control.handle is None:
            return
        self._nodes.close()
        self._runners.finish()
        try:
            self._part()
        except (ray.exceptions.RayError, TimeoutError) as error:
            # Everything acknowledged is on disk.
            _log.info("ending what does not answer: %s", short_line(error))
        finally:
            self._actors.kill_all()

    def _part(self) -> None:
        """Let everyone hand over what is finished, and close what is open."""
        control, patience = self._control, self._patience
        if control.is_filled:
            get(control.handle.stop.remote(), timeout_s=patience.s(_ANSWER_TIMEOUT_S))
            if running := list(self._supervisor.running):
                ray.wait(running, num_returns=len(running), timeout=patience.s(_STOP_TIMEOUT_S))
        self._actors.kill_supervised()
        ends = [control.handle.close.remote(), *self._shards.close(), *control.watches]
        ray.wait(ends, num_returns=len(ends), timeout=patience.s(_ANSWER_TIMEOUT_S))

    def _look(self, timeout_s: float) -> None:
        """Wait a while, or until something ends or happens, and deal with it."""
        running, evaluations = self._supervisor.running, self._evaluations.running
        references = [*running, *evaluations, *self._shards.watches, *self._control.watches]
        for reference in wait_any(references, timeout_s):
            if reference in running:
                end = ending(reference, running[reference].made)
                if self._stopping and end.kind != "raised":
                    name = self._supervisor.forget(reference)
                    if end.kind == "died":
                        self._warnings.append(f"the {name} died when training ended: {end.line}")
                else:
                    warning = self._supervisor.ended(reference, end)
                    self._warnings.extend([] if warning is None else [warning])
            elif reference in evaluations:
                result, warning = self._evaluations.ended(reference, ending(reference, evaluations[reference].made))
                self._results.extend([] if result is None else [result])
                self._warnings.extend([] if warning is None else [warning])
            elif reference in self._shards.watches:
                self._warnings.extend(self._shards.answer(reference))
            elif reference in self._control.watches:
                self._answer_control()
        self._warnings.extend(self._shards.start_due())

    def _await_makings(self) -> None:
        """Wait until all actors have been made; those that cannot be are tried a few times."""
        made: set[Any] = set()
        while True:
            self._look(0.0)
            self._supervisor.start_due()
            self._warnings.extend(self._shards.settle({}))
            running, optional = self._supervisor.running, self._runners.optional
            due_s = min(self._supervisor.next_due_s(), self._shards.next_due_s())
            unmade = {
                name: each.made
                for name, each in zip(self._supervisor.names, running.values(), strict=True)
                if name not in optional and each.made not in made
            }
            # One call for all: there may be thousands.
            ended = wait_any(list(unmade.values()), 0.0)
            made.update(reference for reference in ended if was_made(reference))
            unmade = {name: reference for name, reference in unmade.items() if reference not in made}
            # Of one that could not be made, the end of its run tells.
            awaited = [*running, *(reference for reference in unmade.values() if reference not in ended)]
            awaited += [reference for reference in self._shards.unmade.values() if not is_ready(reference)]
            unmade |= self._shards.unmade
            if not (unmade or self._shards.due) and set(self._supervisor.due) <= set(optional):
                return
            if not wait_any(awaited, min(due_s, _LONGEST_SILENT_START_S)) and due_s > _LONGEST_SILENT_START_S:
                _log.warning("still waiting until the cluster has made: %s", ", ".join(unmade))

    def _answer_control(self) -> None:
        ledger, relays, table = self._control.ledger, self._relays.handles, self._shards.table
        state = ControlState(ledger, self._stopping, relays, table, self._runners.num_wanted)
        warning = self._control.answer(state)
        if warning is not None:
            self._warnings.append(warning)
            self._shards.report()
            self._learners.broadcast()

    def _collect(self) -> ControlReport | None:
        """What the control actor gathered; None where it does not answer, or has just been started again."""
        wanted_s = _ANSWER_TIMEOUT_S if self._stopping else _COLLECT_TIMEOUT_S
        report = self._control.collect(self._patience.s(wanted_s))
        if report is not None:
            self._warnings.extend(self._relays.start(report.crowded, self._control.handle))
            self._counters = Counters(report.env_steps, report.learner_steps, report.num_episodes)
            if report.num_env_runners != self._runners.num_wanted and not self._stopping:
                self._warnings.append(self._runners.scale(report.num_env_runners))
        return report

    def _supervise(self, pulses: Mapping[str, Pulse]) -> None:
        """Say who is late, and end those that live on without being of use, so that they are started again."""
        self._warnings.extend(warning for warning in (self._gcs.look(), self._control.look()) if warning is not None)
        if not self._control.is_silent:
            for alarm in self._pulses.look(pulses):
                self._warnings.append(f"the {alarm.name} {alarm.text}")
                if alarm.must_kill:
                    self._num_kills += 1
                    self._actors.kill(alarm.name.replace(" ", "_"), for_good=True)
        # Of env runners that wait for a place, theirs speak.
        if pending := [name for name in self._pulses.newly_pending() if not name.startswith("env runner")]:
            self._warnings.append(f"still waiting until the cluster has made: {', '.join(pending)}")

    def _metrics(self) -> Mapping[str, float]:
        """What happened to the processes of this session, counted."""
        restarts = {
            **dict.fromkeys(("env_runner", "learner"), 0),
            **self._supervisor.num_restarts,
            "replay_shard": self._shards.num_restarts,
            "control": self._control.num_restarts,
            "relay": self._relays.num_restarts,
            "evaluator": self._evaluations.num_restarts,
        }
        counts = {
            **{f"runtime/restarts/{role}": number for role, number in restarts.items()},
            "runtime/killed_processes": self._num_kills + self._control.num_kills,
            "runtime/repeated_evaluations": self._evaluations.num_repeated,
            **dict.fromkeys(LOST_EPISODES, 0),
            **self._supervisor.lost,
        }
        return {name: float(count) for name, count in counts.items()}

    def _shard_nodes(self) -> Sequence[Node]:
        return nodes_for("replay_shard", self._config, alive_nodes())

    def _start_evaluator(self) -> tuple[Any, Any]:
        evaluator = self._actors.start_evaluator(self._control.handle)
        self._pulses.begin("evaluator")
        return evaluator, evaluator.make.remote()

    def _bury_evaluator(self) -> None:
        # It may be out of reach only.
        self._actors.kill("evaluator", for_good=True)
        self._pulses.end("evaluator")

    def _begin_evaluations(self) -> None:
        # What trains starts first: the evaluator would share the processors with it.
        if not self._supervisor.running or self._counters.env_steps > self._first_env_steps:
            self._evaluations.begin()
