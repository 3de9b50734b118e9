"""How rare goals are among the stored episodes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from amago_ray.data.episode import AchievedGoals


class GoalFrequencies:
    """Counts of achieved goals over the episodes in storage, per step or per episode.

    A goal's frequency is the share of steps (row 0 is none) in which, or of episodes in which, it was achieved.
    Counts follow from what is stored and nothing else, so a reopened shard has them again.
    """

    def __init__(self, unit: Literal["step", "episode"]) -> None:
        self._unit = unit
        self._counts: Counter[bytes] = Counter()
        self._total = 0

    def add(self, achieved: AchievedGoals) -> None:
        """Count an episode."""
        keys, total = self._read(achieved)
        self._counts.update(keys)
        self._total += total

    def remove(self, achieved: AchievedGoals) -> None:
        """Take back an episode that was counted."""
        keys, total = self._read(achieved)
        self._counts.subtract(keys)
        for key in set(keys):
            if not self._counts[key]:
                del self._counts[key]
        self._total -= total

    def rarity(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """-log10 of the frequency of each goal in `values [J, goal_dim]`; at least that of one seen once."""
        counts = np.array([self._counts.get(key, 1) for key in _keys(values)], np.float64)
        return -np.log10(np.minimum(counts / max(self._total, 1), 1.0))

    def _read(self, achieved: AchievedGoals) -> tuple[list[bytes], int]:
        keys = _keys(achieved.values[int(achieved.offsets[1]) :])
        if self._unit == "episode":
            return list(set(keys)), 1
        num_steps = len(achieved.offsets) - 2
        if len(keys) == num_steps and (np.diff(achieved.offsets) == 1).all():
            return keys, num_steps
        starts = achieved.offsets[1:] - achieved.offsets[1]
        return [key for a, b in pairwise(starts.tolist()) for key in set(keys[a:b])], num_steps


def _keys(values: npt.NDArray[np.generic]) -> list[bytes]:
    """The bytes of each row."""
    row_bytes = values.dtype.itemsize * values.shape[1]
    data = np.ascontiguousarray(values).tobytes()
    return [data[start : start + row_bytes] for start in range(0, len(data), row_bytes)]
