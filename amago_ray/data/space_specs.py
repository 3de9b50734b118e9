"""Gymnasium spaces as array specs, and back: the only module of `data` that knows Gymnasium.

Observations become a flat dict of leaves, sorted by name. Nested Dict keys and Tuple positions are joined with "/"; an
observation that is neither Dict nor Tuple is the one leaf "observation". Leaves are stored as follows.

    Box            as it is; float64 as float32, the precision that networks read
    Box, image     uint8, channels first, `[C, H, W]`
    Discrete       int64, counted from 0 whatever the space's start
    MultiDiscrete  int64, counted from 0
    MultiBinary    int8

An image is a uint8 Box of one of these shapes:

    [H, W, C], [C, H, W]        the shorter of the first and last axis counts channels, the last where they are equal:
                                [3, 3, 3] is [H, W, C]. A stack of grey frames is an image of so many channels
    [F, H, W, C], [F, C, H, W]  F frames, and channels by the same rule; stored as F * C channels, frame after frame
    [H, W]                      grey, where the bounds are 0 and 255; others are tables, such as a board's pieces

Where that is not meant, the environment transposes its images, or shows tables in another integer dtype.

Goals: a Dict with `desired_goal` holds an instruction, stored as `[I, goal_dim]` (a single goal `[goal_dim]` becomes
`[1, goal_dim]`). `achieved_goal` is not a leaf, for the policy never sees it. `action_mask` is no leaf either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from amago_ray.data.specs import ACHIEVED_GOAL, ACTION_MASK, DESIRED_GOAL, OBSERVATION, ActionSpec, ObservationSpec
from amago_ray.errors import SpaceError

Space = gymnasium.Space[Any]
T = TypeVar("T")


@dataclass(frozen=True)
class ObservationSpaceSpec:
    """What an observation space holds.

    leaves: those that the policy reads, sorted by name. goal_dim, goal_dtype: of one achieved goal; goal_dim is 0 where
    the space has no `desired_goal`. has_achieved_goal: whether the observation itself carries them.
    mask_size: entries of its `action_mask` in all dimensions together, None where it carries none.
    """

    leaves: Mapping[str, ObservationSpec]
    goal_dim: int = 0
    goal_dtype: str = "float32"
    has_achieved_goal: bool = False
    mask_size: int | None = None


def read_observation_space(space: Space) -> ObservationSpaceSpec:
    """The spec of an observation space.

    Raises:
        SpaceError: a leaf of the space is not supported; the message names it.
    """
    leaves: dict[str, ObservationSpec] = {}
    if not isinstance(space, spaces.Dict):
        _collect(space, (), leaves)
        return ObservationSpaceSpec(dict(sorted(leaves.items())))
    goal = _goal_spec(space[DESIRED_GOAL], (DESIRED_GOAL,)) if DESIRED_GOAL in space.spaces else None
    hidden = {ACTION_MASK} if goal is None else {ACTION_MASK, ACHIEVED_GOAL}
    for key, child in space.spaces.items():
        if key not in hidden:
            _collect(child, (key,), leaves)
    mask_size = _mask_size(space[ACTION_MASK]) if ACTION_MASK in space.spaces else None
    if goal is None:
        return ObservationSpaceSpec(dict(sorted(leaves.items())), mask_size=mask_size)
    if ACHIEVED_GOAL in space.spaces:
        _check_achieved_goal(space[ACHIEVED_GOAL], goal)
    return ObservationSpaceSpec(
        dict(sorted(leaves.items())), goal.shape[-1], goal.dtype, ACHIEVED_GOAL in space.spaces, mask_size
    )


def read_action_space(space: Space) -> ActionSpec:
    """The spec of an action space.

    Raises:
        SpaceError: the space is not supported.
    """
    match space:
        case spaces.Discrete():
            return ActionSpec(
                "discrete", (), (int(space.n),), start=_start(space), space_dtype=_if_other(str(space.dtype), "int64")
            )
        case spaces.MultiDiscrete():
            return ActionSpec(
                "multi_discrete",
                (space.nvec.size,),
                tuple(map(int, space.nvec.ravel())),
                start=_start(space),
                space_shape=_if_other(space.nvec.shape, (space.nvec.size,)),
                space_dtype=_if_other(str(space.dtype), "int64"),
            )
        case spaces.MultiBinary():
            size = int(np.prod(space.shape, dtype=np.int64))
            return ActionSpec("multi_binary", (size,), space_shape=_if_other(space.shape, (size,)))
        case spaces.Box() if np.dtype(space.dtype).kind in "fiu":
            return ActionSpec(
                "box",
                space.shape,
                low=tuple(space.low.ravel().tolist()),
                high=tuple(space.high.ravel().tolist()),
                space_dtype=_if_other(str(space.dtype), "float32"),
            )
    raise SpaceError(f"action: unsupported space {_short(space)}")


def make_observation_space(spec: ObservationSpec) -> Space:
    """The Gymnasium space of a leaf that is shown as it is stored: Discrete, or a Box of the leaf's bounds."""
    if spec.kind == "discrete":
        return spaces.Discrete(spec.num_categories[0])
    return spaces.Box(spec.low[0], spec.high[0], spec.shape, np.dtype(spec.dtype).type)


