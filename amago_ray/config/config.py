"""`Config`: the whole of a run's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from amago_ray.config.agent import ActorCriticConfig, AgentConfig
from amago_ray.config.cluster import ClusterConfig
from amago_ray.config.env import EnvConfig
from amago_ray.config.exploration import BilevelConfig, ExplorationConfig
from amago_ray.config.learner import LearnerConfig
from amago_ray.config.model import ModelConfig
from amago_ray.config.ranges import COUNT, FOLDER, FOLDER_NAME
from amago_ray.config.relabel import NoRelabelConfig, RelabelConfig
from amago_ray.config.replay import ReplayConfig
from amago_ray.config.rollout import RolloutConfig
from amago_ray.config.supervision import SupervisionConfig
from amago_ray.config.training import (
    CheckpointConfig,
    EvaluationConfig,
    ReportConfig,
    StopConfig,
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run. Everything but `env` has a default."""

    env: EnvConfig | list[EnvConfig]
    """The environment, or a mixture of environments of equal spaces."""
    name: Annotated[str, FOLDER_NAME] = "run"
    """Name of the run; its directory is `runs_dir/name`."""
    runs_dir: Annotated[str, FOLDER] = "runs"
    """Where run directories live."""
    seed: Annotated[int, COUNT] = 0
    """Seed of everything random."""
    stop: StopConfig = field(default_factory=lambda: StopConfig(env_steps=1_000_000))
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    exploration: ExplorationConfig = field(default_factory=BilevelConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    relabel: RelabelConfig = field(default_factory=NoRelabelConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    agent: AgentConfig = field(default_factory=ActorCriticConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)

    @property
    def envs(self) -> list[EnvConfig]:
        """The mixture as a list, of one entry where `env` is a single environment."""
        return list(self.env) if isinstance(self.env, list) else [self.env]

    @property
    def evaluation_envs(self) -> list[EnvConfig]:
        """The environments to evaluate in: those of training unless `evaluation.env` says otherwise."""
        env = self.evaluation.env
        if env is None:
            return self.envs
        return list(env) if isinstance(env, list) else [env]
