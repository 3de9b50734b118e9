"""DarkKeyDoor: meta-learning in a dark room, over several attempts at one hidden task.

Source: AMAGO (arXiv 2310.09971), the Dark Key-To-Door domain, after Algorithm Distillation (arXiv 2210.14215).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.envs.drawing import AGENT, MUTED, PALETTE, TRAIL, WHITE, GridPicture
from amago_ray.envs.env_batch import EnvEvent, Observations, StepColumns
from amago_ray.envs.kernel import MOVES, Kernel, require

_NAME = "amago_ray/DarkKeyDoor-v0"


class DarkKeyDoor(Kernel):
    """E trials in an empty n x n room whose start, key and door are random, hidden, distinct, and fixed for the trial.

    observation `[4]` float32: row and column over n - 1, has key (0 or 1), time over the trial length.
    Actions: west, north, east, south, stay. +1 for stepping on the key, then +1 for stepping on the door with it.
    An attempt ends when the door opens, or after `attempt_length` steps; the step after that is a soft reset: whatever
    the action, the agent is put back to the start without the key, for a reward of zero. The soft reset counts as a
    step of the trial. The trial is `terminated` at `trial_length`, which is part of the task (time is observed).
    Events: "attempt_return" (0, 1 or 2) when an attempt ends; an attempt that the trial's end cuts is not reported.

    Raises:
        EnvError: a setting is out of range.
    """

    def __init__(self, num_envs: int, *, size: int = 9, trial_length: int = 500, attempt_length: int = 50) -> None:
        require(size >= 2, _NAME, f"size: expected at least 2, got {size}")
        require(trial_length >= 1, _NAME, f"trial_length: expected at least 1, got {trial_length}")
        require(attempt_length >= 1, _NAME, f"attempt_length: expected at least 1, got {attempt_length}")
        spec = EnvSpec(
            name=_NAME,
            observations={"observation": ObservationSpec("box", (4,), "float32", low=(0,), high=(1,))},
            action=ActionSpec("discrete", (), (5,)),
            horizon=trial_length,
        )
        super().__init__(spec, num_envs)
        self._size, self._trial_length, self._attempt_length = size, trial_length, attempt_length
        rows, columns = np.divmod(np.arange(size * size), size)
        self._features = np.stack([rows, columns], 1).astype(np.float32) / np.float32(size - 1)
        self._table = np.empty(size * size * 5, np.int64)
        for action, (down, right) in enumerate(MOVES):
            self._table[action::5] = np.clip(rows + down, 0, size - 1) * size + np.clip(columns + right, 0, size - 1)
        self._start, self._key, self._door = np.zeros((3, num_envs), np.int64)
        self._cell = np.zeros(num_envs, np.int64)
        self._has_key = np.zeros(num_envs, np.bool_)
        self._soft_reset_due = np.zeros(num_envs, np.bool_)
        self._time = np.zeros(num_envs, np.int64)
        self._attempt_time = np.zeros(num_envs, np.int64)
        self._attempt_return = np.zeros(num_envs, np.float32)
        self._observation = np.zeros((num_envs, 4), np.float32)
        self._last_visit: npt.NDArray[np.int64] | None = None

    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Start a new trial in each of `indices`."""
        for index, seed in zip(indices.tolist(), seeds.tolist(), strict=True):
            places = np.random.default_rng(seed).permutation(self._size * self._size)[:3]
            self._start[index], self._key[index], self._door[index] = places
        self._cell[indices] = self._start[indices]
        self._has_key[indices] = False
        self._soft_reset_due[indices] = False
        self._time[indices] = 0
        self._attempt_time[indices] = 0
        self._attempt_return[indices] = 0
        observation = np.zeros((len(indices), 4), np.float32)
        observation[:, :2] = self._features[self._cell[indices]]
        if self._last_visit is not None:
            self._forget_trail(indices)
        return Observations(leaves={"observation": observation})

    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Move, take the key, open the door; or put an agent whose attempt is over back to the start."""
        resetting = self._soft_reset_due
        playing = ~resetting
        moved = self._table.take(self._cell * 5 + actions.astype(np.int64, copy=False))
        self._cell = np.where(resetting, self._start, moved)
        self._has_key &= playing
        takes_key = (self._cell == self._key) & ~self._has_key & playing
        self._has_key |= takes_key
        opens_door = (self._cell == self._door) & self._has_key & playing
        rewards = (takes_key | opens_door).astype(np.float32)
        self._attempt_time = (self._attempt_time + 1) * playing
        self._attempt_return = (self._attempt_return + rewards) * playing
        self._time += 1
        self._soft_reset_due = opens_door | (self._attempt_time >= self._attempt_length)
        self._observation[:, :2] = self._features.take(self._cell, axis=0)
        self._observation[:, 2] = self._has_key
        self._observation[:, 3] = self._time / self._trial_length
        events = [
            EnvEvent(index, "attempt_return", float(self._attempt_return[index]))
            for index in np.flatnonzero(self._soft_reset_due).tolist()
        ]
        if self._last_visit is not None:
            self._forget_trail(np.flatnonzero(resetting))
            self._last_visit[self._all, self._cell] = self._time
        return StepColumns(
            observations=Observations(leaves={"observation": self._observation}),
            rewards=rewards,
            terminated=self._time >= self._trial_length,
            truncated=self._none,
            events=events,
        )

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """The room with start, key (1) and door (2), grey once used, the agent, and the trail of the attempt."""
        if self._last_visit is None:
            self._last_visit = np.empty((self.num_envs, self._size * self._size), np.int64)
            self._forget_trail(self._all)
        picture = GridPicture(self._size, self._size)
        for cell in range(self._size * self._size):
            picture.fill(*divmod(cell, self._size), WHITE, inset=0.03)
        picture.fill(*divmod(int(self._start[index]), self._size), MUTED, inset=0.08)
        picture.fill(*divmod(int(self._start[index]), self._size), WHITE, inset=0.16)
        visits = self._last_visit[index]
        for cell in np.flatnonzero(visits >= 0).tolist():
            age = int(self._time[index] - visits[cell])
            picture.fill(*divmod(cell, self._size), TRAIL, inset=0.2, strength=max(0.2, 0.9 - 0.025 * age))
        opened = bool(self._soft_reset_due[index]) and self._cell[index] == self._door[index]
        for number, (place, is_completed) in enumerate(((self._key, self._has_key[index]), (self._door, opened))):
            row, column = divmod(int(place[index]), self._size)
            picture.fill(row, column, MUTED if is_completed else PALETTE[number], inset=0.08)
            picture.digit(row, column, number + 1, WHITE)
        row, column = divmod(int(self._cell[index]), self._size)
        picture.disc(row, column, PALETTE[0] if self._has_key[index] else WHITE, radius=0.42)
        picture.disc(row, column, AGENT, radius=0.33)
        return picture.pixels

    def _forget_trail(self, indices: npt.NDArray[np.int64]) -> None:
        if self._last_visit is not None:
            self._last_visit[indices] = -1
            self._last_visit[indices, self._cell[indices]] = self._time[indices]
