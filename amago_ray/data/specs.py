"""Array specs: what an environment shows and takes, and how that is stored, without gymnasium or torch.

Shape letters used across the package: B sequences; T transitions of one episode, which has T+1 rows; N tokens of a
packed batch, one for each row; M transitions of a packed batch; E environments of one runner; D width; H heads; A width
of an action's features; P parameters of a policy head; G discounts; C critics; K action samples; I goals of an
instruction; J goals achieved; R any leading axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from amago_ray.data.goal_rule import GoalRule
from amago_ray.errors import SpaceError

ObservationKind = Literal["box", "discrete", "multi_discrete", "multi_binary"]
ActionKind = Literal["discrete", "multi_discrete", "multi_binary", "box"]

OBSERVATION = "observation"
"""Name of the one leaf of an observation that is neither Dict nor Tuple."""
ACHIEVED_GOAL = "achieved_goal"
DESIRED_GOAL = "desired_goal"
ACTION_MASK = "action_mask"


@dataclass(frozen=True)
class ObservationSpec:
    """One flat observation leaf. A row of its column has `shape` and `dtype`.

    `num_categories` holds, for the kinds "discrete" and "multi_discrete", how many values each entry takes (stored
    values count from 0), else it is empty. The other fields say how the environment itself shows the leaf; `spaces`
    converts between the two.
    """

    kind: ObservationKind
    shape: tuple[int, ...]
    dtype: str
    num_categories: tuple[int, ...] = ()
    start: tuple[int, ...] | None = ()
    """First value of each entry that has categories; empty where all count from 0, None where a file of
    version 1 does not say."""
    low: tuple[float, ...] = ()
    """Bounds of a box in the environment's own units: one for all entries, or one each; empty where not known."""
    high: tuple[float, ...] = ()
    space_shape: tuple[int, ...] | None = None
    """Shape in which the environment shows the leaf; None where it is `shape`."""
    space_dtype: str | None = None
    """Dtype in which the environment shows the leaf; None where it is `dtype`."""
    channel_axis: int | None = None
    """Axis of an image's channels in `space_shape`; None where `space_shape` has none, or the leaf is no image."""
    path: tuple[str | int, ...] | None = None
    """Dict keys and Tuple positions that lead to the leaf; None where its name says them."""

    @property
    def is_pixels(self) -> bool:
        """Whether this leaf is an image: a uint8 box stored in three dimensions (channels first)."""
        return self.kind == "box" and self.dtype == "uint8" and len(self.shape) == 3

    @property
    def num_features(self) -> int:
        """Width after flattening and one-hot encoding."""
        return sum(self.num_categories) if self.num_categories else int(np.prod(self.shape, dtype=np.int64))

    def __str__(self) -> str:
        return _describe(self)


@dataclass(frozen=True)
class ActionSpec:
    """One action. Stored as: "discrete" int64 `[]`; "multi_discrete" int64 and "multi_binary" int8 `[*shape]`;
    "box" float32 `[*shape]` in the agent's range [-1, 1] (`spaces.ActionAdapter` rescales to `low` and `high`).
    """

    kind: ActionKind
    shape: tuple[int, ...]
    num_categories: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    """Bounds of each entry of a box, in the environment's own units."""
    high: tuple[float, ...] = ()
    start: tuple[int, ...] | None = ()
    """First value of each entry that has categories; empty where all count from 0, None where a file of
    version 1 does not say."""
    space_shape: tuple[int, ...] | None = None
    """Shape in which the environment takes the action; None where it is `shape`."""
    space_dtype: str | None = None
    """Dtype in which the environment takes the action; None where it is `dtype`."""

    @property
    def dtype(self) -> str:
        """The dtype in which actions are stored."""
        return {"discrete": "int64", "multi_discrete": "int64", "multi_binary": "int8", "box": "float32"}[self.kind]

    @property
    def num_features(self) -> int:
        """A: width of an action's features, which the network reads (one-hot where discrete)."""
        return sum(self.num_categories) if self.num_categories else int(np.prod(self.shape, dtype=np.int64))

    @property
    def mask_size(self) -> int:
        """Width of an action mask: one entry per category; 0 where masks make no sense."""
        return sum(self.num_categories)

    def __str__(self) -> str:
        return _describe(self)


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

    @property
    def row_bytes(self) -> int:
        """Bytes that one row takes in storage at least: observations, action, reward."""
        arrays: list[ObservationSpec | ActionSpec] = [*self.observations.values(), self.action]
        return 4 + sum(np.dtype(each.dtype).itemsize * int(np.prod(each.shape, dtype=np.int64)) for each in arrays)


