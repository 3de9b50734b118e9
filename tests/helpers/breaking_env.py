"""An environment that breaks now and then."""

from __future__ import annotations

from typing import Any

from helpers.envs import CounterEnv


class BreakingEnv(CounterEnv):
    """Raises in the second step of every third episode of the process."""

    num_episodes = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        BreakingEnv.num_episodes += 1
        self._breaks = BreakingEnv.num_episodes % 3 == 0
        return super().reset(seed=seed)

    def step(self, action: int):
        result = super().step(action)
        if self._breaks and self._buffer[1] == 2:
            raise RuntimeError("the step broke")
        return result
