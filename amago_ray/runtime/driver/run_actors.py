"""`RunActors`: how each actor of a run is started, under which name, and how all are ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from amago_ray.config import Config
from amago_ray.data.specs import EnvSpec
from amago_ray.replay.owner import Claim
from amago_ray.runtime.cluster.placement import LearnerPlaces, on_drivers_node, on_node
from amago_ray.runtime.control.control_actor import ControlActor
from amago_ray.runtime.processes.env_runner_actor import EnvRunnerActor
from amago_ray.runtime.processes.evaluator_actor import EvaluatorActor
from amago_ray.runtime.processes.learner_actor import LearnerActor
from amago_ray.runtime.processes.relay_actor import CALLS_UNDER_WAY, RelayActor
from amago_ray.runtime.processes.replay_shard_actor import ReplayShardActor
from amago_ray.runtime.processes.returned_files import return_files
from amago_ray.runtime.protocol.actors import WITH_ASIDE, start_actor, start_task
from amago_ray.runtime.protocol.messages import learner_name
from amago_ray.runtime.protocol.shard_table import ShardTable

# Incarnations of a later session are above all of an earlier one's.
_INCARNATIONS_PER_SESSION = 1_000_000


def actor_name(run: str, run_id: int, part: str) -> str:
    """What a part of a run is called in Ray."""
    return f"{run}-{run_id % 16**8:08x}/{part}"


class RunActors:
    """Starts actors whose names carry the run's name and id, `<name>-<id>/<part>`.

    So a cluster holds runs of equal name, and `ray list actors` and the dashboard tell them apart.
    """

    def __init__(self, config: Config, spec: EnvSpec, replay_directory: Path, claim: Claim, session: int) -> None:
        self._config = config
        self._spec = spec
        self._replay_directory = str(replay_directory.absolute())
        self._claim = claim
        self._session_incarnation = session * _INCARNATIONS_PER_SESSION
        self._num_started = 0
        self._handles: dict[str, Any] = {}
        self._learner_places: LearnerPlaces | None = None

    def start_control(self) -> Any:
        """The control actor. Calls that are under way when it dies are sent to its successor: all may be repeated."""
        return self._start(
            "control",
            ControlActor,
            self._config,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=on_drivers_node(),
        )

    def start_shard(self, number: int, node_id: str, control: Any, num_cpus: float) -> tuple[int, Any]:
        """A replay shard on a node, and its incarnation, which is new."""
        incarnation = self._next_incarnation()
        return incarnation, self._start(
            f"replay_shard_{number}",
            ReplayShardActor,
            self._config,
            self._spec,
            self._replay_directory,
            self._claim,
            number,
            incarnation,
            control,
            incarnation=incarnation,
            num_cpus=num_cpus,
            scheduling_strategy=on_node(node_id),
            **WITH_ASIDE,
        )

    def return_files(self, node_id: str, wanted: Mapping[tuple[int, int], Any]) -> Any:
        """Let a node hand over files of shards that it has; a reference to `Sequence[ReturnedFiles]`."""
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": on_node(node_id)}
        incarnation = self._next_incarnation()
        return start_task(return_files, self._replay_directory, self._claim, incarnation, wanted, **options)

    def start_runner(self, number: int, control: Any, table: ShardTable) -> tuple[int, Any]:
        """An env runner, and its incarnation, which is new."""
        config = self._config.rollout
        incarnation = self._next_incarnation()
        return incarnation, self._start(
            f"env_runner_{number}",
            EnvRunnerActor,
            self._config,
            self._spec,
            self._claim.run_id,
            number,
            incarnation,
            control,
            table,
            incarnation=incarnation,
            num_cpus=config.num_cpus_per_env_runner,
            num_gpus=config.num_gpus_per_env_runner,
            scheduling_strategy="SPREAD" if self._config.cluster.spread else "DEFAULT",
            label_selector=self._config.cluster.labels.env_runner,
        )

    def start_relay(self, node_id: str, control: Any) -> Any:
        """A relay on a node, in place of the one that it has."""
        part = f"relay_{node_id[:8]}"
        if part in self._handles:
            ray.kill(self._handles.pop(part))
        return self._start(
            part,
            RelayActor,
            node_id,
            control,
            incarnation=self._next_incarnation(),
            num_cpus=0,
            max_concurrency=CALLS_UNDER_WAY,
            scheduling_strategy=on_node(node_id),
        )

    def start_learners(
        self, control: Any, table: ShardTable, files: Mapping[str, bytes] | None, num_gpus: float
    ) -> Sequence[Any]:
        """Learners of one new incarnation, which go on from a checkpoint's files; those before them are ended."""
        num_learners = self._config.learner.num_learners
        parts = [learner_name(rank, num_learners).replace(" ", "_") for rank in range(num_learners)]
        for part in parts:
            if part in self._handles:
                ray.kill(self._handles.pop(part))
        incarnation = self._next_incarnation()
        if self._learner_places is None:
            self._learner_places = LearnerPlaces(self._config, num_gpus)
        return [
            self._start(
                part,
                LearnerActor,
                self._config,
                self._spec,
                incarnation,
                control,
                table,
                files,
                rank,
                incarnation=incarnation,
                num_cpus=self._config.learner.num_cpus_per_learner,
                num_gpus=num_gpus,
                **self._learner_places.options(rank),
                **WITH_ASIDE,
            )
            for rank, part in enumerate(parts)
        ]

    def start_evaluator(self, control: Any) -> Any:
        """An evaluator, which takes the processors that others leave."""
        return self._start(
            "evaluator",
            EvaluatorActor,
            self._config,
            control,
            incarnation=self._next_incarnation(),
            num_cpus=0,
            scheduling_strategy=on_drivers_node(),
        )

    def kill(self, part: str, *, for_good: bool) -> None:
        """End a process that may be of no use any more: Ray lets go of it at once and ends it within seconds.

        for_good: Ray does not start it again, where it otherwise would.
        """
        if part in self._handles:
            ray.kill(self._handles[part], no_restart=for_good)

    def kill_supervised(self) -> None:
        """End the processes of env runners, learner and evaluator, whatever they do."""
        for part in [part for part in self._handles if part != "control" and not part.startswith("replay_shard_")]:
            ray.kill(self._handles.pop(part))

    def kill_all(self) -> None:
        """End every process."""
        self.kill_supervised()
        for part in list(self._handles):
            ray.kill(self._handles.pop(part))
        if self._learner_places is not None:
            self._learner_places.remove()

    def _start(self, part: str, kind: type, *args: Any, incarnation: int | None = None, **options: Any) -> Any:
        suffix = "" if incarnation is None else f":{incarnation % _INCARNATIONS_PER_SESSION}"
        name, events = self._name(f"{part}{suffix}"), self._config.cluster.task_events
        handle = start_actor(kind, *args, name=name, enable_task_events=events, **options)
        # Whose place is taken may live on: an actor does not end because a call of it failed, or its node is away.
        self.kill(part, for_good=True)
        self._handles[part] = handle
        return handle

    def _name(self, part: str) -> str:
        return actor_name(self._config.name, self._claim.run_id, part)

    def _next_incarnation(self) -> int:
        self._num_started += 1
        return self._session_incarnation + self._num_started
