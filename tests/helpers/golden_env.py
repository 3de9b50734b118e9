"""An environment with the spaces of a golden case, whose transitions do not matter."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class GoldenEnv(gymnasium.Env[dict[str, Any], Any]):
    """obs: {"name": {"shape": [...], "dtype": "..."}}; action: "discrete", "continuous" or "multibinary" of `size`."""

    def __init__(self, obs: dict[str, dict[str, Any]], action: str, size: int) -> None:
        self.observation_space = spaces.Dict({name: _leaf(**leaf) for name, leaf in obs.items()})
        self.action_space = {
            "discrete": lambda: spaces.Discrete(size),
            "continuous": lambda: spaces.Box(-1.0, 1.0, (size,), np.float32),
            "multibinary": lambda: spaces.MultiBinary(size),
        }[action]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any):
        self._steps += 1
        return self.observation_space.sample(), 1.0, self._steps >= 5, False, {}


def _leaf(shape: list[int], dtype: str) -> spaces.Box:
    low, high = (0, 255) if dtype == "uint8" else (-1, 1)
    return spaces.Box(low, high, tuple(shape), np.dtype(dtype).type)
