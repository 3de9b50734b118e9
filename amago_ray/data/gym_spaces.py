"""Between Gymnasium spaces and array specs: the only module of `data` that knows Gymnasium.

Observations become a flat dict of leaves, sorted by name. Nested Dict keys and Tuple positions are joined with "/"; an
observation that is neither Dict nor Tuple is the one leaf "observation". Values are stored as follows.

    Box            as it is; float64 as float32, the precision that networks read
    Box, image     uint8 of three dimensions: channels first. The shorter of the first and last axis is the channel axis
                   (the last where they are equal), so `[H, W, C]` is transposed and a stack `[C, H, W]` stays
    Discrete       int64, counted from 0 whatever the space's start
    MultiDiscrete  int64, counted from 0
    MultiBinary    int8

Goals: a Dict with `desired_goal` holds an instruction, stored as `[k, goal_dim]` (a single goal `[goal_dim]` becomes
`[1, goal_dim]`). `achieved_goal` is not a leaf, for the policy never sees it. `action_mask` is no leaf either.

All conversions take any leading axes, so that the columns of a vector environment pass through the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from amago_ray.data.specs import ActionSpec, ObservationSpec
from amago_ray.errors import SpaceError

ACHIEVED_GOAL = "achieved_goal"
DESIRED_GOAL = "desired_goal"
ACTION_MASK = "action_mask"
OBSERVATION = "observation"

Array = npt.NDArray[Any]
Space = gymnasium.Space[Any]


@dataclass(frozen=True)
class _Leaf:
    """One stored leaf: where it is in the observation, and how its values are converted."""

    path: tuple[str | int, ...]
    spec: ObservationSpec
    convert: Callable[[Any], Array]

    def read(self, observation: Any) -> Array:
        value = observation
        for key in self.path:
            value = value[key]
        return self.convert(value)


class ObservationAdapter:
    """Reads observations of one space as flat leaves, achieved goals and action mask.

    specs: the policy's leaves, sorted by name. goal_dim, goal_dtype: of one achieved goal; goal_dim is 0 where the
    space has no `desired_goal`. has_achieved_goal, has_action_mask: whether the observation itself carries them.

    Raises:
        SpaceError: a leaf of the space is not supported; the message names it.
    """

    def __init__(self, space: Space) -> None:
        self.goal_dim, self.goal_dtype = 0, "float32"
        self.has_achieved_goal = False
        self.has_action_mask = False
        if isinstance(space, spaces.Dict):
            self.has_action_mask = ACTION_MASK in space.spaces
            if DESIRED_GOAL in space.spaces:
                goal = _goal_spec(space.spaces[DESIRED_GOAL], DESIRED_GOAL)
                self.goal_dim, self.goal_dtype = goal.shape[-1], goal.dtype
                self.has_achieved_goal = ACHIEVED_GOAL in space.spaces
                if self.has_achieved_goal:
                    self._check_achieved_goal(space.spaces[ACHIEVED_GOAL])
        leaves: dict[str, _Leaf] = {}
        if isinstance(space, spaces.Dict):
            hidden = {ACTION_MASK, ACHIEVED_GOAL} if self.goal_dim else {ACTION_MASK}
            for key, child in space.spaces.items():
                if key not in hidden:
                    _collect(child, (key,), leaves)
        else:
            _collect(space, (), leaves)
        self._leaves = dict(sorted(leaves.items()))
        self.specs: Mapping[str, ObservationSpec] = {name: leaf.spec for name, leaf in self._leaves.items()}

    def leaves(self, observation: Any) -> dict[str, Array]:
        """Stored leaves of an observation `[...]` or of a batch `[E, ...]`; views where nothing had to change."""
        return {name: leaf.read(observation) for name, leaf in self._leaves.items()}

    def achieved_goals(self, value: Any) -> Array:
        """Goals as rows: a value of shape `[goal_dim]` or `[A, goal_dim]` as `[A, goal_dim]` of the stored dtype.

        Raises:
            SpaceError: the value is not made of rows of goal_dim entries.
        """
        array: Array = np.asarray(value, self.goal_dtype)
        if array.size % max(self.goal_dim, 1):
            raise SpaceError(f"achieved goals: expected rows of {self.goal_dim} entries, got shape {array.shape}")
        return array.reshape(-1, self.goal_dim)

    def _check_achieved_goal(self, space: Space) -> None:
        spec = _goal_spec(space, ACHIEVED_GOAL)
        if spec.shape[-1] != self.goal_dim:
            raise SpaceError(
                f"observation '{ACHIEVED_GOAL}': expected goals of {self.goal_dim} entries as in '{DESIRED_GOAL}', "
                f"got shape {space.shape}"
            )


class ActionAdapter:
    """Turns stored actions into those that an environment takes.

    A Box is stored in [-1, 1] and rescaled linearly to the space's bounds, entry by entry; an entry whose low or high
    is infinite passes through as it is, clipped to the finite bound if it has one. A Box of integers is rounded.

    Raises:
        SpaceError: the action space is not supported.
    """

    def __init__(self, space: Space) -> None:
        self.spec = _action_spec(space)
        self._space = space
        if isinstance(space, spaces.Box):
            low, high = space.low.astype(np.float64), space.high.astype(np.float64)
            bounded = np.isfinite(low) & np.isfinite(high)
            self._scale = np.where(bounded, (np.where(bounded, high, 0) - np.where(bounded, low, 0)) / 2, 1.0)
            self._offset = np.where(bounded, (np.where(bounded, high, 0) + np.where(bounded, low, 0)) / 2, 0.0)

    def to_env(self, actions: Array) -> Array:
        """The environment's action of a stored action `[...]`, or those of a batch `[E, ...]`."""
        space = self._space
        if isinstance(space, spaces.Discrete):
            return np.asarray(actions + space.start, space.dtype)
        leading = actions.shape[: actions.ndim - len(self.spec.shape)]
        if isinstance(space, spaces.MultiDiscrete):
            return np.asarray(actions.reshape(*leading, *space.nvec.shape) + space.start, space.dtype)
        if isinstance(space, spaces.MultiBinary):
            return np.asarray(actions.reshape(*leading, *space.shape), space.dtype)
        box = cast(spaces.Box, space)
        scaled = np.clip(actions, -1, 1) * self._scale + self._offset
        if np.issubdtype(box.dtype, np.integer):
            scaled = np.rint(scaled)
        # An array also where the box has no axes: Gymnasium's own check wants no bare number.
        return np.asarray(np.clip(scaled, box.low, box.high), box.dtype)

    def check_mask(self, size: int) -> None:
        """Refuse an action mask of another width than this action space needs.

        Raises:
            SpaceError: the mask does not fit, or the action space cannot be masked.
        """
        if size != self.spec.mask_size:
            raise SpaceError(
                f"'{ACTION_MASK}': expected {self.spec.mask_size} entries for action space {self._space}, got {size}"
            )


