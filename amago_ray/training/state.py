"""`TrainerState`: what the trainer knows of a run, as a checkpoint saves it and a resume restores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from amago_ray.config import Config
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.errors import CheckpointError
from amago_ray.telemetry.metrics import EpisodeWindow
from amago_ray.training.checkpoints import Checkpoint
from amago_ray.training.ports import Counters, EvaluationResult


@dataclass
class TrainerState:
    """Counters, the newest episodes, and what evaluations brought.

    next_evaluation: env steps at which the next evaluation is due. before, after: metrics of the evaluation before
    training, and of the newest one, of the weights of `after_steps` learner steps. best: the highest score so far.
    num_given_up: evaluations whose episodes did not end.
    """

    next_evaluation: int
    counters: Counters = field(default_factory=Counters)
    num_evaluations: int = 0
    num_given_up: int = 0
    is_evaluating: bool = False
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    after_steps: int = -1
    best: tuple[float, ...] | None = None
    window: EpisodeWindow[EpisodeStats] = field(default_factory=EpisodeWindow)

    @classmethod
    def fresh(cls, config: Config) -> TrainerState:
        """The state of a run that has done nothing yet."""
        return cls(config.evaluation.interval_env_steps)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> TrainerState:
        """The state that a checkpoint holds.

        Raises:
            CheckpointError: its metadata is not that of a run.
        """
        metadata = checkpoint.metadata
        try:
            plain: Mapping[str, Any] = metadata["trainer"]
            state = cls(
                next_evaluation=int(plain["next_evaluation"]),
                counters=Counters(*(int(metadata[name]) for name in ("env_steps", "learner_steps", "episodes"))),
                num_evaluations=int(plain["num_evaluations"]),
                num_given_up=int(plain.get("num_given_up", 0)),
                is_evaluating=bool(plain["evaluating"]),
                before=dict(plain["before"]),
                after=dict(plain["after"]),
                after_steps=int(plain["after_steps"]),
                best=None if plain["best"] is None else tuple(plain["best"]),
            )
            state.window.add(_episode(episode) for episode in plain["window"])
        except KeyError as error:
            raise CheckpointError(f"{checkpoint.path}: its metadata lacks {error}") from error
        except (TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{checkpoint.path}: its metadata is not that of a run: {error}") from error
        return state

    def metadata(self, counters: Counters, backend: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data for a checkpoint, from which `of` makes this state again.

        counters: those of what the checkpoint captured. backend: the state of the working parts.
        """
        return {
            "env_steps": counters.env_steps,
            "learner_steps": counters.learner_steps,
            "episodes": counters.episodes,
            "state": dict(backend),
            "trainer": {
                "next_evaluation": self.next_evaluation,
                "num_evaluations": self.num_evaluations,
                "num_given_up": self.num_given_up,
                "evaluating": self.is_evaluating,
                "before": self.before,
                "after": self.after,
                "after_steps": self.after_steps,
                "best": self.best,
                "window": [_plain(episode) for episode in self.window.episodes],
            },
        }

    @property
    def mark(self) -> tuple[Counters, int, bool]:
        """Changes whenever there is something new to save."""
        return self.counters, self.num_evaluations, self.is_evaluating

    def begin_evaluation(self) -> int:
        """The number of the evaluation that is asked for now."""
        self.is_evaluating = True
        self.num_evaluations += 1
        return self.num_evaluations - 1

    def take_evaluation(self, result: EvaluationResult, metrics: dict[str, float], *, is_before: bool) -> bool:
        """Note a finished evaluation; returns whether none scored higher: by success, then by return."""
        self.is_evaluating = False
        if is_before:
            self.before = metrics
        self.after, self.after_steps = metrics, result.counters.learner_steps
        score = (metrics.get("eval/success_rate", 0.0), metrics["eval/return_mean"])
        if result.policy is None or (self.best is not None and score < self.best):
            return False
        self.best = score
        return True


def _plain(episode: EpisodeStats) -> dict[str, Any]:
    return {
        "env_name": episode.env_name,
        "episode_return": episode.episode_return,
        "length": episode.length,
        "counter": episode.counter,
        "policy_version": list(episode.policy_version),
        "success": episode.success,
        "events": dict(episode.events),
    }


def _episode(plain: Mapping[str, Any]) -> EpisodeStats:
    return EpisodeStats(**{**plain, "policy_version": PolicyVersion(*plain["policy_version"])})
