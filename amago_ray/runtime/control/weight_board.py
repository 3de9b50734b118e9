"""`WeightBoard`: the newest weights, and who acts with which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from amago_ray.data.episode import PolicyVersion
from amago_ray.runtime.protocol.runner_rows import with_rows_for

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

_MOST_NAMED = 3


class WeightBoard:
    """Holds a reference to the snapshot of the highest version, and knows each env runner's version."""

    def __init__(self, stuck_after_s: float) -> None:
        """A runner is stuck that has not taken newer weights for `stuck_after_s` though there are some."""
        self._stuck_after_s = stuck_after_s
        self._reference: Any = None
        self._versions = np.zeros((0, 2), np.int64)
        self._since_s = np.zeros(0)
        """Since when it has this version, or was last said to be stuck; NaN where there is no runner."""
        self.version = PolicyVersion(-1, -1)
        """Of the newest snapshot; below every other where there is none."""

    def put(self, version: PolicyVersion, reference: Any) -> None:
        """Take over a newer snapshot; an older one, or the same again, changes nothing."""
        if version > self.version:
            self.version, self._reference = version, reference

    def newest(self) -> Sequence[Any]:
        """One reference to the newest snapshot, or none. In a list, so that Ray does not resolve it."""
        return [] if self._reference is None else [self._reference]

    def is_older(self, versions: Int[np.ndarray, "R 2"]) -> Bool[np.ndarray, " R"]:
        """Of each version, whether there is a newer snapshot."""
        incarnation, learner_steps = self.version
        is_older: np.ndarray = versions[:, 0] < incarnation
        is_older |= (versions[:, 0] == incarnation) & (versions[:, 1] < learner_steps)
        return is_older

    def seen(self, runners: Int[np.ndarray, " R"], versions: Int[np.ndarray, "R 2"], now_s: float) -> Sequence[str]:
        """Env runners act with these versions; returns a warning of each that is stuck, once in `stuck_after_s`.

        Many that are stuck at once are told in one warning.
        """
        self._versions = with_rows_for(runners, self._versions, -1)
        self._since_s = with_rows_for(runners, self._since_s, np.nan)
        is_older = self.is_older(versions)
        is_same = (versions == self._versions[runners]).all(1) & ~np.isnan(self._since_s[runners])
        is_stuck = is_older & is_same & (now_s - self._since_s[runners] > self._stuck_after_s)
        self._versions[runners] = versions
        self._since_s[runners] = np.where(is_older & is_same & ~is_stuck, self._since_s[runners], now_s)
        newest = f"the newest are of {self.version.learner_steps}"
        stuck = list(zip(runners[is_stuck].tolist(), versions[is_stuck, 1].tolist(), strict=True))
        if len(stuck) > _MOST_NAMED:
            first = ", ".join(str(runner) for runner, _ in stuck[:_MOST_NAMED])
            oldest = min(learner_steps for _, learner_steps in stuck)
            return [
                f"{len(stuck)} env runners ({first}, ...): still act with weights of learner step {oldest} and later, "
                f"{newest}"
            ]
        return [
            f"env runner {runner}: still acts with weights of learner step {learner_steps}, {newest}"
            for runner, learner_steps in stuck
        ]

    def gone(self, runner: int) -> None:
        """An env runner has left."""
        if runner < len(self._since_s):
            self._since_s[runner] = np.nan

    def largest_lag(self) -> int | None:
        """Updates by which the oldest weights in use are behind; None where no runner has weights of this learner."""
        incarnation, learner_steps = self.version
        is_of_it = ~np.isnan(self._since_s) & (self._versions[:, 0] == incarnation)
        return int(learner_steps - self._versions[is_of_it, 1].min()) if is_of_it.any() else None