def action_mask_size(space: Space) -> int:
    """Entries of the `action_mask` that a Dict observation space carries, in all dimensions together."""
    mask = cast(spaces.Dict, space).spaces[ACTION_MASK]
    if not isinstance(mask, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete):
        raise SpaceError(f"observation '{ACTION_MASK}': expected a MultiBinary or Box space, got {_short(mask)}")
    return int(np.prod(mask.shape, dtype=np.int64))


def space_of(spec: ObservationSpec, low: float, high: float) -> Space:
    """The Gymnasium space of an observation leaf: Discrete, or a Box within bounds."""
    if spec.kind == "discrete":
        return spaces.Discrete(spec.num_categories[0])
    return spaces.Box(low, high, spec.shape, np.dtype(spec.dtype).type)


def action_space_of(spec: ActionSpec) -> Space:
    """The Gymnasium space of an action spec: Discrete, or a Box of the spec's bounds."""
    if spec.kind == "discrete":
        return spaces.Discrete(spec.num_categories[0])
    low = np.asarray(spec.low, np.float32).reshape(spec.shape)
    high = np.asarray(spec.high, np.float32).reshape(spec.shape)
    return spaces.Box(low, high, dtype=np.float32)


def _collect(space: Space, path: tuple[str | int, ...], leaves: dict[str, _Leaf]) -> None:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        items = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, child in items:
            _collect(child, (*path, key), leaves)
        return
    name = "/".join(map(str, path)) or OBSERVATION
    if name in leaves:
        raise SpaceError(f"observation '{name}': two leaves have this name, for '/' joins nested keys")
    leaves[name] = _goal_leaf(space, path) if path == (DESIRED_GOAL,) else _leaf(space, path, name)


