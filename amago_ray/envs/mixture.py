"""`MixtureBatch`: several batches of equal spaces side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amago_ray.data.specs import EnvSpec, difference
from amago_ray.envs.columns import ObservationColumns, split_goals
from amago_ray.envs.env_batch import EnvBatch, Observations, StepColumns
from amago_ray.errors import EnvError


class MixtureBatch:
    """The environments of `parts`, in their order, as one batch.

    Raises:
        EnvError: two parts differ in observations, actions, goals or masks; the message says where.
    """

    def __init__(self, parts: Sequence[EnvBatch]) -> None:
        self.spec = mixture_spec([part.spec for part in parts])
        self._parts = list(parts)
        self._firsts = np.cumsum([0, *(part.num_envs for part in parts)]).tolist()
        self.num_envs = self._firsts[-1]
        self.env_names: Sequence[str] = tuple(name for part in parts for name in part.env_names)
        self._columns = ObservationColumns(self.spec, self.num_envs)

    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Start a new episode in each of `indices`, with a seed each."""
        for part, first, last in self._slices():
            chosen = (indices >= first) & (indices < last)
            if chosen.any():
                self._put(indices[chosen], part.reset(indices[chosen] - first, seeds[chosen]))
        return self._columns.rows(indices)

    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Step all environments."""
        rewards = np.empty(self.num_envs, np.float32)
        terminated, truncated = np.empty((2, self.num_envs), np.bool_)
        valid = np.ones(self.num_envs, np.bool_)
        events, failures = [], []
        for part, first, last in self._slices():
            columns = part.step(actions[first:last])
            rewards[first:last] = columns.rewards
            terminated[first:last], truncated[first:last] = columns.terminated, columns.truncated
            if columns.valid is not None:
                valid[first:last] = columns.valid
            self._put(np.arange(first, last), columns.observations)
            events += [dataclasses.replace(event, index=event.index + first) for event in columns.events]
            failures += [dataclasses.replace(failure, index=failure.index + first) for failure in columns.failures]
        return StepColumns(self._columns.rows(), rewards, terminated, truncated, events, failures, valid)

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """An RGB picture of one environment."""
        for part, first, last in self._slices():
            if first <= index < last:
                return part.render(index - first)
        raise IndexError(f"environment {index} of {self.num_envs}")

    def close(self) -> None:
        """Close all parts."""
        for part in self._parts:
            part.close()

    def _slices(self) -> list[tuple[EnvBatch, int, int]]:
        return list(zip(self._parts, self._firsts[:-1], self._firsts[1:], strict=True))

    def _put(self, indices: npt.NDArray[np.int64], observations: Observations) -> None:
        for name, column in observations.leaves.items():
            self._columns.leaves[name][indices] = column
        if self._columns.action_mask is not None and observations.action_mask is not None:
            self._columns.action_mask[indices] = observations.action_mask
        goals = split_goals(observations)
        if self._columns.achieved is not None and goals is not None:
            for index, rows in zip(indices.tolist(), goals, strict=True):
                self._columns.achieved[index] = rows.copy()


def mixture_spec(specs: Sequence[EnvSpec]) -> EnvSpec:
    """The spec that all parts of a mixture share; its horizon is the longest, unknown where one is unknown.

    Raises:
        EnvError: two specs differ; the message names the part and the first difference.
    """
    first = specs[0]
    for other in specs[1:]:
        unlike = difference(first, other)
        if unlike:
            raise EnvError(f"env mixture: '{other.name}' does not fit '{first.name}': {unlike}")
    horizons = [spec.horizon for spec in specs]
    known = [horizon for horizon in horizons if horizon is not None]
    return dataclasses.replace(
        first,
        name="+".join(dict.fromkeys(spec.name for spec in specs)),
        horizon=max(known) if len(known) == len(horizons) else None,
    )


def allot(shares: Sequence[float], num_envs: int) -> list[int]:
    """How many of `num_envs` environments each part gets: in proportion to its share, and at least one.

    Raises:
        EnvError: there are fewer environments than parts.
    """
    if num_envs < len(shares):
        raise EnvError(f"env mixture: {num_envs} environments cannot hold {len(shares)} parts, each needs at least one")
    spare = num_envs - len(shares)
    exact = np.asarray(shares) / np.sum(shares) * num_envs
    # The one that every part gets counts towards its share.
    wanted = np.maximum(exact - 1, 0)
    wanted *= spare / max(wanted.sum(), 1e-9)
    extra = np.floor(wanted).astype(int)
    for index in np.argsort(extra - wanted, kind="stable")[: spare - extra.sum()]:
        extra[index] += 1
    return [1 + int(count) for count in extra]
