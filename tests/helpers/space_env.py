"""An environment of any spaces, which refuses every action outside of its own."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

OBSERVATIONS: dict[str, gymnasium.Space[Any]] = {
    "vector": spaces.Box(-1, 1, (3,), np.float32),
    "vector of four": spaces.Box(-1, 1, (4,), np.float32),
    "vector of four in float64": spaces.Box(-1, 1, (4,), np.float64),
    "one of four": spaces.Discrete(4),
    "one of four from 10": spaces.Discrete(4, start=10),
    "scalar": spaces.Box(-1, 1, (), np.float64),
    "cube of integers": spaces.Box(-3, 9, (2, 2, 2), np.int16),
    "bits of uint8": spaces.Box(0, 255, (5,), np.uint8),
    "frames": spaces.Box(0, 255, (4, 12, 12, 3), np.uint8),
    "frames, channels first": spaces.Box(0, 255, (2, 3, 12, 12), np.uint8),
    "gray frames": spaces.Box(0, 255, (4, 12, 12), np.uint8),
    "times": spaces.Box(2**61, 2**62, (2,), np.int64),
    "every dtype": spaces.Dict(
        {
            name: spaces.Box(0, 5, (2,), np.dtype(name).type)
            for name in ("int8", "int64", "uint16", "uint32", "uint64", "float16", "float32", "float64")
        }
    ),
    "gray pixels": spaces.Box(0, 255, (12, 12), np.uint8),
    "pixels of floats": spaces.Box(0, 1, (3, 12, 12), np.float32),
    "discrete": spaces.Discrete(4, start=-1),
    "multi-discrete": spaces.MultiDiscrete([3, 5]),
    "multi-discrete matrix": spaces.MultiDiscrete([[3, 5], [2, 2]]),
    "multi-binary": spaces.MultiBinary(6),
    "pixels": spaces.Box(0, 255, (12, 12, 3), np.uint8),
    "pixels and vector": spaces.Dict(
        {"camera": spaces.Box(0, 255, (12, 12, 1), np.uint8), "state": spaces.Box(-1, 1, (2,), np.float32)}
    ),
    "words": spaces.Dict({"words": spaces.MultiDiscrete([9] * 4), "state": spaces.Box(-1, 1, (2,), np.float32)}),
    "nested": spaces.Dict(
        {
            "inner": spaces.Dict({"pair": spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2)))}),
            "outer": spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
        }
    ),
    "tuple": spaces.Tuple((spaces.Box(0, 1, (2,), np.float32), spaces.Discrete(2))),
}
ACTIONS: dict[str, gymnasium.Space[Any]] = {
    "discrete": spaces.Discrete(5),
    "two": spaces.Discrete(2),
    "two in a row": spaces.MultiDiscrete([2]),
    "discrete from 2": spaces.Discrete(3, start=2),
    "many": spaces.Discrete(300),
    "multi-discrete": spaces.MultiDiscrete([3, 1, 4]),
    "multi-discrete matrix": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "multi-binary": spaces.MultiBinary(3),
    "multi-binary matrix": spaces.MultiBinary([2, 2]),
    "box": spaces.Box(-1, 1, (2,), np.float32),
    "box of other bounds": spaces.Box(np.array([[0.0], [-5.0]]), np.array([[10.0], [-1.0]]), (2, 1), np.float64),
    "box without bounds": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "box of integers": spaces.Box(-3, 3, (2,), np.int32),
    "box of one number": spaces.Box(0, 1, (), np.float32),
}


def env_of(observation: str, action: str = "two") -> type[SpaceEnv]:
    """A class of environments that needs no settings."""

    class Fixed(SpaceEnv):
        def __init__(self, render_mode: str | None = None) -> None:
            super().__init__(observation, action)

    return Fixed


class SpaceEnv(gymnasium.Env[Any, Any]):
    """Random observations; episodes of six steps."""

    def __init__(self, observation: str, action: str) -> None:
        self.observation_space, self.action_space = OBSERVATIONS[observation], ACTIONS[action]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self._steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any):
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self._steps += 1
        return self.observation_space.sample(), float(self._steps), self._steps >= 6, False, {}


VectorOfFour = env_of("vector of four")
VectorOfFourInFloat64 = env_of("vector of four in float64")
OneOfFour = env_of("one of four")
OneOfFourFrom10 = env_of("one of four from 10")
Pixels = env_of("pixels")
Nested = env_of("nested")
TwoInARow = env_of("vector of four", "two in a row")
