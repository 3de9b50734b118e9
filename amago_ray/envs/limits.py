"""`LimitedEnvBatch`: a time limit, and truncation treated as termination, around any `EnvBatch`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amago_ray.envs.env_batch import EnvBatch, Observations, StepColumns


class LimitedEnvBatch:
    """Adds to a batch what the config asks of it.

    Episodes that reach `max_episode_steps` are truncated there. With `truncation_is_termination` every truncation,
    this one or the environment's own, is reported as `terminated` instead, for tasks whose horizon is part of the task.
    """

    def __init__(
        self, inner: EnvBatch, *, max_episode_steps: int | None = None, truncation_is_termination: bool = False
    ) -> None:
        self._inner = inner
        self._max_episode_steps = max_episode_steps
        self._truncation_is_termination = truncation_is_termination
        self._time = np.zeros(inner.num_envs, np.int64)
        limits = [limit for limit in (inner.spec.horizon, max_episode_steps) if limit is not None]
        self.spec = dataclasses.replace(inner.spec, horizon=min(limits, default=None))
        self.num_envs = inner.num_envs
        self.env_names: Sequence[str] = inner.env_names

    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Start a new episode in each of `indices`, with a seed each."""
        self._time[indices] = 0
        return self._inner.reset(indices, seeds)

    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Step all environments."""
        columns = self._inner.step(actions)
        terminated, truncated = columns.terminated, columns.truncated
        self._time += 1
        if self._max_episode_steps is not None:
            truncated = truncated | ((self._time >= self._max_episode_steps) & ~terminated)
        if self._truncation_is_termination:
            terminated, truncated = terminated | truncated, np.zeros_like(truncated)
        return dataclasses.replace(columns, terminated=terminated, truncated=truncated)

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """An RGB picture of one environment."""
        return self._inner.render(index)

    def close(self) -> None:
        """Release everything."""
        self._inner.close()
