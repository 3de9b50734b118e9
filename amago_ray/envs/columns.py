"""Preallocated columns that collect the observations of environments one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from amago_ray.data.spaces import ObservationAdapter
from amago_ray.data.specs import ACTION_MASK, EnvSpec
from amago_ray.envs.env_batch import Observations
from amago_ray.errors import EnvError, SpaceError

Array = npt.NDArray[Any]


class ObservationColumns:
    """Rows of E environments: values are copied in, so an environment may reuse its buffers."""

    def __init__(self, spec: EnvSpec, num_envs: int) -> None:
        self.leaves: dict[str, Array] = {
            name: np.zeros((num_envs, *leaf.shape), leaf.dtype) for name, leaf in spec.observations.items()
        }
        self.action_mask: npt.NDArray[np.bool_] | None = (
            np.ones((num_envs, spec.action.mask_size), np.bool_) if spec.has_action_mask else None
        )
        # Where the mask of each action dimension begins.
        self._mask_starts = np.cumsum([0, *spec.action.num_categories[:-1]])
        self.achieved: list[Array] | None = None
        if spec.goal_dim:
            self.achieved = [np.zeros((0, spec.goal_dim), spec.goal_dtype)] * num_envs

    def put(
        self, index: int, leaves: Mapping[str, Array], mask: npt.NDArray[np.bool_] | None, achieved: Array | None
    ) -> None:
        """Copy in the rows that environment `index` shows; a mask of None allows everything.

        Raises:
            EnvError: the mask allows nothing.
        """
        for name, row in leaves.items():
            # Rows may have a leading axis of one.
            self.leaves[name][index : index + 1] = row
        if self.action_mask is not None:
            if mask is not None and not np.logical_or.reduceat(mask, self._mask_starts).all():
                raise EnvError(f"{ACTION_MASK}: expected at least one allowed action, got none")
            self.action_mask[index] = True if mask is None else mask
        if self.achieved is not None and achieved is not None:
            self.achieved[index] = achieved.copy()

    def clear(self, index: int) -> None:
        """Show nothing of environment `index`, and allow all its actions."""
        for column in self.leaves.values():
            column[index] = 0
        if self.action_mask is not None:
            self.action_mask[index] = True
        if self.achieved is not None:
            self.achieved[index] = self.achieved[index][:0]

    def rows(self, indices: npt.NDArray[np.int64] | None = None) -> Observations:
        """Columns of all environments, or a row for each of `indices`."""
        achieved = self.achieved if self.achieved is None or indices is None else [self.achieved[i] for i in indices]
        values, offsets = (None, None) if achieved is None else join_goals(achieved)
        mask = self.action_mask
        if indices is not None:
            mask = mask[indices] if mask is not None else None
        leaves = self.leaves if indices is None else {name: column[indices] for name, column in self.leaves.items()}
        return Observations(leaves, mask, values, offsets)


def read_leaves(adapter: ObservationAdapter, observation: Any) -> dict[str, Array]:
    """The stored leaves of one observation; leaves with a leading axis of one are read as well.

    Raises:
        SpaceError: a leaf is missing or does not fit its space; the message names it.
    """
    try:
        return adapter.rows(observation)
    except SpaceError:
        with suppress(SpaceError):
            return adapter.rows(observation, 1)
        raise


def join_goals(goals: Sequence[Array]) -> tuple[Array, npt.NDArray[np.int32]]:
    """Ragged goals, `[J, goal_dim]` each, as values and offsets."""
    offsets = np.zeros(len(goals) + 1, np.int32)
    np.cumsum([len(rows) for rows in goals], out=offsets[1:])
    return np.concatenate(goals), offsets


def split_goals(observations: Observations) -> list[Array] | None:
    """Inverse of `join_goals`; None where there are no goals."""
    values, offsets = observations.achieved_values, observations.achieved_offsets
    if values is None or offsets is None:
        return None
    return [values[first:last] for first, last in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
