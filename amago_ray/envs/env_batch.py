"""The `EnvBatch` protocol: a batch of environments stepped together, whose resets the caller owns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from amago_ray.data.specs import EnvSpec


@dataclass(frozen=True)
class Observations:
    """Columns seen by n environments. Arrays may be reused by the next call: copy what is to be kept.

    leaves: each `[n, ...]`, sorted by name as in the spec. action_mask `[n, mask_size]` bool or None.
    achieved: goals achieved on arrival, ragged: those of environment i are
    `achieved_values[achieved_offsets[i]:achieved_offsets[i + 1]]`; both None where the environment has no goals.
    """

    leaves: Mapping[str, npt.NDArray[np.generic]]
    action_mask: npt.NDArray[np.bool_] | None = None
    achieved_values: npt.NDArray[np.generic] | None = None
    achieved_offsets: npt.NDArray[np.int32] | None = None


@dataclass(frozen=True)
class EnvEvent:
    """A number worth reporting of one environment's running episode, such as ("attempt_return", 2.0).

    "success" (0 or 1) of the last event of an episode becomes its success.
    """

    index: int
    name: str
    value: float


@dataclass(frozen=True)
class EnvFailure:
    """Environment `index` raised, hung or returned nonsense: drop its partial episode and reset it, which rebuilds it.

    kind: the same for all failures of the same cause, whatever numbers their messages hold. message: one line that
    names environment and cause. is_isolated: it has failed too often, and is not used any more.
    """

    index: int
    kind: str
    message: str
    is_isolated: bool = False


@dataclass(frozen=True)
class StepColumns:
    """What one step of all E environments returned.

    `observations` are the true ones after the step, also where the episode ended: nothing resets by itself.
    rewards `[E]` float32, terminated and truncated `[E]` bool.
    valid: `[E]` bool or None, which means all True. Where False, this environment made no transition (a native vector
    environment that resets on its next step was still resetting, or it is isolated): drop its begun episode, which is
    no failure and is not counted, and reset it again, which then hands out the true first observation, if there is one.
    """

    observations: Observations
    rewards: npt.NDArray[np.float32]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    events: Sequence[EnvEvent] = ()
    failures: Sequence[EnvFailure] = field(default=())
    valid: npt.NDArray[np.bool_] | None = None


class EnvBatch(Protocol):
    """E environments of equal spaces, stepped together."""

    spec: EnvSpec
    num_envs: int
    env_names: Sequence[str]

    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Start a new episode in each of `indices`, with a seed each; columns have one row per index."""
        ...

    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Step all E environments with `actions [E, ...]`. One that ended must be reset before its next step."""
        ...

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """An RGB picture `[height, width, 3]` of one environment."""
        ...

    def close(self) -> None:
        """Release everything; calling it twice is fine."""
        ...
