"""Several achieved goals per step, from the environment through storage and relabeling into training."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.episodes import stored_episodes
from helpers.local_runs import tiny_config

import amago_ray
from amago_ray.config.relabel import InstructionRelabelConfig
from amago_ray.envs.make import make_spec
from amago_ray.relabel.make import make_relabeler


@pytest.mark.parametrize("strategy", ["all", "some", "all_or_nothing"])
def test_ragged_goals_are_stored_relabeled_and_trained_on(strategy: str, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        env={"id": "helpers.multi_goal_env:MultiGoalEnv"},
        stop={"learner_steps": 4},
        exploration={"kind": "epsilon_greedy"},
        replay={"min_timesteps": 300},
        relabel={"kind": "instruction", "strategy": strategy},
        learner={"batch_size": 8, "metrics_interval": 1, "warmup_steps": 0},
        evaluation={"num_episodes": 0},
    )

    outcome = amago_ray.train(config, local=True)

    last = json.loads((outcome.run_directory / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["learner_steps"] == 4
    assert last["replay/relabeled_share"] > 0
    spec = make_spec(config.envs)
    relabeler = make_relabeler(InstructionRelabelConfig(strategy="all"), spec)
    counts = set()
    (shard,) = (outcome.run_directory / "replay").iterdir()
    for number, episode in enumerate(stored_episodes(shard)):
        assert episode.achieved_goals is not None
        assert len(episode.achieved_goals.offsets) == len(episode) + 2
        counts |= set(np.diff(episode.achieved_goals.offsets).tolist())
        relabeled = relabeler.relabel(episode, np.random.default_rng(number))
        assert relabeled.rewards.sum() >= episode.rewards.sum()
    assert counts == {0, 1, 2, 3}