def _leaf(space: Space, path: tuple[str | int, ...], name: str) -> _Leaf:
    if isinstance(space, spaces.Box):
        dtype = _box_dtype(space)
        if space.dtype == np.uint8 and len(space.shape) == 3 and space.shape[2] <= space.shape[0]:
            height, width, channels = space.shape
            spec = ObservationSpec("box", (channels, height, width), dtype)
            return _Leaf(path, spec, lambda value: np.moveaxis(np.asarray(value), -1, -3))
        return _Leaf(path, ObservationSpec("box", space.shape, dtype), lambda value: np.asarray(value, dtype))
    if isinstance(space, spaces.Discrete):
        first = int(space.start)
        spec = ObservationSpec("discrete", (), "int64", (int(space.n),))
        return _Leaf(path, spec, lambda value: np.asarray(value, np.int64) - first)
    if isinstance(space, spaces.MultiDiscrete):
        start = np.asarray(space.start, np.int64)
        spec = ObservationSpec("multi_discrete", space.nvec.shape, "int64", tuple(map(int, space.nvec.ravel())))
        return _Leaf(path, spec, lambda value: np.asarray(value, np.int64) - start)
    if isinstance(space, spaces.MultiBinary):
        return _Leaf(path, ObservationSpec("multi_binary", space.shape, "int8"), lambda v: np.asarray(v, np.int8))
    raise SpaceError(f"observation '{name}': unsupported space {_short(space)}")


def _goal_leaf(space: Space, path: tuple[str | int, ...]) -> _Leaf:
    spec = _goal_spec(space, DESIRED_GOAL)
    ndim = len(space.shape or ())

    def convert(value: Any) -> Array:
        array = np.asarray(value, spec.dtype)
        return array.reshape(*array.shape[: array.ndim - ndim], *spec.shape)

    return _Leaf(path, spec, convert)


def _goal_spec(space: Space, name: str) -> ObservationSpec:
    """Goals as a box `[k, goal_dim]` of numbers; values of discrete goals are kept as the environment gives them."""
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise SpaceError(f"observation '{name}': expected goals as a Box [k, goal_dim], got {_short(space)}")
    shape = space.shape or (1,)
    if len(shape) > 2 or 0 in shape:
        raise SpaceError(f"observation '{name}': expected goals as a Box [k, goal_dim], got shape {shape}")
    dtype = _box_dtype(space) if isinstance(space, spaces.Box) else "int64"
    return ObservationSpec("box", shape if len(shape) == 2 else (1, shape[0]), dtype)


def _box_dtype(space: spaces.Box) -> str:
    return "float32" if space.dtype == np.float64 else str(space.dtype)


def _action_spec(space: Space) -> ActionSpec:
    if isinstance(space, spaces.Discrete):
        return ActionSpec("discrete", (), (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return ActionSpec("multi_discrete", (space.nvec.size,), tuple(map(int, space.nvec.ravel())))
    if isinstance(space, spaces.MultiBinary):
        return ActionSpec("multi_binary", (int(np.prod(space.shape, dtype=np.int64)),))
    if isinstance(space, spaces.Box) and np.dtype(space.dtype).kind in "fiu":
        return ActionSpec(
            "box",
            space.shape,
            low=tuple(map(float, space.low.ravel())),
            high=tuple(map(float, space.high.ravel())),
        )
    raise SpaceError(f"action: unsupported space {_short(space)}")


def _short(space: Space) -> str:
    """The space on one line of bounded length."""
    text = " ".join(repr(space).split())
    return text if len(text) <= 120 else text[:117] + "..."
