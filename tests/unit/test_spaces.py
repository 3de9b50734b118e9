"""Every space from environment to learner and back: acting, storing, sampling, updating, loading."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import space_env
from helpers.local_runs import tiny_config
from helpers.one_line import one_line
from helpers.space_env import ACTIONS, OBSERVATIONS

import amago_ray
from amago_ray import Config
from amago_ray.data.spaces import ActionAdapter, ObservationAdapter
from amago_ray.errors import SpaceError

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
        agent={"kind": kind, "auxiliary_discounts": [0.9], "online_coefficient": 0.5},
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
        stored = policy.step(leaves, state, None, greedy=greedy)
        assert all(ACTIONS[action].contains(taker.to_space(row)) for row in stored)


def fixed_config(runs_dir: Path, env: str, **sections: Any) -> Config:
    return tiny_config(
        runs_dir,
        env={"id": f"helpers.space_env:{env}"},
        stop={"learner_steps": 1},
        relabel={"kind": "none"},
        exploration={"kind": "epsilon_greedy"},
        learner={"batch_size": 3, "metrics_interval": 1, "warmup_steps": 0},
        model=MODEL,
        **{"evaluation": {"num_episodes": 2, "num_envs": 2, "at_start": False}, **sections},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on vectors of four, that tests only read."""
    return amago_ray.train(fixed_config(tmp_path_factory.mktemp("runs"), "VectorOfFour"), local=True).run_directory


OTHERS = {
    "OneOfFour": "observation 'observation': expected Box(-1, 1, [4], float32), got Discrete(4)",
    "OneOfFourFrom10": "got Discrete(4, start=10)",
    "Pixels": "got Box(0, 255, [12, 12, 3], uint8) stored as [3, 12, 12]",
    "Nested": "observation 'inner/pair/0': expected no such leaf, got Discrete(3)",
    "TwoInARow": "action: expected Discrete(2), got MultiDiscrete([2])",
}


@pytest.mark.parametrize(("env", "message"), OTHERS.items(), ids=OTHERS)
def test_evaluation_in_other_spaces_of_equal_width_is_refused(run: Path, env: str, message: str) -> None:
    with pytest.raises(SpaceError) as error:
        amago_ray.evaluate(run, num_episodes=1, env=f"helpers.space_env:{env}")
    start = f"env 'helpers.space_env:{env}': does not fit the policy, trained in 'helpers.space_env:VectorOfFour': "
    assert one_line(error).startswith(start)
    assert message in one_line(error)


def test_evaluation_in_other_precision_is_not_refused(run: Path) -> None:
    found = amago_ray.evaluate(run, num_episodes=1, env="helpers.space_env:VectorOfFourInFloat64")
    assert found["eval/return_mean"] == 21.0


def test_an_evaluation_env_of_other_spaces_leaves_no_run(tmp_path: Path) -> None:
    config = fixed_config(tmp_path, "VectorOfFour", evaluation={"env": {"id": "helpers.space_env:OneOfFour"}})
    with pytest.raises(SpaceError) as error:
        amago_ray.train(config, local=True)
    assert OTHERS["OneOfFour"] in one_line(error)
    assert list(tmp_path.iterdir()) == []


def test_a_film_in_spaces_that_have_changed_since_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_env, "VectorOfFour", space_env.OneOfFour)
    with pytest.raises(SpaceError) as error:
        amago_ray.record(run, tmp_path / "film.gif")
    assert OTHERS["OneOfFour"] in one_line(error)
