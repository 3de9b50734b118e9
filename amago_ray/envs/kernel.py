"""`Kernel`: base of the built-in environments, which step E episodes as columns of NumPy arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amago_ray.data.specs import EnvSpec
from amago_ray.envs.env_batch import Observations, StepColumns
from amago_ray.errors import EnvError

MOVES = ((0, -1), (-1, 0), (0, 1), (1, 0), (0, 0))
"""(row, column) steps of the five actions of the grid worlds: west, north, east, south, stay."""


class Kernel(ABC):
    """An `EnvBatch` written as columns. Returned arrays are reused by the next call.

    Everything random in an episode follows from its seed alone, whatever its place in the batch.
    """

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        self.spec = spec
        self.num_envs = num_envs
        self.env_names: Sequence[str] = (spec.name,) * num_envs
        self._all = np.arange(num_envs)
        self._none = np.zeros(num_envs, np.bool_)

    @abstractmethod
    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Start a new episode in each of `indices`, with a seed each."""

    @abstractmethod
    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Step all E environments."""

    @abstractmethod
    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """An RGB picture of one environment."""

    def close(self) -> None:  # noqa: B027  (arrays need no closing, yet a kernel may)
        """Nothing to release."""


def require(condition: bool, name: str, message: str) -> None:
    """Refuse a setting of the built-in environment `name`.

    Raises:
        EnvError: the condition does not hold.
    """
    if not condition:
        raise EnvError(f"{name}: {message}")
