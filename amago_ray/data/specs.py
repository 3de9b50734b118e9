"""Array specs: what an environment shows and takes, without gymnasium or torch.

Shape letters used across the package: B sequences, T transitions of one episode, N tokens of a packed
batch, M transitions of a packed batch, E environments of one runner, D width, H heads, A action dim,
G discounts, C critics, K action samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from amago_ray.data.goal_rule import GoalRule

ObservationKind = Literal["box", "discrete", "multi_discrete", "multi_binary"]
ActionKind = Literal["discrete", "multi_discrete", "multi_binary", "box"]


@dataclass(frozen=True)
class ObservationSpec:
    """One flat observation leaf. A row of its column has `shape` and `dtype`.

    `num_categories` holds, for the kinds "discrete" and "multi_discrete", how many values each entry takes
    (values count from 0; spaces with another start are shifted by the adapter), else it is empty.
    """

    kind: ObservationKind
    shape: tuple[int, ...]
    dtype: str
    num_categories: tuple[int, ...] = ()

    @property
    def is_pixels(self) -> bool:
        """Whether this leaf is an image: a uint8 box of three dimensions (channels first)."""
        return self.kind == "box" and self.dtype == "uint8" and len(self.shape) == 3

    @property
    def num_features(self) -> int:
        """Width after flattening and one-hot encoding."""
        return sum(self.num_categories) if self.num_categories else int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class ActionSpec:
    """One action. Stored as: "discrete" int64 `[]`; "multi_discrete" int64 `[A]`; "multi_binary" int8 `[A]`;
    "box" float32 `[*shape]` in the agent's range [-1, 1] (the environment adapter rescales to `low`/`high`).
    """

    kind: ActionKind
    shape: tuple[int, ...]
    num_categories: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def dtype(self) -> str:
        """The dtype in which actions are stored."""
        return {"discrete": "int64", "multi_discrete": "int64", "multi_binary": "int8", "box": "float32"}[self.kind]

    @property
    def num_features(self) -> int:
        """A: width of the action as the network reads it (one-hot where discrete)."""
        return sum(self.num_categories) if self.num_categories else int(np.prod(self.shape, dtype=np.int64))

    def to_environment(self, actions: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Stored actions `[..., *shape]` as the environment takes them: boxes rescaled from [-1, 1] to their bounds.

        Entries of a box without finite bounds stay as they are; categories count from 0.
        """
        if self.kind != "box":
            return actions
        low = np.array(self.low, np.float64).reshape(self.shape)
        high = np.array(self.high, np.float64).reshape(self.shape)
        bounded = np.isfinite(low) & np.isfinite(high)
        with np.errstate(invalid="ignore"):
            scaled = low + (actions.astype(np.float64) + 1.0) / 2.0 * (high - low)
        return np.where(bounded, scaled, actions).astype(np.float32)

    @property
    def mask_size(self) -> int:
        """Width of an action mask: one entry per category; 0 where masks make no sense."""
        return sum(self.num_categories)


@dataclass(frozen=True)
class EnvSpec:
    """What one environment (or a mixture of environments of equal spaces) looks like.

    `observations` maps sorted leaf names ("observation", "desired_goal", nested keys joined by "/") to specs;
    it is what the policy reads, so `achieved_goal` and `action_mask` are not in it.
    `horizon` is the longest possible episode in steps, None where unknown.
    `goal_dim` is the width of one achieved goal, 0 where the environment has no goals.
    """

    name: str
    observations: Mapping[str, ObservationSpec]
    action: ActionSpec
    horizon: int | None = None
    goal_dim: int = 0
    goal_dtype: str = "float32"
    goal_rule: GoalRule | None = None
    has_action_mask: bool = False