def space_difference(expected: EnvSpec, found: EnvSpec) -> str:
    """Where `found` shows or takes other things than a policy made for `expected` reads or does; empty if nowhere.

    What conversion evens out is no difference: the precision of floats, the order of an image's axes. Nor are the
    bounds of observations, and what a file of version 1 does not know is not compared.
    """
    for name in sorted({*expected.observations, *found.observations}):
        mine, theirs = expected.observations.get(name), found.observations.get(name)
        if mine is None or theirs is None or not _is_alike(mine, theirs):
            return f"observation '{name}': expected {mine or 'no such leaf'}, got {theirs or 'no such leaf'}"
    one, other = expected.action, found.action
    if not _is_alike(one, other) or (one.low, one.high) != (other.low, other.high):
        return f"action: expected {one}, got {other}"
    return ""


def require_spaces(trained: EnvSpec, found: EnvSpec) -> None:
    """Refuse an environment in which a policy that was trained in another cannot act.

    Raises:
        SpaceError: their spaces differ; the message names the first leaf that does.
    """
    unlike = space_difference(trained, found)
    if unlike:
        raise SpaceError(f"env '{found.name}': does not fit the policy, trained in '{trained.name}': {unlike}")


def require_alike(first: EnvSpec, found: EnvSpec, who: str) -> None:
    """Refuse environments that one setting makes unlike each other.

    Raises:
        SpaceError: `found`, of the environments of `who`, is not as `first`, which was made before.
    """
    unlike = difference(first, found)
    if unlike:
        raise SpaceError(f"env '{found.name}': {who} is made with other spaces than the first one: {unlike}")


def difference(expected: EnvSpec, found: EnvSpec) -> str:
    """As `space_difference`, for environments whose episodes are stored together: goals and masks count, too."""
    for field in ("goal_dim", "goal_dtype", "goal_rule", "has_action_mask"):
        mine, theirs = getattr(expected, field), getattr(found, field)
        if mine != theirs:
            return space_difference(expected, found) or f"{field}: expected {mine}, got {theirs}"
    return space_difference(expected, found)


def _is_alike(one: ObservationSpec | ActionSpec, other: ObservationSpec | ActionSpec) -> bool:
    if (one.kind, one.shape, one.num_categories) != (other.kind, other.shape, other.num_categories):
        return False
    if one.dtype != other.dtype:
        return False
    if one.start is None or other.start is None:
        return True
    return one.start == other.start and _is_whole(one) == _is_whole(other)


def _is_whole(spec: ObservationSpec | ActionSpec) -> bool:
    return np.dtype(spec.space_dtype or spec.dtype).kind in "biu"


def _describe(spec: ObservationSpec | ActionSpec) -> str:
    """A spec as its environment declares it, on one line of bounded length."""
    shape = spec.shape if spec.space_shape is None else spec.space_shape
    details: list[str] = []
    match spec.kind:
        case "discrete":
            details.append(str(spec.num_categories[0]))
        case "multi_discrete":
            details.append(str(list(spec.num_categories)))
        case "multi_binary":
            details.append(str(list(shape)))
        case "box":
            details += [_range(spec.low, spec.high)] if spec.low else []
            details += [str(list(shape)), spec.space_dtype or spec.dtype]
    if spec.start:
        details.append(f"start={spec.start[0] if spec.kind == 'discrete' else list(spec.start)}")
    name = {"discrete": "Discrete", "multi_discrete": "MultiDiscrete", "multi_binary": "MultiBinary", "box": "Box"}
    text = f"{name[spec.kind]}({', '.join(details)})"
    if spec.kind == "box" and shape != spec.shape:
        text += f" stored as {list(spec.shape)}"
    return text if len(text) <= 120 else text[:117] + "..."


def _range(low: tuple[float, ...], high: tuple[float, ...]) -> str:
    if len(set(low)) == 1 and len(set(high)) == 1:
        return f"{low[0]:g}, {high[0]:g}"
    return ", ".join(f"[{', '.join(f'{bound:g}' for bound in bounds)}]" for bounds in (low, high))