def make_action_space(spec: ActionSpec) -> Space:
    """The Gymnasium space of an action that is taken as it is stored: Discrete, or a Box of the action's bounds."""
    if spec.kind == "discrete":
        return spaces.Discrete(spec.num_categories[0])
    low = np.asarray(spec.low, np.float32).reshape(spec.shape)
    high = np.asarray(spec.high, np.float32).reshape(spec.shape)
    return spaces.Box(low, high, dtype=np.float32)


def _collect(space: Space, path: tuple[str | int, ...], leaves: dict[str, ObservationSpec]) -> None:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        items = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, child in items:
            _collect(child, (*path, key), leaves)
        return
    name = "/".join(map(str, path)) or OBSERVATION
    if name in leaves:
        raise SpaceError(f"observation '{name}': two leaves have this name, for '/' joins nested keys")
    leaves[name] = _goal_spec(space, path) if path == (DESIRED_GOAL,) else _leaf_spec(space, path, name)


def _leaf_spec(space: Space, path: tuple[str | int, ...], name: str) -> ObservationSpec:
    match space:
        case spaces.Box() if np.dtype(space.dtype).kind in "fiub":
            shape, channel_axis = _image_shape(space)
            return _box_spec(space, shape, path, channel_axis)
        case spaces.Discrete():
            return ObservationSpec(
                "discrete",
                (),
                "int64",
                (int(space.n),),
                _start(space),
                space_dtype=_if_other(str(space.dtype), "int64"),
                path=path,
            )
        case spaces.MultiDiscrete():
            return ObservationSpec(
                "multi_discrete",
                space.nvec.shape,
                "int64",
                tuple(map(int, space.nvec.ravel())),
                _start(space),
                space_dtype=_if_other(str(space.dtype), "int64"),
                path=path,
            )
        case spaces.MultiBinary():
            return ObservationSpec("multi_binary", space.shape, "int8", path=path)
    raise SpaceError(f"observation '{name}': unsupported space {_short(space)}")


def _image_shape(space: spaces.Box) -> tuple[tuple[int, ...], int | None]:
    """The shape `[C, H, W]` in which an image is stored, and its channel axis; the space's own for what is no image."""
    shape = space.shape
    if space.dtype != np.uint8 or not 2 <= len(shape) <= 4:
        return shape, None
    if len(shape) == 2:
        is_grey = (space.low == 0).all() and (space.high == 255).all()
        return ((1, *shape), None) if is_grey else (shape, None)
    first = len(shape) - 3
    axis = len(shape) - 1 if shape[-1] <= shape[first] else first
    height, width = (length for place, length in enumerate(shape) if place >= first and place != axis)
    return (shape[axis] * (shape[0] if first else 1), height, width), axis


def _goal_spec(space: Space, path: tuple[str | int, ...]) -> ObservationSpec:
    """Goals as a box `[I, goal_dim]` of numbers; values of discrete goals are kept as the environment gives them."""
    name = path[0]
    if not isinstance(space, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        raise SpaceError(f"observation '{name}': expected goals as a Box [I, goal_dim], got {_short(space)}")
    shape = space.shape or (1,)
    if len(shape) > 2 or 0 in shape:
        raise SpaceError(f"observation '{name}': expected goals as a Box [I, goal_dim], got shape {shape}")
    shape = shape if len(shape) == 2 else (1, shape[0])
    if isinstance(space, spaces.Box):
        return _box_spec(space, shape, path)
    return ObservationSpec("box", shape, "int64", space_shape=_if_other(space.shape or (), shape), path=path)


def _check_achieved_goal(space: Space, desired: ObservationSpec) -> None:
    spec = _goal_spec(space, (ACHIEVED_GOAL,))
    if spec.shape[-1] != desired.shape[-1]:
        raise SpaceError(
            f"observation '{ACHIEVED_GOAL}': expected goals of {desired.shape[-1]} entries as in '{DESIRED_GOAL}', "
            f"got shape {space.shape}"
        )


def _box_spec(
    space: spaces.Box, shape: tuple[int, ...], path: tuple[str | int, ...], channel_axis: int | None = None
) -> ObservationSpec:
    dtype = np.dtype(space.dtype)
    stored = "float32" if dtype.kind == "f" and dtype.itemsize > 4 else dtype.name
    return ObservationSpec(
        "box",
        shape,
        stored,
        low=_bounds(space.low),
        high=_bounds(space.high),
        space_shape=_if_other(space.shape, shape),
        space_dtype=_if_other(dtype.name, stored),
        channel_axis=channel_axis,
        path=path,
    )


def _mask_size(mask: Space) -> int:
    if not isinstance(mask, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete):
        raise SpaceError(f"observation '{ACTION_MASK}': expected a MultiBinary or Box space, got {_short(mask)}")
    return int(np.prod(mask.shape, dtype=np.int64))


def _start(space: spaces.Discrete[Any] | spaces.MultiDiscrete) -> tuple[int, ...]:
    start = tuple(map(int, np.ravel(space.start)))
    return start if any(start) else ()


def _bounds(bound: npt.NDArray[Any]) -> tuple[float, ...]:
    flat = bound.ravel()
    return tuple((flat[:1] if (flat == flat[:1]).all() else flat).tolist())


def _if_other(own: T, stored: T) -> T | None:
    return None if own == stored else own


def _short(space: Space) -> str:
    """The space on one line of bounded length."""
    text = " ".join(repr(space).split())
    return text if len(text) <= 120 else text[:117] + "..."
