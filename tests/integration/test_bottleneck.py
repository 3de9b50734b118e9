"""The verdict of a real run over Ray, while one part after the other is made slow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.slow_parts import CONFIG, VARIABLE, slept_s, slow_down

pytestmark = pytest.mark.timeout(180)

SLOW = {
    "environment": {"environment": 0.005},
    "acting": {"acting": 0.04},
    "replay": {"replay": 0.05},
    "learner": {"learner": 0.2},
    "broadcast": {"broadcast": 0.4},
    # Both sides take as long, and may hardly run ahead: neither works while the other does.
    "governor": {"environment": 0.0025, "learner": 0.2},
}
INTERVAL_S = 0.6
WINDOW_S = 4 * INTERVAL_S
"""What a report's shares are about."""


class SlowRun:
    """A run that goes on, and its reports."""

    def __init__(self, directory: Path) -> None:
        self.commands = directory / "commands"
        slow_down(self.commands)
        config = {**CONFIG, "runs_dir": str(directory), "report": {"interval_s": INTERVAL_S}}
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
            status = json.loads(self._status.read_text()) if self._status.exists() else {"time": 0.0}
            if status["time"] > since and "bottleneck/learner_share" in status.get("metrics", {}):
                return status
            time.sleep(0.02)
        raise AssertionError("no report")

    def stop(self) -> None:
        """Ctrl-C."""
        os.killpg(self._process.pid, signal.SIGINT)
        output, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, output


@pytest.fixture
def slow_run(tmp_path: Path) -> Iterator[SlowRun]:
    run = SlowRun(tmp_path)
    yield run
    run.stop()


def test_the_verdict_names_the_slow_part_and_how_much_it_takes(slow_run: SlowRun) -> None:
    while slow_run.next_report(since=0)["metrics"]["learner_steps"] < 10:
        time.sleep(0.1)
    for part, seconds in SLOW.items():
        slow_down(slow_run.commands, **seconds)
        deadline = time.monotonic() + 20
        problem = "never reported"
        while problem:
            assert time.monotonic() < deadline, f"{part}: {problem}"
            problem = examine(slow_run, part)


def examine(run: SlowRun, part: str) -> str:
    """What is wrong with the verdict over a window that begins now; empty if nothing is."""
    began, slept_before = time.time(), slept_s(run.commands, part)
    report = run.next_report(since=began + WINDOW_S + INTERVAL_S / 2)
    slept = (slept_s(run.commands, part) - slept_before) / (time.time() - began)
    share, speedup = (report["metrics"][f"bottleneck/{part}_{what}"] for what in ("share", "speedup"))
    if not report["bottleneck"].startswith(f"{part} limits: {share:.0%} of the time"):
        return report["bottleneck"]
    if part == "governor":
        return "" if speedup > 1.2 else f"gain of {speedup}"
    return "" if abs(share - slept) < 0.2 and speedup > 1.5 else f"share {share}, slept {slept}, gain of {speedup}"
