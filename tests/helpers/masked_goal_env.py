"""A goal-conditioned environment that breaks when a forbidden action is taken."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from amago_ray.data.goal_rule import GoalRule


class MaskedGoalEnv(gymnasium.Env[dict[str, Any], Any]):
    """A line of cells with walls at its ends, which the mask forbids to run into; the instruction is k cells in order.

    joint: two choices per step (direction; step or stay), the mask of both side by side. mask_in_info: the mask is in
    `info`, not in the observation.
    """

    def __init__(self, num_goals: int = 2, joint: bool = False, mask_in_info: bool = False) -> None:
        self.goal_rule = GoalRule()
        self.horizon = 12
        self._num_goals, self._joint, self._mask_in_info = num_goals, joint, mask_in_info
        self.action_space = spaces.MultiDiscrete([3, 2]) if joint else spaces.Discrete(3)
        leaves: dict[str, gymnasium.Space[Any]] = {
            "observation": spaces.Box(0, 1, (1,), np.float32),
            "achieved_goal": spaces.Box(0, 4, (1,), np.int32),
            "desired_goal": spaces.Box(-1, 4, (num_goals, 1), np.int32),
        }
        if not mask_in_info:
            leaves["action_mask"] = spaces.MultiBinary(5 if joint else 3)
        self.observation_space = spaces.Dict(leaves)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._cell, self._time = 0, 0
        self._goals = self.np_random.integers(1, 5, (self._num_goals, 1)).astype(np.int32)
        self._completed = 0
        return self._shown()

    def step(self, action: Any):
        direction, moves = (action[0], bool(action[1])) if self._joint else (action, True)
        mask = self._mask()
        if not mask[direction] or (self._joint and not mask[3 + action[1]]):
            raise ValueError(f"{action} is forbidden in cell {self._cell}")
        self._cell += (-1, 1, 0)[direction] if moves else 0
        self._time += 1
        hit = self._completed < self._num_goals and self._goals[self._completed, 0] == self._cell
        self._completed += int(hit)
        over = self._completed == self._num_goals or self._time >= self.horizon
        observation, info = self._shown()
        return observation, float(hit), over, False, info

    def _mask(self) -> np.ndarray:
        mask = [self._cell > 0, self._cell < 4, self._cell % 2 == 0]
        # Standing still is forbidden wherever moving is asked for: at the ends.
        return np.array([*mask, self._cell not in (0, 4), True] if self._joint else mask, np.int8)

    def _shown(self) -> tuple[dict[str, Any], dict[str, Any]]:
        goals = self._goals.copy()
        goals[: self._completed] = -1
        observation: dict[str, Any] = {
            "observation": np.array([self._cell / 4], np.float32),
            "achieved_goal": np.array([self._cell], np.int32),
            "desired_goal": goals,
        }
        if self._mask_in_info:
            return observation, {"action_mask": self._mask()}
        return {**observation, "action_mask": self._mask()}, {}
