"""`RayBackend`: the ports of training, implemented with Ray actors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from amago_ray.config import Config
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import AmagoRayError, TrainingError
from amago_ray.replay.owner import Claim
from amago_ray.runtime.actors import alive_nodes, cluster_resources, get, start_actor
from amago_ray.runtime.control import ControlActor
from amago_ray.runtime.env_runner_actor import EnvRunnerActor
from amago_ray.runtime.evaluator_actor import EvaluatorActor
from amago_ray.runtime.learner_actor import LearnerActor
from amago_ray.runtime.messages import ControlReport
from amago_ray.runtime.replay_shard_actor import ReplayShardActor
from amago_ray.training.checkpoints import POLICY_FILE, TRAINING_STATE_FILE, Checkpoint
from amago_ray.training.ports import Capture, Counters, EvaluationResult, Report

# Incarnations of a later session are above all of an earlier one's.
_INCARNATIONS_PER_SESSION = 1_000_000
_STOP_TIMEOUT_S = 20.0
_LONGEST_RESTART_PAUSE_S = 30.0


class RayBackend:
    """Starts the actors of a run, restarts those that die, and gathers what they report.

    Actors carry the run's name in theirs, so that `ray list actors` and the dashboard tell runs apart.
    """

    def __init__(self, config: Config, spec: EnvSpec, directory: Path, claim: Claim, session: int) -> None:
        self._config = config
        self._spec = spec
        self._replay_directory = Path(config.replay.directory) if config.replay.directory else directory / "replay"
        self._claim = claim
        self._incarnation = session * _INCARNATIONS_PER_SESSION
        self._restarts = 0
        self._runs: dict[Any, str] = {}
        self._runners: dict[str, int] = {}
        self._pauses_s: dict[str, float] = {}
        self._evaluator: Any = None
        self._wanted_evaluations: list[tuple[int, Counters, Any]] = []
        self._evaluations: dict[Any, tuple[int, Counters, float]] = {}
        self._warnings: list[str] = []
        self._counters = Counters()
        self._base_env_steps = 0
        # What a learner that starts goes on from: a checkpoint's files and its updates.
        self._files: Mapping[str, bytes] | None = None
        self._files_steps = 0

    def start(self, checkpoint: Checkpoint | None) -> None:
        """Create all actors; they start in parallel."""
        config = self._config
        if checkpoint is not None:
            self._counters = Counters(
                *(int(checkpoint.metadata[name]) for name in ("env_steps", "learner_steps", "episodes"))
            )
            self._base_env_steps = self._counters.env_steps
            self._files = {name: checkpoint.read(name) for name in (POLICY_FILE, TRAINING_STATE_FILE)}
            self._files_steps = self._counters.learner_steps
        base = {
            "env_steps": self._counters.env_steps,
            "learner_steps": self._counters.learner_steps,
            "episodes": self._counters.episodes,
        }
        self._control = start_actor(
            ControlActor,
            config,
            base,
            name=self._name("control"),
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=3,
        )
        nodes = alive_nodes()
        self._shards = [
            start_actor(
                ReplayShardActor,
                config,
                self._spec,
                str(self._replay_directory.absolute()),
                self._claim,
                number,
                self._incarnation,
                self._name("control"),
                name=self._name(f"replay_shard_{number}"),
                num_cpus=config.replay.num_cpus_per_shard,
                max_restarts=-1,
                # Restarted anywhere else, it would not find its files.
                scheduling_strategy=NodeAffinitySchedulingStrategy(nodes[number % len(nodes)], soft=False),
            )
            for number in range(config.replay.num_shards)
        ]
        self._start_learner()
        for number in range(config.rollout.num_env_runners):
            self._start_runner(number)

    def advance(self, timeout_s: float) -> Report:
        """Wait a while, or until an actor or an evaluation ends, and report.

        Raises: TrainingError if training cannot go on; AmagoRayError that an actor raised.
        """
        watched = [*self._runs, *self._evaluations]
        ended, _ = ray.wait(watched, num_returns=1, timeout=timeout_s) if watched else ([], [])
        if ended:
            ended, _ = ray.wait(watched, num_returns=len(watched), timeout=0)
        evaluations = []
        for reference in ended:
            if reference in self._evaluations:
                evaluations.extend(self._finish_evaluation(reference))
            else:
                self._handle_end(reference)
        report: ControlReport = get(self._control.collect.remote())
        self._counters = Counters(report.env_steps, report.learner_steps, report.num_episodes)
        self._begin_evaluations()
        warnings, self._warnings = [*report.warnings, *self._warnings], []
        return Report(
            counters=self._counters,
            episodes=report.episodes,
            metrics=report.metrics,
            sides=report.sides,
            evaluations=evaluations,
            warnings=warnings,
            stop_requested=report.stop_requested,
        )

    def request_evaluation(self, number: int) -> None:
        """Evaluate the newest weights, or the first if there are none yet, while training goes on."""
        self._wanted_evaluations.append((number, self._counters, self._control.weights.remote()))
        self._begin_evaluations()

    def capture(self) -> Capture:
        """The learner's files; replay is on disk already, and is not cut back to a checkpoint."""
        learner_steps, files = get(self._learner.capture.remote())
        self._files, self._files_steps = files, learner_steps
        counters = Counters(self._counters.env_steps, learner_steps, self._counters.episodes)
        return Capture(counters, files, {})

    def finish(self) -> None:
        """Tell env runners and learner to stop; finished episodes are handed over, the last weights broadcast.

        Raises: AmagoRayError that one of them raised.
        """
        get(self._control.stop.remote(), timeout_s=_STOP_TIMEOUT_S)
        ended: list[Any] = []
        if self._runs:
            ended, _ = ray.wait(list(self._runs), num_returns=len(self._runs), timeout=_STOP_TIMEOUT_S)
        self._runs.clear()
        for reference in ended:
            try:
                get(reference)
            except ray.exceptions.RayActorError as error:
                self._warnings.append(f"an actor died when training ended: {_line(error)}")
            except ray.exceptions.RayTaskError as error:
                raise _cause(error) from error

    def stop(self) -> None:
        """Tell everyone to stop, wait until finished episodes are handed over, and end the actors."""
        if not hasattr(self, "_control"):
            return
        try:
            get(self._control.stop.remote(), timeout_s=_STOP_TIMEOUT_S)
            if self._runs:
                ray.wait(list(self._runs), num_returns=len(self._runs), timeout=_STOP_TIMEOUT_S)
            get([shard.close.remote() for shard in getattr(self, "_shards", [])], timeout_s=_STOP_TIMEOUT_S)
        except (ray.exceptions.RayError, TimeoutError):
            # Everything acknowledged is on disk; what does not answer ends with the session.
            return

    def _name(self, part: str) -> str:
        return f"{self._config.name}/{part}"

    def _next_incarnation(self) -> int:
        self._restarts += 1
        return self._incarnation + self._restarts

    def _start_runner(self, number: int) -> None:
        config = self._config.rollout
        incarnation = self._next_incarnation()
        runner = start_actor(
            EnvRunnerActor,
            self._config,
            self._claim.run_id,
            number,
            incarnation,
            self._control,
            self._shards,
            name=self._name(f"env_runner_{number}:{incarnation % _INCARNATIONS_PER_SESSION}"),
            num_cpus=config.num_cpus_per_env_runner,
            num_gpus=config.num_gpus_per_env_runner,
            scheduling_strategy="SPREAD" if self._config.cluster.spread else "DEFAULT",
        )
        name = f"env runner {number}"
        self._runs[runner.run.remote()] = name
        self._runners[name] = number

    def _start_learner(self) -> None:
        config = self._config.learner
        gpus = config.num_gpus_per_learner
        if gpus is None:
            gpus = 1 if cluster_resources().get("GPU", 0) >= 1 else 0
        incarnation = self._next_incarnation()
        self._learner = start_actor(
            LearnerActor,
            self._config,
            self._spec,
            incarnation,
            self._control,
            self._shards,
            self._files,
            name=self._name(f"learner:{incarnation % _INCARNATIONS_PER_SESSION}"),
            num_cpus=config.num_cpus_per_learner,
            num_gpus=gpus,
            # `run` holds one thread; `capture` answers from another.
            max_concurrency=2,
        )
        self._runs[self._learner.run.remote()] = "learner"

    def _begin_evaluations(self) -> None:
        if self._evaluator is None and self._wanted_evaluations:
            if self._runs and self._counters.env_steps == self._base_env_steps:
                # What trains starts first: the evaluator would share the processors with it.
                return
            self._evaluator = start_actor(EvaluatorActor, self._config, name=self._name("evaluator"), num_cpus=0)
        for number, counters, snapshot in self._wanted_evaluations:
            reference = self._evaluator.evaluate.remote(number, snapshot)
            self._evaluations[reference] = (number, counters, time.monotonic())
        self._wanted_evaluations.clear()

    def _finish_evaluation(self, reference: Any) -> list[EvaluationResult]:
        number, counters, began = self._evaluations.pop(reference)
        try:
            learner_steps, episodes, policy = get(reference)
        except ray.exceptions.RayActorError as error:
            self._warnings.append(f"the evaluator died and is started again: {_line(error)}")
            self._evaluator = None
            self.request_evaluation(number)
            return []
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from error
        counters = Counters(counters.env_steps, learner_steps, counters.episodes)
        return [EvaluationResult(number, counters, episodes, time.monotonic() - began, policy)]

    def _handle_end(self, reference: Any) -> None:
        """An actor's `run` ended before its time: start the actor again if it died, raise what it raised otherwise."""
        name = self._runs.pop(reference)
        try:
            get(reference)
        except ray.exceptions.RayActorError as error:
            self._warnings.append(f"the {name} died and is started again: {_line(error)}")
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from error
        else:
            raise TrainingError(f"the {name} ended before training did")
        pause_s = self._pauses_s.get(name, 0.0)
        time.sleep(pause_s)
        self._pauses_s[name] = min(max(2 * pause_s, 0.25), _LONGEST_RESTART_PAUSE_S)
        if name == "learner":
            # It goes on from the newest checkpoint's files.
            get(self._control.learner_lost.remote(self._files_steps))
            self._start_learner()
        else:
            self._start_runner(self._runners[name])


def _cause(error: ray.exceptions.RayTaskError) -> Exception:
    """What an actor raised, without Ray's wrapping where it is an error of ours."""
    cause = error.cause
    if isinstance(cause, AmagoRayError):
        return cause
    return TrainingError(f"an actor failed: {_line(cause if isinstance(cause, Exception) else error)}")


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"
