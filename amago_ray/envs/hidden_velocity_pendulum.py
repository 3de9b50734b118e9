"""HiddenVelocityPendulum: Gymnasium's Pendulum-v1 with its velocity hidden.

Source: dynamics and reward of Gymnasium's Pendulum-v1, which a test compares step by step.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.envs.drawing import AGENT, PAPER, WALL
from amago_ray.envs.env_batch import Observations, StepColumns
from amago_ray.envs.kernel import Kernel, require

_NAME = "amago_ray/HiddenVelocityPendulum-v0"
_MAX_SPEED, _MAX_TORQUE = 8.0, 2.0
_GRAVITY, _STEP_S = 10.0, 0.05


class HiddenVelocityPendulum(Kernel):
    """E pendulums to be swung up and balanced, of which only the angle is seen.

    observation `[2]` float32: cosine and sine of the angle (0 is upright). Action `[1]`: torque in [-2, 2], stored in
    [-1, 1]. Reward: -(angle² + 0.1 velocity² + 0.001 torque²), of the state before the step.
    The episode is `truncated` at `episode_length` (200), as in Gymnasium: the pendulum swings on, the limit is ours.
    An agent that reads the time index sees the limit coming, though, and values of the last state would be
    bootstrapped in every episode yet never trained: such a run sets `truncation_is_termination` in the env's config.

    Differs: the velocity is hidden; the state is float64 as in Gymnasium.

    Raises:
        EnvError: the episode length is not positive.
    """

    def __init__(self, num_envs: int, *, episode_length: int = 200) -> None:
        require(episode_length >= 1, _NAME, f"episode_length: expected at least 1, got {episode_length}")
        spec = EnvSpec(
            name=_NAME,
            observations={"observation": ObservationSpec("box", (2,), "float32", low=(-1,), high=(1,))},
            action=ActionSpec("box", (1,), low=(-_MAX_TORQUE,), high=(_MAX_TORQUE,)),
            horizon=episode_length,
        )
        super().__init__(spec, num_envs)
        self._episode_length = episode_length
        self._angle = np.zeros(num_envs)
        self._velocity = np.zeros(num_envs)
        self._time = np.zeros(num_envs, np.int64)

    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Hang up a pendulum at a random angle and velocity in each of `indices`."""
        for index, seed in zip(indices.tolist(), seeds.tolist(), strict=True):
            state = np.random.default_rng(seed).uniform((-np.pi, -1.0), (np.pi, 1.0))
            self._angle[index], self._velocity[index] = state
        self._time[indices] = 0
        return self._observe(indices)

    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Integrate one step of 0.05 s."""
        torque = np.clip(actions[:, 0].astype(np.float64), -1, 1) * _MAX_TORQUE
        angle = (self._angle + np.pi) % (2 * np.pi) - np.pi
        costs = angle**2 + 0.1 * self._velocity**2 + 0.001 * torque**2
        acceleration = 1.5 * _GRAVITY * np.sin(self._angle) + 3.0 * torque
        self._velocity = np.clip(self._velocity + acceleration * _STEP_S, -_MAX_SPEED, _MAX_SPEED)
        self._angle = self._angle + self._velocity * _STEP_S
        self._time += 1
        return StepColumns(
            observations=self._observe(self._all),
            rewards=(-costs).astype(np.float32),
            terminated=self._none,
            truncated=self._time >= self._episode_length,
        )

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """The rod on its axle, upright being up."""
        side = 256
        picture = np.full((side, side, 3), PAPER, np.uint8)
        place = (np.arange(side) - (side - 1) / 2) / (side / 2)
        right, up = place, -place[:, None]
        along = right * -np.sin(self._angle[index]) + up * np.cos(self._angle[index])
        across = right * np.cos(self._angle[index]) + up * np.sin(self._angle[index])
        on_rod = np.hypot(across, along - np.clip(along, 0, 0.7)) <= 0.07
        picture[on_rod] = AGENT
        picture[np.hypot(right, up) <= 0.03] = WALL
        return picture

    def _observe(self, indices: npt.NDArray[np.int64]) -> Observations:
        angle = self._angle[indices]
        return Observations(leaves={"observation": np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)})
