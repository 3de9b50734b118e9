"""TMaze: remember one thing, seen once, until the end of a long corridor.

Source: Passive T-Maze of Ni et al., "When Do Transformers Shine in RL?" (arXiv 2307.03864), as used in AMAGO.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.envs.drawing import AGENT, PALETTE, WALL, WHITE, GridPicture
from amago_ray.envs.env_batch import EnvEvent, Observations, StepColumns
from amago_ray.envs.kernel import Kernel, require

_NAME = "amago_ray/TMaze-v0"
_FORWARD, _UP, _BACK, _DOWN = range(4)


class TMaze(Kernel):
    """E corridors of H cells that end in a junction; the reward lies up or down of it, which only row 0 shows.

    observation `[2]` float32: whether the agent has reached the junction (0 or 1); then a side (1 up, -1 down): of the
    goal in row 0, 0 in the corridor afterwards, and in an arm the side of the arm. The time index is not observed.
    Actions: forward, up, back, down. Up and down move only at the junction (and back out of an arm).
    An episode has H + 1 steps, just enough, and is then `terminated`. Each of the first H steps that does not advance
    costs 1/H; the last one gives +1 in the arm of the goal, else 0. The optimum is 1.0, and one wasted step makes it
    unreachable.
    Events: "success" at the end, 1 in the right arm.

    Differs: Ni et al. charge every step at which the agent is behind schedule, so that one slip costs all later steps;
    charging the wasted step alone is the variant that AMAGO and later work learn from.

    Raises:
        EnvError: the length is not positive.
    """

    def __init__(self, num_envs: int, *, length: int = 20) -> None:
        require(length >= 1, _NAME, f"length: expected at least 1, got {length}")
        spec = EnvSpec(
            name=_NAME,
            observations={"observation": ObservationSpec("box", (2,), "float32", low=(-1,), high=(1,))},
            action=ActionSpec("discrete", (), (4,)),
            horizon=length + 1,
        )
        super().__init__(spec, num_envs)
        self._length = length
        self._along = np.zeros(num_envs, np.int64)
        self._side = np.zeros(num_envs, np.int64)
        self._goal_side = np.ones(num_envs, np.int64)
        self._time = np.zeros(num_envs, np.int64)
        self._observation = np.zeros((num_envs, 2), np.float32)

    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Start a new corridor in each of `indices`."""
        for index, seed in zip(indices.tolist(), seeds.tolist(), strict=True):
            self._goal_side[index] = 1 - 2 * np.random.default_rng(seed).integers(2)
        self._along[indices] = 0
        self._side[indices] = 0
        self._time[indices] = 0
        observation = np.zeros((len(indices), 2), np.float32)
        observation[:, 1] = self._goal_side[indices]
        return Observations(leaves={"observation": observation})

    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Move, charge wasted steps, and pay in the last step."""
        in_corridor = self._side == 0
        ahead = (actions == _FORWARD) & in_corridor & (self._along < self._length)
        back = (actions == _BACK) & in_corridor & (self._along > 0)
        turn = (actions == _UP).astype(np.int64) - (actions == _DOWN)
        self._side = np.where(self._along == self._length, np.clip(self._side + turn, -1, 1), 0)
        self._along += ahead
        self._along -= back
        self._time += 1
        ended = self._time > self._length
        right = self._side == self._goal_side
        rewards = np.where(ended, right, (ahead.astype(np.float32) - 1) / self._length).astype(np.float32)
        self._observation[:, 0] = self._along == self._length
        self._observation[:, 1] = self._side
        events = [EnvEvent(index, "success", float(right[index])) for index in np.flatnonzero(ended).tolist()]
        return StepColumns(
            observations=Observations(leaves={"observation": self._observation}),
            rewards=rewards,
            terminated=ended,
            truncated=self._none,
            events=events,
        )

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """Corridor and arms; the goal's arm is coloured, for the agent itself it is dark after row 0."""
        picture = GridPicture(5, self._length + 3, width_px=max(480, 8 * (self._length + 3)))
        walls = np.ones((5, self._length + 3), np.bool_)
        walls[2, 1 : self._length + 2] = False
        walls[1:4, self._length + 1] = False
        picture.fill_where(walls, WALL)
        goal_row = 2 - int(self._goal_side[index])
        picture.fill(goal_row, self._length + 1, PALETTE[0])
        if self._time[index] == 0:
            picture.fill(goal_row, 1, PALETTE[0], inset=0.1)
        row, column = 2 - int(self._side[index]), 1 + int(self._along[index])
        picture.disc(row, column, WHITE, radius=0.45)
        picture.disc(row, column, AGENT, radius=0.36)
        return picture.pixels
