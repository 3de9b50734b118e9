"""`WeightBoard`: the newest weights, and who acts with which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amago_ray.data.episode import PolicyVersion


class WeightBoard:
    """Holds a reference to the snapshot of the highest version, and knows each env runner's version."""

    def __init__(self, stuck_after_s: float) -> None:
        """A runner is stuck that has not taken newer weights for `stuck_after_s` though there are some."""
        self._stuck_after_s = stuck_after_s
        self._reference: Any = None
        self._runners: dict[int, tuple[PolicyVersion, float]] = {}
        self.version = PolicyVersion(-1, -1)
        """Of the newest snapshot; below every other where there is none."""

    def put(self, version: PolicyVersion, reference: Any) -> None:
        """Take over a newer snapshot; an older one, or the same again, changes nothing."""
        if version > self.version:
            self.version, self._reference = version, reference

    def newer_than(self, version: PolicyVersion) -> Sequence[Any]:
        """One reference to the newest snapshot, or none where `version` is as new.

        In a list, so that Ray does not resolve it.
        """
        return [self._reference] if self.version > version else []

    def seen(self, runner: int, version: PolicyVersion, now_s: float) -> str | None:
        """An env runner acts with `version`; returns a warning when it is stuck, once in `stuck_after_s`."""
        before, since_s = self._runners.get(runner, (None, now_s))
        if version != before or version >= self.version:
            since_s = now_s
        is_stuck = now_s - since_s > self._stuck_after_s
        self._runners[runner] = (version, now_s if is_stuck else since_s)
        if not is_stuck:
            return None
        return (
            f"env runner {runner}: still acts with weights of learner step {version.learner_steps}, "
            f"the newest are of {self.version.learner_steps}"
        )

    @property
    def num_runners(self) -> int:
        """Env runners seen so far."""
        return len(self._runners)

    def largest_lag(self) -> int | None:
        """Updates by which the oldest weights in use are behind; None where no runner has weights of this learner."""
        lags = [
            self.version.learner_steps - version.learner_steps
            for version, _ in self._runners.values()
            if version.incarnation == self.version.incarnation
        ]
        return max(lags, default=None)
