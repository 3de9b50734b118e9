"""The one conversion between what an environment shows and takes and the rows that are stored.

Works from specs alone, which `space_specs` reads from spaces, so that a policy needs no gymnasium. What does not fit is
refused, never bent: other shapes, NaN, fractions or numbers out of range where whole ones are stored. A Box is held to
its dtype, not to its bounds, which many environments overstep; infinity alone needs an infinite bound.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from amago_ray.data.specs import ACTION_MASK, ActionSpec, ObservationSpec
from amago_ray.errors import SpaceError

Array = npt.NDArray[Any]

# Up to this sum of squares, values are finite and fit into every stored dtype of at least 32 bits.
_MAX_SUM_OF_SQUARES = 1e30
# Of more values at a time, BLAS would sum with threads that are busy elsewhere.
_CHUNK = 8192


class ObservationAdapter:
    """Reads observations of one environment as stored leaves."""

    def __init__(self, leaves: Mapping[str, ObservationSpec]) -> None:
        self._leaves = [_Leaf(name, leaf, len(leaves) == 1) for name, leaf in sorted(leaves.items())]

    def rows(self, observation: Any, num_rows: int | None = None) -> dict[str, Array]:
        """Stored leaves, sorted by name, of one observation, or `[num_rows, ...]` of as many side by side.

        The observation is nested as its space is, or a mapping from leaf names, or the bare leaf where there is only
        one. Where num_rows is 1, a leaf may come without its leading axis. Results may be views of what is given.

        Raises:
            SpaceError: a leaf is missing or does not fit its space; the message names it.
        """
        return {leaf.name: leaf.row(leaf.find(observation), num_rows) for leaf in self._leaves}

    def check_keys(self, observation: Any, others: Container[str]) -> None:
        """Refuse what leads to no leaf and is not among `others`, at any depth of the observation.

        Raises:
            SpaceError: there is such a key; the message names it.
        """
        known: dict[tuple[str | int, ...], set[str | int]] = {(): {leaf.name for leaf in self._leaves}}
        for leaf in self._leaves:
            for depth, key in enumerate(leaf.path):
                known.setdefault(leaf.path[:depth], set()).add(key)
        _check_keys(observation, (), known, others)


class ActionAdapter:
    """Turns stored actions into those that an environment takes, and back.

    A Box is stored in [-1, 1] and rescaled linearly to the space's bounds, entry by entry; an entry whose low or high
    is infinite passes through as it is, clipped to the finite bound if it has one. A Box of integers is rounded.
    """

    def __init__(self, spec: ActionSpec) -> None:
        self.spec = spec
        self._shape = spec.shape if spec.space_shape is None else spec.space_shape
        self._dtype = np.dtype(spec.space_dtype or spec.dtype)
        if spec.kind == "box":
            self._low, self._high = _box_bounds(spec, spec.shape)
            bounded = np.isfinite(self._low) & np.isfinite(self._high)
            # Halves, for the difference of two numbers may be too large for float64.
            half_low, half_high = np.where(bounded, self._low, -1) / 2, np.where(bounded, self._high, 1) / 2
            self._scale, self._offset = half_high - half_low, half_high + half_low
        else:
            self._start = np.array(spec.start or 0, np.int64).reshape(self._shape if spec.start else ())

    def to_space(self, actions: Array) -> Array:
        """The environment's action of a stored action `[...]`, or those of a batch `[E, ...]`."""
        if self.spec.kind != "box":
            leading = actions.shape[: actions.ndim - len(self.spec.shape)]
            return np.asarray(actions.reshape((*leading, *self._shape)) + self._start, self._dtype)
        scaled = np.clip(actions, -1, 1) * self._scale + self._offset
        if self._dtype.kind in "iu":
            scaled = np.rint(scaled)
        # An array also where the box has no axes: Gymnasium's own check wants no bare number.
        return np.asarray(np.clip(scaled, self._low, self._high), self._dtype)

    def rows(self, actions: Any) -> Array:
        """The stored action of an environment's action `[...]`, or those of a batch `[E, ...]`."""
        array = np.asarray(actions)
        if self.spec.kind == "box":
            scaled = (array - self._offset) / np.where(self._scale == 0, 1, self._scale)
            return np.asarray(scaled, self.spec.dtype)
        leading = array.shape[: array.ndim - len(self._shape)]
        return np.asarray(array - self._start, self.spec.dtype).reshape((*leading, *self.spec.shape))

    def mask_rows(self, mask: Any, num_rows: int | None = None) -> npt.NDArray[np.bool_]:
        """The stored mask `[mask_size]` of one action mask of any shape, or `[num_rows, mask_size]` of as many.

        One mask may also be a tuple of one for each dimension, as Gymnasium's `MultiDiscrete.sample` takes it.

        Raises:
            SpaceError: the mask has another size, or is not of zeros and ones.
        """
        if isinstance(mask, tuple) and num_rows in (None, 1):
            mask = [entry for part in mask for entry in _as_array(ACTION_MASK, part).ravel()]
        array = _as_array(ACTION_MASK, mask)
        leading = () if num_rows is None else (num_rows,)
        self.check_mask_size(array.size // max(math.prod(leading), 1))
        shape = (*leading, self.spec.mask_size)
        if array.size != math.prod(shape) or (num_rows != 1 and array.shape[: len(leading)] != leading):
            raise SpaceError(f"{ACTION_MASK}: expected shape {list(shape)}, got {list(array.shape)}")
        if array.dtype != np.bool_:
            _whole_values(ACTION_MASK, array, 0, 1)
        return array.astype(np.bool_, copy=False).reshape(shape)

    def check_mask_size(self, size: int) -> None:
        """Refuse an action mask of another width than this action space needs.

        Raises:
            SpaceError: the mask does not fit, or the action space cannot be masked.
        """
        if size != self.spec.mask_size or not size:
            raise SpaceError(f"{ACTION_MASK}: expected {self.spec.mask_size} entries for {self.spec}, got {size}")


def goal_rows(value: Any, goal_dim: int, goal_dtype: str) -> Array:
    """Achieved goals as rows: a value of shape `[goal_dim]` or `[J, goal_dim]` as `[J, goal_dim]` of the stored dtype.

    Raises:
        SpaceError: the value is not made of rows of goal_dim entries, or of numbers that fit the dtype.
    """
    where = "achieved goals"
    array = _as_array(where, value)
    if array.size and (array.ndim > 2 or (array.shape[-1] if array.ndim else 1) != goal_dim):
        raise SpaceError(f"{where}: expected rows of {goal_dim} entries, got shape {list(array.shape)}")
    return _box_values(where, array, np.dtype(goal_dtype), -np.inf, np.inf).reshape(-1, goal_dim)


class _Leaf:
    """One stored leaf: where it is in the observation, and how its values are converted."""

    def __init__(self, name: str, spec: ObservationSpec, is_only: bool) -> None:
        self.name = name
        steps = tuple(int(step) if step.isdigit() else step for step in name.split("/"))
        self.path = steps if spec.path is None else spec.path
        self._spec = spec
        self._is_only = is_only
        self._where = f"observation '{name}'"
        self._shape = spec.shape if spec.space_shape is None else spec.space_shape
        self._stored = np.dtype(spec.dtype)
        self._first, self._last = np.zeros((), np.int64), np.ones((), np.int64)
        if spec.num_categories:
            counts = np.array(spec.num_categories, np.int64).reshape(self._shape)
            self._first = np.array(spec.start or [0] * counts.size, np.int64).reshape(self._shape)
            self._last = self._first + counts - 1
        self._lowest, self._highest = int(self._first.min()), int(self._last.max())
        axes = list(range(len(self._shape)))
        if spec.channel_axis is not None:
            axes.remove(spec.channel_axis)
            axes.insert(len(axes) - 2, spec.channel_axis)
        self._axes = None if axes == sorted(axes) else axes
        self._is_box = spec.kind == "box"
        self._is_arranged = self._axes is not None or self._shape != spec.shape

    def find(self, observation: Any) -> Any:
        """The leaf's value in an observation."""
        if self._is_only and isinstance(observation, np.ndarray):
            return observation
        if isinstance(observation, dict | Mapping):
            if self.name in observation:
                return observation[self.name]
        elif self._is_only and not (isinstance(observation, tuple) and self.path and isinstance(self.path[0], int)):
            return observation
        value = observation
        for key in self.path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                raise SpaceError(f"{self._where}: expected {self._spec}, got {_kind_of(observation)}") from None
        return value

    def row(self, value: Any, num_rows: int | None) -> Array:
        """The value as it is stored, checked."""
        array = _as_array(self._where, value)
        shape = self._shape if num_rows is None else (num_rows, *self._shape)
        if array.shape != shape:
            if num_rows != 1 or array.shape != self._shape:
                raise SpaceError(f"{self._where}: expected shape {list(shape)}, got {list(array.shape)}")
            array = array[None]
        if array.ndim == 0 and array.dtype.kind in "iu" and not self._is_box:
            # The same as below, in a third of the time: most discrete leaves are single numbers.
            number = array.item()
            if self._lowest <= number <= self._highest:
                return np.array(number - self._lowest, self._stored)
        if not self._is_box:
            return np.asarray(_whole_values(self._where, array, self._first, self._last) - self._first, self._stored)
        array = _box_values(self._where, array, self._stored, *self._bounds)
        if not self._is_arranged:
            return array
        if self._axes is not None:
            leading = 0 if num_rows is None else 1
            array = array.transpose(*range(leading), *(leading + axis for axis in self._axes))
        return array.reshape(self._spec.shape if num_rows is None else (num_rows, *self._spec.shape))

    @cached_property
    def _bounds(self) -> tuple[Array, Array]:
        return _box_bounds(self._spec, self._shape)


def _as_array(where: str, value: Any) -> Array:
    try:
        array: Array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise SpaceError(f"{where}: expected numbers of one shape, got {_kind_of(value)}") from error
    if array.dtype.kind not in "biuf":
        raise SpaceError(f"{where}: expected numbers, got {_kind_of(value)}")
    return array


def _box_values(where: str, array: Array, stored: np.dtype[Any], low: Array | float, high: Array | float) -> Array:
    """Values of a Box as it is stored; what is finite but too large for a float dtype becomes its largest number."""
    if array.dtype == stored and stored.kind != "f":
        return array
    if stored.kind != "f":
        if not np.can_cast(array.dtype, stored):
            first, last = (0, 1) if stored.kind == "b" else (int(np.iinfo(stored).min), int(np.iinfo(stored).max))
            _whole_values(where, array, first, last)
        return array.astype(stored)
    if not _is_moderate(array, stored):
        wrong = np.isnan(array) | ((array == np.inf) & (high < np.inf)) | ((array == -np.inf) & (low > -np.inf))
        if wrong.any():
            raise SpaceError(f"{where}: expected finite numbers, got {array[wrong][0]}")
        limit = np.finfo(stored).max
        array = np.where(np.isinf(array), array, np.clip(array, -limit, limit))
    return array.astype(stored, copy=False)


def _is_moderate(array: Array, stored: np.dtype[Any]) -> bool:
    """Whether no value can be NaN, infinite or too large for `stored`: the cheapest look at all of them at once."""
    values = array if array.dtype.kind == "f" and array.dtype.itemsize > 2 else array.astype(np.float32)
    limit = _MAX_SUM_OF_SQUARES if stored.itemsize > 2 else float(np.finfo(stored).max) ** 2
    if values.size <= _CHUNK:
        return bool(np.vdot(values, values) <= limit)
    flat = values.ravel()
    chunks = (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
    return all(np.vdot(chunk, chunk) <= limit for chunk in chunks)


def _whole_values(where: str, array: Array, first: Any, last: Any) -> Array:
    """The array, refused where it is not made of whole numbers from `first` to `last`; as integers."""
    if array.dtype.kind == "f":
        wrong = (array < first) | (array > (_at_most(last) if isinstance(last, int) else last))
        wrong |= array != np.rint(array)
    else:
        wrong = (array < first) | (array > last)
    if not np.count_nonzero(wrong):
        return array.astype(np.int64) if array.dtype.kind in "fb" else array
    entry = tuple(np.argwhere(wrong)[0])
    lowest, highest = (np.broadcast_to(bound, array.shape)[entry] for bound in (first, last))
    remedy = ""
    if array.dtype.kind == "f" and (lowest, highest) == (0, 255):
        remedy = f" ({array.dtype.name}): declare a Box of floats, or show round(255 * x) as uint8"
    raise SpaceError(f"{where}: expected whole numbers from {lowest} to {highest}, got {array[entry]:g}{remedy}")


def _box_bounds(spec: ObservationSpec | ActionSpec, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Bounds of a box's entries, infinite where not known; those that float64 cannot hold are moved inwards."""
    low = np.array([-_at_most(-bound) for bound in spec.low] or [-np.inf])
    high = np.array([_at_most(bound) for bound in spec.high] or [np.inf])
    return _spread(low, shape), _spread(high, shape)


def _spread(bounds: Array, shape: tuple[int, ...]) -> Array:
    return np.full(shape, bounds[0]) if bounds.size == 1 else bounds.reshape(shape)


def _at_most(bound: float) -> float:
    value = float(bound)
    return value if value <= bound else math.nextafter(value, -math.inf)


def _check_keys(
    value: Any,
    prefix: tuple[str | int, ...],
    known: Mapping[tuple[str | int, ...], Container[str | int]],
    others: Container[str],
) -> None:
    if prefix not in known or not isinstance(value, Mapping | tuple):
        return
    for key, child in value.items() if isinstance(value, Mapping) else enumerate(value):
        if key not in known[prefix] and key not in others:
            name = "/".join(map(str, (*prefix, key)))
            raise SpaceError(f"observation '{name}': expected no such leaf, got {_kind_of(child)}")
        _check_keys(child, (*prefix, key), known, others)


def _kind_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(str, list(value)[:8])) or 'no keys'}"
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype.name}{list(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__}"
