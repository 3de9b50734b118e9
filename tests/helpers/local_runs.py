"""Tiny runs of the main job in this process, and everything that they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amago_ray.config import Config
from amago_ray.config.load import config_from_dict
from amago_ray.data.arrow_codec import read_stream, to_episode
from amago_ray.data.sequence_batch import SequenceBatch
from amago_ray.learning.learner import Learner, StepReport
from amago_ray.training.checkpoints import Checkpoints

TINY: dict[str, Any] = {
    "env": {
        "id": "amago_ray/MazeRunner-v0",
        "kwargs": {"size": 7, "num_goals": 2, "episode_length": 12, "permute_actions": True},
    },
    "name": "tiny",
    "seed": 3,
    "stop": {"learner_steps": 40},
    "rollout": {"num_envs_per_env_runner": 3},
    "exploration": {"kind": "bilevel", "anneal_env_steps": 200},
    "replay": {"samples_per_insert": 8},
    "relabel": {"kind": "instruction", "strategy": "some", "weighting": "rarity_per_step"},
    "model": {
        "timestep_encoder": {"num_layers": 1, "hidden_dim": 8, "output_dim": 8},
        "sequence_model": {"context_length": 8, "d_model": 8, "num_layers": 2, "num_heads": 2, "dropout": 0.2},
        "policy_head": {"num_layers": 1, "hidden_dim": 8},
        "critic": {"num_layers": 1, "hidden_dim": 8},
    },
    "agent": {"auxiliary_discounts": [0.9]},
    "learner": {
        "batch_size": 4,
        "learning_rate": 3e-3,
        "warmup_steps": 15,
        "metrics_interval": 5,
        "broadcast_interval": 3,
    },
    "evaluation": {"num_episodes": 4, "num_envs": 3, "interval_env_steps": 50},
    "checkpoint": {"interval_learner_steps": 10, "keep": 10},
    "report": {"loggers": ["jsonl"]},
}
"""The whole main job: permuted mazes of two goals, rarity-weighted relabeling, a Transformer with dropout."""


def tiny_config(runs_dir: Path, **sections: Any) -> Config:
    """`TINY` with settings of its sections changed; a section of another kind takes the place of its own."""
    tree = json.loads(json.dumps(TINY))
    for name, value in sections.items():
        own = tree.get(name, {})
        is_changed = isinstance(value, dict) and name != "env" and value.get("kind") in (None, own.get("kind"))
        tree[name] = {**own, **value} if is_changed else value
    return config_from_dict({**tree, "runs_dir": str(runs_dir)})


def kill_at(monkeypatch: pytest.MonkeyPatch, learner_steps: int) -> None:
    """Let the process "die" in the middle of the interval that follows so many updates."""
    original = Learner.step

    def step(self: Learner, batch: SequenceBatch) -> StepReport | None:
        if self.learner_steps >= learner_steps:
            raise KeyboardInterrupt
        return original(self, batch)

    monkeypatch.setattr(Learner, "step", step)


def reports_of(run: Path) -> list[dict[str, float]]:
    """The reports without what depends on the clock."""
    timed = ("unix_time_s", "time/evaluation_s", "time/env_steps_per_s", "time/learner_steps_per_s")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in timed and "bottleneck/" not in name}
        for line in lines
    ]


def replay_of(run: Path) -> dict[str, tuple[int, list[tuple[Any, ...]]]]:
    """The stored episodes by file, with its size: all that they hold but the run id."""
    return {str(path.relative_to(run)): _episodes_of(path) for path in sorted((run / "replay").rglob("segment_*"))}


def _episodes_of(path: Path) -> tuple[int, list[tuple[Any, ...]]]:
    content = path.read_bytes()
    schema, episodes = read_stream(content, str(path))
    stored = []
    for encoded in episodes:
        episode = to_episode(encoded, schema)
        achieved = episode.achieved_goals
        columns = [*episode.observations.values(), episode.actions, episode.rewards, episode.action_mask]
        columns += [] if achieved is None else [achieved.values, achieved.offsets]
        header = encoded.header._replace(episode_id=encoded.header.episode_id._replace(run=0))
        stored.append((header, [None if column is None else column.tolist() for column in columns]))
    return len(content), stored


def state_of(run: Path) -> dict[str, Any]:
    """The newest checkpoint: weights, targets, optimizer, and the state of everything else."""
    found = Checkpoints(run / "checkpoints", keep=1).load()
    metadata = json.loads(json.dumps(dict(found.metadata)))
    metadata["trainer"]["after"].pop("time/evaluation_s", None)
    metadata["trainer"]["before"].pop("time/evaluation_s", None)
    metadata["sha256"].pop("config.yaml")
    return {**metadata, "policy": found.read("policy.safetensors"), "training": found.read("training_state.pt")}
