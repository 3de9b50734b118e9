"""The run's core rates as Ray metrics: in the Ray dashboard, and on every node's Prometheus port."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Gauge

_GAUGES = {
    "env_steps": "Environment steps of the run",
    "learner_steps": "Updates of the run",
    "time/env_steps_per_s": "Environment steps per second",
    "time/learner_steps_per_s": "Updates per second",
    "time/runner_lag_max": "Updates by which the oldest weights in use are behind",
    "replay/timesteps": "Transitions stored in replay",
    "replay/bytes": "Bytes of replay on disk",
}


class RayMetrics:
    """Gauges named `ray_amago_ray_<metric>` in Prometheus, one time series per run (no per-environment tags)."""

    def __init__(self, run: str) -> None:
        self._gauges: dict[str, Gauge] = {}
        for name, description in _GAUGES.items():
            gauge = Gauge(f"amago_ray_{name.replace('/', '_')}", description, tag_keys=("run",))
            gauge.set_default_tags({"run": run})
            self._gauges[name] = gauge

    def set(self, metrics: Mapping[str, float]) -> None:
        """Publish the values that there are."""
        for name, gauge in self._gauges.items():
            if name in metrics:
                gauge.set(metrics[name])
