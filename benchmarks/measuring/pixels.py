"""An environment of pictures whose episodes have a given length."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Pixels(gymnasium.Env):  # type: ignore[misc]
    """Pictures `[3, 64, 64]` that change with every step."""

    observation_space = gymnasium.spaces.Box(0, 255, (3, 64, 64), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length: int) -> None:
        self._length, self._time = length, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The first picture."""
        self._time = 0
        return self._picture(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The next picture."""
        self._time += 1
        return self._picture(), 0.0, False, self._time >= self._length, {}

    def _picture(self) -> Any:
        return np.full((3, 64, 64), self._time % 256, np.uint8)
