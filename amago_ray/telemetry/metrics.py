"""Reducing what happened to numbers: means, rates, statistics of episodes. Names are flat: `rollout/return_mean`.

A metric without a value is left out, never NaN.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

NestedMetrics = Mapping[str, Any]


class EpisodeOutcome(Protocol):
    """What is known of a finished episode; `success` is None where the environment knows no success."""

    @property
    def env_name(self) -> str:
        """Name of its environment in metrics."""
        ...

    @property
    def episode_return(self) -> float:
        """Sum of its rewards."""
        ...

    @property
    def length(self) -> int:
        """T, its transitions."""
        ...

    @property
    def success(self) -> float | None:
        """1 or 0, or None."""
        ...

    @property
    def events(self) -> Mapping[str, float]:
        """Other numbers that the environment reported, by name."""
        ...


Outcome = TypeVar("Outcome", bound=EpisodeOutcome)


def episode_metrics(episodes: Sequence[EpisodeOutcome], prefix: str) -> dict[str, float]:
    """Statistics over episodes: over all as `prefix/...`, and per environment as `prefix/<env name>/...`.

    Names: return_mean, return_bottom_quintile_mean (the worst fifth of the episodes, at least one), length_mean,
    success_rate, and the mean of each event under its own name with `_mean`. A "/" in an environment's name is
    written as ".". No episodes give no metrics.
    """
    metrics = _statistics(episodes, prefix)
    for env_name in sorted({episode.env_name for episode in episodes}):
        own = [episode for episode in episodes if episode.env_name == env_name]
        metrics |= _statistics(own, f"{prefix}/{env_name.replace('/', '.')}")
    return metrics


def _statistics(episodes: Sequence[EpisodeOutcome], prefix: str) -> dict[str, float]:
    if not episodes:
        return {}
    returns = sorted(episode.episode_return for episode in episodes)
    metrics = {
        f"{prefix}/return_mean": _mean(returns),
        f"{prefix}/return_bottom_quintile_mean": _mean(returns[: max(1, len(returns) // 5)]),
        f"{prefix}/length_mean": _mean([float(episode.length) for episode in episodes]),
    }
    successes = [episode.success for episode in episodes if episode.success is not None]
    if successes:
        metrics[f"{prefix}/success_rate"] = _mean(successes)
    for name in sorted({name for episode in episodes for name in episode.events} - {"success"}):
        values = [episode.events[name] for episode in episodes if name in episode.events]
        metrics[f"{prefix}/{name}_mean"] = _mean(values)
    return metrics


class EpisodeWindow(Generic[Outcome]):
    """The newest `size` episodes of each environment, and their statistics."""

    def __init__(self, size: int = 100) -> None:
        self._size = size
        self._recent: dict[str, deque[Outcome]] = {}

    def add(self, episodes: Iterable[Outcome]) -> None:
        """Take in finished episodes, oldest first."""
        for episode in episodes:
            self._recent.setdefault(episode.env_name, deque(maxlen=self._size)).append(episode)

    @property
    def episodes(self) -> list[Outcome]:
        """All episodes of the window, oldest first within an environment."""
        return [episode for recent in self._recent.values() for episode in recent]

    def metrics(self, prefix: str = "rollout") -> dict[str, float]:
        """`episode_metrics` of the window."""
        return episode_metrics(self.episodes, prefix)


class RateMeter:
    """Growth per second of running totals, over a sliding window of `window_s` seconds."""

    def __init__(self, window_s: float = 10.0) -> None:
        self._window_s = window_s
        self._history: deque[tuple[float, dict[str, float]]] = deque()

    def update(self, now_s: float, totals: Mapping[str, float]) -> None:
        """Take in the totals at `now_s`, a clock that never goes back."""
        self._history.append((now_s, dict(totals)))
        # The newest point outside the window stays, so that a rate always spans the whole window.
        while len(self._history) > 2 and now_s - self._history[1][0] >= self._window_s:
            self._history.popleft()

    def per_s(self) -> dict[str, float]:
        """Rate of each total that is in both ends of the window; empty before time has passed."""
        if len(self._history) < 2:
            return {}
        (start_s, first), (end_s, last) = self._history[0], self._history[-1]
        if end_s <= start_s:
            return {}
        return {name: (last[name] - first[name]) / (end_s - start_s) for name in last if name in first}


def finite(metrics: Mapping[str, float | None]) -> tuple[dict[str, float], list[str]]:
    """The metrics that have a finite value, and the names of the others."""
    kept = {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}
    return kept, [name for name in metrics if name not in kept]


def flatten(nested: NestedMetrics, prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a/b": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{path}/")
        else:
            flat[path] = value
    return flat


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
