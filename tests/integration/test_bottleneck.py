"""The verdict of a real run over Ray, while one part after the other is made slow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.slow_parts import CONFIG, VARIABLE, slow_down

pytestmark = pytest.mark.timeout(400)

SLOW = {
    "environment": {"environment": 0.005},
    "acting": {"acting": 0.04},
    "replay": {"replay": 0.05},
    "learner": {"learner": 0.2},
    "broadcast": {"broadcast": 0.4},
}
TRIED_S = 60
"""A verdict must be right by then: a busy machine's first windows may hold other work."""


class SlowRun:
    """A run that goes on, and its reports."""

    def __init__(self, directory: Path, interval_s: float, settings: dict[str, Any]) -> None:
        self.commands = directory / "commands"
        self.window_s = 4 * interval_s
        """What a report's shares are about."""
        slow_down(self.commands)
        config = {**CONFIG, **settings, "runs_dir": str(directory), "report": {"interval_s": interval_s}}
        (directory / "slow.yaml").write_text(yaml.safe_dump(config))
        self._status = directory / CONFIG["name"] / "status.json"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "amago_ray.cli", "train", str(directory / "slow.yaml")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=directory,
            env={**os.environ, VARIABLE: str(self.commands)},
            start_new_session=True,
        )

    def next_report(self, since: float) -> dict[str, Any]:
        """The status that a report after `since` (Unix time) left."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self._process.communicate()[0]
            status = json.loads(self._status.read_text()) if self._status.exists() else {"unix_time_s": 0.0}
            if status["unix_time_s"] > since and "bottleneck/learner_share" in status.get("metrics", {}):
                return status
            time.sleep(0.02)
        raise AssertionError("no report")

    def report_on_a_window(self) -> dict[str, Any]:
        """The status whose shares are about a window that begins now."""
        return self.next_report(since=time.time() + 1.125 * self.window_s)

    def stop(self) -> None:
        """Ctrl-C."""
        os.killpg(self._process.pid, signal.SIGINT)
        output, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, output


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., SlowRun]]:
    runs = []

    def start_run(interval_s: float, **settings: Any) -> SlowRun:
        runs.append(SlowRun(tmp_path, interval_s, settings))
        return runs[-1]

    yield start_run
    for run in runs:
        run.stop()


def test_the_verdict_names_the_slow_part(start: Callable[..., SlowRun]) -> None:
    run = start(interval_s=0.6)
    while run.next_report(since=0)["metrics"]["learner_steps"] < 10:
        time.sleep(0.1)
    for part, seconds in SLOW.items():
        slow_down(run.commands, **seconds)
        deadline = time.monotonic() + TRIED_S
        while problem := examine(run, part):
            assert time.monotonic() < deadline, f"{part}: {problem}"


def test_the_verdict_names_the_governor_where_both_sides_wait_for_each_other(start: Callable[..., SlowRun]) -> None:
    # An update uses up eight episodes, and the one environment may run two or three ahead: so five are collected while
    # the learner waits, and for most of an update, which takes as long as eight episodes, the environment waits.
    run = start(interval_s=1.2, rollout={"num_envs_per_env_runner": 1}, learner={**CONFIG["learner"], "batch_size": 16})
    slow_down(run.commands, environment=0.003, learner=1.3)
    deadline = time.monotonic() + TRIED_S
    named = False
    while not named:
        report = run.report_on_a_window()
        assert time.monotonic() < deadline, report["bottleneck"]
        named = report["bottleneck"].startswith("governor limits")


def examine(run: SlowRun, part: str) -> str:
    """What is wrong with the verdict over a window that begins now; empty if nothing is."""
    report = run.report_on_a_window()
    share = report["metrics"][f"bottleneck/{part}_share"]
    named = report["bottleneck"].startswith(f"{part} limits: {share:.0%} of the time")
    return "" if named else report["bottleneck"]
