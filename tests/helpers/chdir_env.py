"""An environment that changes the process's working folder."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces


class ChdirEnv(gymnasium.Env[npt.NDArray[np.float32], np.int64]):
    """Goes to a folder when it is made, and at every reset."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space: spaces.Discrete = spaces.Discrete(2)

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.chdir(folder)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        os.chdir(self._folder)
        return self._look(), {}

    def step(self, action: np.int64) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        return self._look(), 0.0, False, False, {}

    def _look(self) -> npt.NDArray[np.float32]:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)
