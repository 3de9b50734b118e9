"""MazeRunner: visit goals in order, in a maze never seen before.

Source: AMAGO (arXiv 2310.09971), the MazeRunner domain of its experiments.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from amago_ray.data.goal_rule import GoalRule
from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.envs.drawing import AGENT, MUTED, PALETTE, TRAIL, WALL, WHITE, GridPicture
from amago_ray.envs.env_batch import EnvEvent, Observations, StepColumns
from amago_ray.envs.kernel import Kernel, require
from amago_ray.envs.maze import free_distances, move_table, random_walls, start_cell

_NAME = "amago_ray/MazeRunner-v0"


class MazeRunner(Kernel):
    """E random n x n mazes with I goals to be visited in order.

    observation `[7]` float32: row, column, free cells to west, north, east, south (all over n), time over the episode
    length. desired_goal `[I, 2]` int32: (row, column) of the goals, completed ones overwritten with -1.
    achieved_goal `[2]` int32: where the agent is. Actions: west, north, east, south, stay; with `permute_actions`
    their meanings are shuffled in each episode, which is not shown. Moves into walls do nothing; with `mask_walls` an
    action mask forbids them.
    +1 for each goal in its turn; row 0 completes nothing, as the start is never a goal. The episode is `terminated`
    when all goals are completed, and at `episode_length`, which is part of the task (time is observed).
    Events: "success" at the end, 1 where all goals were completed.

    Differs: the original opens walls by another random process; here every free cell can be reached by construction.

    Raises:
        EnvError: a setting is out of range (sizes are odd and at least 7).
    """

    def __init__(
        self,
        num_envs: int,
        *,
        size: int = 11,
        num_goals: int = 3,
        episode_length: int = 250,
        permute_actions: bool = False,
        mask_walls: bool = False,
    ) -> None:
        require(size % 2 == 1 and size >= 7, _NAME, f"size: expected an odd number of at least 7, got {size}")
        require(num_goals >= 1, _NAME, f"num_goals: expected at least 1, got {num_goals}")
        most = 3 * size - 9
        require(num_goals <= most, _NAME, f"num_goals: expected at most {most} in a maze of size {size}")
        require(episode_length >= 1, _NAME, f"episode_length: expected at least 1, got {episode_length}")
        spec = EnvSpec(
            name=_NAME,
            observations={
                "desired_goal": ObservationSpec("box", (num_goals, 2), "int32", low=(-1,), high=(size - 1,)),
                "observation": ObservationSpec("box", (7,), "float32", low=(0,), high=(1,)),
            },
            action=ActionSpec("discrete", (), (5,)),
            horizon=episode_length,
            has_action_mask=mask_walls,
            goal_dim=2,
            goal_dtype="int32",
            goal_rule=GoalRule(match="equal", reward=1.0, marker=-1.0, terminates=True),
        )
        super().__init__(spec, num_envs)
        self._size, self._num_goals, self._episode_length = size, num_goals, episode_length
        self._permute_actions = permute_actions
        cells = self._cells = size * size
        # Cells are numbered through all mazes of the batch, so that a step is a few gathers from flat tables.
        self._first_cell = self._all * cells
        rows, columns = np.divmod(np.arange(cells, dtype=np.int32), np.int32(size))
        self._places = np.tile(np.stack([rows, columns], 1), (num_envs, 1))
        self._walls = np.ones((num_envs, size, size), np.bool_)
        self._table: npt.NDArray[np.int64] = np.zeros(num_envs * cells * 5, np.int64)
        self._allowed = np.ones((num_envs * cells, 5), np.bool_) if mask_walls else None
        self._features = np.zeros((num_envs * cells, 6), np.float32)
        self._features[:, :2] = self._places / np.float32(size)
        self._cell: npt.NDArray[np.int64] = self._first_cell.copy()
        self._time = np.zeros(num_envs, np.int64)
        self._active = np.zeros(num_envs, np.int64)
        # One column past the last goal, which no cell equals, is active when all are completed.
        self._goals = np.full((num_envs, num_goals + 1), -1, np.int64)
        self._first_goal = self._all * (num_goals + 1)
        self._shown_goals = np.zeros((num_envs, num_goals, 2), np.int32)
        self._observation = np.zeros((num_envs, 7), np.float32)
        self._offsets = np.arange(num_envs + 1, dtype=np.int32)
        self._last_visit: npt.NDArray[np.int64] | None = None

    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Start a new maze in each of `indices`."""
        count, size, start = len(indices), self._size, start_cell(self._size)
        walls = np.empty((count, size, size), np.bool_)
        permutations = np.empty((count, 5), np.int64)
        for row, (index, seed) in enumerate(zip(indices.tolist(), seeds.tolist(), strict=True)):
            rng = np.random.default_rng(seed)
            walls[row] = random_walls(size, rng)
            free = np.flatnonzero(~walls[row])
            self._goals[index, :-1] = rng.permutation(free[free != start])[: self._num_goals]
            if self._permute_actions:
                permutations[row] = rng.permutation(5)
        first = self._first_cell[indices]
        distances = free_distances(walls)
        table = move_table(distances)
        if self._permute_actions:
            table = np.take_along_axis(table, permutations[:, None, :], axis=2)
        if self._allowed is not None:
            allowed = table != np.arange(self._cells)[:, None]
            stays = permutations.argmax(1) if self._permute_actions else np.full(count, 4)
            allowed[np.arange(count), :, stays] = True
            self._allowed.reshape(self.num_envs, self._cells, 5)[indices] = allowed
        self._walls[indices] = walls
        self._table.reshape(self.num_envs, self._cells, 5)[indices] = table + first[:, None, None]
        self._features.reshape(self.num_envs, self._cells, 6)[indices, :, 2:] = distances.reshape(
            count, self._cells, 4
        ) / np.float32(size)
        self._goals[indices, :-1] += first[:, None]
        self._cell[indices] = start + first
        self._time[indices] = 0
        self._active[indices] = 0
        self._shown_goals[indices] = self._places[self._goals[indices, :-1]]
        if self._last_visit is not None:
            self._last_visit.reshape(self.num_envs, self._cells)[indices] = -1
            self._last_visit[start + first] = 0
        observation = np.zeros((count, 7), np.float32)
        observation[:, :6] = self._features[start + first]
        return Observations(
            leaves={"desired_goal": self._shown_goals[indices], "observation": observation},
            action_mask=None if self._allowed is None else self._allowed[start + first],
            achieved_values=self._places[start + first],
            achieved_offsets=self._offsets[: count + 1],
        )

    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Move, and complete a goal where the active one is reached."""
        self._cell = self._table.take(self._cell * 5 + actions.astype(np.int64, copy=False))
        self._time += 1
        hits = self._goals.take(self._first_goal + self._active) == self._cell
        ended = self._time >= self._episode_length
        if hits.any():
            hit = np.flatnonzero(hits)
            self._shown_goals[hit, self._active[hit]] = -1
            self._active[hit] += 1
            ended |= self._active == self._num_goals
        self._observation[:, :6] = self._features.take(self._cell, axis=0)
        self._observation[:, 6] = self._time / self._episode_length
        if self._last_visit is not None:
            self._last_visit[self._cell] = self._time
        events = [
            EnvEvent(index, "success", float(self._active[index] == self._num_goals))
            for index in (np.flatnonzero(ended).tolist() if ended.any() else ())
        ]
        return StepColumns(
            observations=Observations(
                leaves={"desired_goal": self._shown_goals, "observation": self._observation},
                action_mask=None if self._allowed is None else self._allowed.take(self._cell, axis=0),
                achieved_values=self._places.take(self._cell, axis=0),
                achieved_offsets=self._offsets,
            ),
            rewards=hits.astype(np.float32),
            terminated=ended,
            truncated=self._none,
            events=events,
        )

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """The maze with numbered goals (grey when completed), the agent, and its trail from the first picture on."""
        if self._last_visit is None:
            self._last_visit = np.full(self.num_envs * self._cells, -1, np.int64)
            self._last_visit[self._cell] = self._time
        picture = GridPicture(self._size, self._size)
        picture.fill_where(self._walls[index], WALL)
        first = int(self._first_cell[index])
        visits = self._last_visit[first : first + self._cells]
        for cell in np.flatnonzero(visits >= 0).tolist():
            age = int(self._time[index] - visits[cell])
            picture.fill(*divmod(cell, self._size), TRAIL, inset=0.2, strength=max(0.2, 0.9 - 0.025 * age))
        for number in range(self._num_goals):
            row, column = divmod(int(self._goals[index, number]) - first, self._size)
            is_completed = number < self._active[index]
            picture.fill(row, column, MUTED if is_completed else PALETTE[number % len(PALETTE)], inset=0.08)
            picture.digit(row, column, number + 1, WHITE)
        row, column = divmod(int(self._cell[index]) - first, self._size)
        picture.disc(row, column, WHITE, radius=0.4)
        picture.disc(row, column, AGENT, radius=0.33)
        return picture.pixels
