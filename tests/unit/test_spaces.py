"""Every space from environment to learner and back: acting, storing, sampling, updating, loading."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.local_runs import tiny_config
from helpers.space_env import ACTIONS, OBSERVATIONS

import amago_ray
from amago_ray.data.spaces import ActionAdapter, ObservationAdapter

MODEL = {
    "timestep_encoder": {
        "num_layers": 1,
        "hidden_dim": 8,
        "output_dim": 8,
        "cnn_channels": [4, 4],
        "cnn_kernel_sizes": [3, 3],
        "cnn_strides": [2, 2],
        "image_dim": 8,
    },
    "sequence_model": {"context_length": 5, "d_model": 8, "num_layers": 1, "num_heads": 2},
    "policy_head": {"num_layers": 1, "hidden_dim": 8},
    "critic": {"num_layers": 1, "hidden_dim": 8},
}
RUNS = [
    *[(observation, "discrete", "actor_critic") for observation in OBSERVATIONS],
    *[("vector", action, kind) for action in ACTIONS for kind in ("actor_critic", "multi_task")],
    ("pixels and vector", "multi-discrete", "multi_task"),
    ("nested", "box of other bounds", "actor_critic"),
    ("words", "multi-binary", "multi_task"),
]


@pytest.mark.parametrize(("observation", "action", "kind"), RUNS)
def test_every_space_trains_and_acts(observation: str, action: str, kind: str, tmp_path: Path) -> None:
    model = json.loads(json.dumps(MODEL))
    if observation == "words":
        model["timestep_encoder"]["token_keys"] = ["words"]
    config = tiny_config(
        tmp_path,
        env={"id": "helpers.space_env:SpaceEnv", "kwargs": {"observation": observation, "action": action}},
        stop={"learner_steps": 3},
        exploration={"kind": "epsilon_greedy"},
        relabel={"kind": "none"},
        agent={"kind": kind, "auxiliary_discounts": [0.9], "online_coefficient": 0.5, "num_bins": 8},
        learner={"batch_size": 3, "metrics_interval": 1, "warmup_steps": 0},
        evaluation={"num_episodes": 2, "num_envs": 2, "at_start": False},
        model=model,
    )

    outcome = amago_ray.train(config, local=True)

    reports = [json.loads(line) for line in (outcome.run_directory / "metrics.jsonl").read_text().splitlines()]
    dropped = [report["rollout/dropped_episodes"] for report in reports if "rollout/dropped_episodes" in report]
    assert dropped == [0.0] * 3
    assert outcome.after["eval/return_mean"] == 21.0
    policy = amago_ray.load_policy(outcome.run_directory)
    adapter, taker = ObservationAdapter(policy.spec.observations), ActionAdapter(policy.spec.action)
    state = policy.initial_state(2)
    for greedy in (False, True):
        shown = [adapter.rows(OBSERVATIONS[observation].sample()) for _ in range(2)]
        leaves = {name: np.stack([each[name] for each in shown]) for name in policy.spec.observations}
        stored = policy.step(
            leaves, state.prev_action, np.zeros(2, np.float32), state.time_index, None, state.network, greedy=greedy
        )
        assert all(ACTIONS[action].contains(taker.to_space(row)) for row in stored)
