"""A small goal-conditioned environment in which a step may achieve none, one or several goals."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from amago_ray.data.goal_rule import GoalRule


class MultiGoalEnv(gymnasium.Env[dict[str, np.ndarray], int]):
    """A ring of cells: being in cell p achieves the p % 4 goals (0, p), (1, p), ...; the instruction is k in order.

    `info["achieved_goals"]` `[J, 2]` holds them; the observation's own `achieved_goal` is a decoy, to be overridden.
    `options={"instruction": ...}` at reset gives another instruction. Actions: left, right, stay. Completed goals are
    shown as -1. Ends when all are completed, and at `episode_length`.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, num_goals: int = 3, size: int = 8, episode_length: int = 30) -> None:
        self.goal_rule = GoalRule(match="equal", reward=1.0, marker=-1.0, terminates=True)
        self.horizon = episode_length
        self._num_goals, self._size = num_goals, size
        self._all_goals = np.asarray([(j, p) for p in range(size) for j in range(p % 4)], np.int32)
        self.action_space = spaces.Discrete(3)
        self.observation_space = spaces.Dict(
            {
                "observation": spaces.Box(0.0, 1.0, (2,), np.float32),
                "achieved_goal": spaces.Box(-2, size, (2,), np.int32),
                "desired_goal": spaces.Box(-1, size, (num_goals, 2), np.int32),
            }
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._cell = int(self.np_random.integers(self._size))
        chosen = self.np_random.permutation(len(self._all_goals))[: self._num_goals]
        self._goals = (options or {}).get("instruction", self._all_goals[chosen])
        self._completed = 0
        self._time = 0
        return self._observation(), {"achieved_goals": self._achieved()}

    def step(self, action: int):
        self._cell = (self._cell + (-1, 1, 0)[action]) % self._size
        self._time += 1
        achieved = self._achieved()
        hit = self._completed < self._num_goals and any(
            (goal == self._goals[self._completed]).all() for goal in achieved
        )
        self._completed += hit
        terminated = self._completed == self._num_goals or self._time >= self.horizon
        info = {"achieved_goals": achieved}
        if terminated:
            info["is_success"] = self._completed == self._num_goals
        return self._observation(), float(hit), terminated, False, info

    def _achieved(self) -> np.ndarray:
        return np.asarray([(j, self._cell) for j in range(self._cell % 4)], np.int32).reshape(-1, 2)

    def _observation(self) -> dict[str, np.ndarray]:
        shown = self._goals.copy()
        shown[: self._completed] = -1
        return {
            "observation": np.asarray([self._cell / self._size, self._time / self.horizon], np.float32),
            "achieved_goal": np.full(2, -2, np.int32),
            "desired_goal": shown,
        }
