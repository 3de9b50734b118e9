"""One part of each kind that takes a second here and there, on command, while a run goes on.

The command is a file, named by the environment variable `AMAGO_RAY_TEST_SLOW`: which parts are slow, and by how much.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from helpers.custom_parts import Linear
from torch import Tensor

from amago_ray.data.episode import Episode
from amago_ray.nets import TokenColumns

VARIABLE = "AMAGO_RAY_TEST_SLOW"


def slow_down(commands: Path, **seconds: float) -> None:
    """From now on each call of these parts sleeps so long, and the other parts do not."""
    temporary = commands.with_suffix(".new")
    temporary.write_text(" ".join(f"{part}={pause}" for part, pause in seconds.items()))
    temporary.replace(commands)


def pause(part: str) -> None:
    """Sleep as commanded."""
    commands = Path(os.environ[VARIABLE])
    seconds = dict(pair.split("=") for pair in commands.read_text().split())
    if part not in seconds:
        return
    time.sleep(float(seconds[part]))


class Env(gym.Env):
    """Forty steps of nothing; slow as `environment`."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.t = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        pause("environment")
        self.t += 1
        return np.zeros(1, np.float32), float(action), self.t == 40, False, {}


class Encoder(Linear):
    """Slow as `learner` in updates, as `acting` otherwise, and as `broadcast` when a policy takes new weights."""

    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        if torch.is_grad_enabled():
            pause("learner")
        elif torch.is_inference_mode_enabled():
            pause("acting")
        return super().forward(tokens, weight)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        # A policy's weights are looked up to be written over; the learner's to be sent.
        if not self.training:
            pause("broadcast")
        return super().state_dict(*args, **kwargs)


class Relabeler:
    """Changes nothing; slow as `replay`."""

    watches_storage = False

    def __init__(self, config: Any, spec: Any) -> None:
        self.num_relabeled = 0

    def observe(self, episode: Episode) -> None:
        """Not called: `watches_storage` is False."""

    def forget(self, episode: Episode) -> None:
        """Not called: `watches_storage` is False."""

    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        pause("replay")
        return episode


CONFIG: dict[str, Any] = {
    "name": "slow",
    "env": {"id": "helpers.slow_parts:Env"},
    "stop": {"env_steps": 10_000_000},
    "rollout": {"num_envs_per_env_runner": 8, "episodes_per_add": 1},
    "exploration": {"kind": "none"},
    # 640 transitions, 4 updates, for the 8 episodes of 40 steps that end together.
    "replay": {"samples_per_insert": 2, "samples_per_insert_tolerance": 1e-6},
    "relabel": {"kind": "helpers.slow_parts:Relabeler"},
    "model": {
        "timestep_encoder": {"kind": "helpers.slow_parts:Encoder", "output_dim": 8},
        "sequence_model": {"context_length": 40, "d_model": 8, "num_layers": 1, "num_heads": 2},
        "policy_head": {"num_layers": 1, "hidden_dim": 8},
        "critic": {"num_layers": 1, "hidden_dim": 8},
    },
    "learner": {"batch_size": 4, "broadcast_interval": 1, "metrics_interval": 4},
    "evaluation": {"num_episodes": 0},
    "cluster": {"dashboard": False},
}
"""A run of these parts, and otherwise as small as can be."""
