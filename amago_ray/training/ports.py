"""The ports of training: what the trainer asks of the processes (or plain objects) that do the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.errors import CheckpointError
from amago_ray.telemetry.bottleneck import Side
from amago_ray.training.checkpoints import Checkpoint


@dataclass(frozen=True)
class Counters:
    """Totals of the run, over all its sessions."""

    env_steps: int = 0
    learner_steps: int = 0
    episodes: int = 0


@dataclass(frozen=True)
class EvaluationResult:
    """An evaluation that is over: its episodes, the counters when it was asked for, and the weights it used.

    policy: these weights as a safetensors file. given_up: why it was given up where it could not end; then there are
    no episodes.
    """

    number: int
    counters: Counters
    episodes: Sequence[EpisodeStats]
    time_s: float
    policy: bytes | None = None
    given_up: str | None = None


@dataclass(frozen=True)
class ProcessSight:
    """A process of the run as last seen: where, `age_s` ago, and what it was doing, for how long.

    host: empty for one that has not been seen yet, whose age is that of its start.
    """

    name: str
    host: str
    age_s: float
    doing: str
    busy_s: float = 0.0


@dataclass(frozen=True)
class Report:
    """What happened since the report before.

    metrics: flat names to values, of replay, learner, acting and timing.
    sides: where the time of the run's sides went, for the bottleneck verdict; none where that is not known.
    is_interim: only counters and warnings are news, as in a long time of acting; they are shown, but neither logged nor
    reason to evaluate or save, so that a deterministic backend may report by the clock between its whole reports.
    processes: those of the run that were silent for longest come first, in bounded number; none in one process.
    """

    counters: Counters
    episodes: Sequence[EpisodeStats] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    sides: Sequence[Side] = ()
    evaluations: Sequence[EvaluationResult] = ()
    warnings: Sequence[str] = ()
    stop_requested: bool = False
    is_interim: bool = False
    processes: Sequence[ProcessSight] = ()


@dataclass(frozen=True)
class Capture:
    """What a checkpoint holds: the learner's files, and plain data of everything else."""

    counters: Counters
    files: Mapping[str, bytes]
    state: Mapping[str, Any]


class CaptureError(CheckpointError):
    """What a checkpoint holds cannot be had at the moment."""


class Backend(Protocol):
    """The working parts of a run: env runners, replay shards, learners, evaluation.

    A backend knows `config.stop`. It never acts past `env_steps` by more than one step of its environments, never
    trains past `learner_steps`, and returns from `advance` when it has come to one of them (the credit left then may
    be trained first), or `time_s` after `start`, though no episode ends and nothing is trained. Only evaluations after
    `finish` take their time.
    """

    def prepare(self, checkpoint: Checkpoint | None) -> None:
        """Make every part, to begin from scratch or from a checkpoint; what an earlier run left is not touched yet.

        Raises:
            AmagoRayError: a part cannot be made, or the checkpoint does not fit.
        """
        ...

    def start(self) -> None:
        """Begin what was prepared: the run has taken over its directories."""
        ...

    def advance(self, timeout_s: float) -> Report:
        """Let work go on, about `timeout_s` where nothing else ends it, and say what happened.

        After `finish` only evaluations go on; the first report then holds the last counts.
        """
        ...

    def request_evaluation(self, number: int) -> None:
        """Evaluate the newest weights; the result comes with a later report.

        An evaluation whose episodes do not end is given up, and the result says why.
        """
        ...

    def capture(self) -> Capture:
        """The state of everything, for a checkpoint.

        Raises:
            CaptureError: it cannot be had at the moment; training goes on.
        """
        ...

    def finish(self) -> None:
        """End acting and learning: what is evaluated and captured from now on are the run's last weights."""
        ...

    def interrupt(self) -> None:
        """Come back from whatever is under way, acting, training or evaluating, at its next step.

        Called from a signal handler, so it does no more than to note that; `capture` and `stop` still work afterwards,
        but wait for nobody for long. Called again, they do not wait at all.
        """
        ...

    def stop(self) -> None:
        """Stop everything; finished episodes already handed over stay in replay."""
        ...
