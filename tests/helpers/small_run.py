"""One small run, trained for real over an embedded local Ray by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SMALL = [
    "configs/quickstart.yaml",
    "rollout.num_envs_per_env_runner=4",
    "model.timestep_encoder.hidden_dim=16",
    "model.timestep_encoder.output_dim=16",
    "model.sequence_model.d_model=16",
    "model.sequence_model.num_layers=1",
    "model.policy_head.hidden_dim=16",
    "model.critic.hidden_dim=16",
    "learner.batch_size=4",
    "evaluation.num_episodes=8",
    "evaluation.num_envs=8",
    "evaluation.film_at_end=false",
    "checkpoint.interval_s=2",
    "report.interval_s=0.5",
    "cluster.dashboard=false",
    "stop.eval_success_rate=null",
]


class SmallRun:
    """A run of the small config in a directory of its own."""

    def __init__(self, runs_dir: Path) -> None:
        self.path = runs_dir / "small"
        self._arguments = [*SMALL, f"runs_dir={runs_dir}", "name=small"]

    def start(self, *arguments: str, stdout: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start `amago-ray train` in a process group of its own, as a shell does."""
        return subprocess.Popen(
            [sys.executable, "-m", "amago_ray.cli", "train", *self._arguments, *arguments],
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def train(self, *arguments: str) -> str:
        """Train to the end and return what was printed."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 0, output
        return output

    def metrics(self) -> Sequence[dict[str, float]]:
        """The reports so far."""
        path = self.path / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_until(self, condition: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 60) -> None:
        """Wait for the running process to reach a condition."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "the run did not get there in time"
            time.sleep(0.05)
