"""What each role of a real run uses of the processors, beside what the run counts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring.load import PROC, TICKS_PER_S, TreeClock, parse_busy_ticks, read_processes

_TITLES = {
    "EnvRunner": "env runners",
    "ReplayShard": "replay shards",
    "Learner": "learners",
    "Control": "control actor",
    "Relay": "relays",
}
COUNTS = ("env_steps", "learner_steps", "inserted", "trained")


@dataclass(frozen=True)
class Usage:
    """A window of a run: seconds by the clock, growth of `COUNTS`, processor seconds by role and of others."""

    elapsed_s: float
    counts: Mapping[str, float]
    processor_s: Mapping[str, float]
    others_s: float

    @property
    def env_steps_per_s(self) -> float:
        """By the clock."""
        return self.counts["env_steps"] / self.elapsed_s


def role_of(command: str) -> str:
    """The role of a process of a run, by its command line as `/proc` shows it."""
    # "ray::EnvRunner(0)" or "ray::EnvRunnerActor.run", as Ray knows it.
    title = re.match(f"ray::({'|'.join(_TITLES)})", command)
    return "Ray and driver" if title is None else _TITLES[title.group(1)]


def counts_of(report: Mapping[str, float]) -> dict[str, float] | None:
    """`COUNTS` in a line of `metrics.jsonl`; None before anything was trained."""
    inserted = report.get("replay/inserted_timesteps", 0.0)
    if not report["learner_steps"] or not inserted:
        return None
    trained = report.get("replay/samples_per_insert", 0.0) * inserted
    return dict(zip(COUNTS, (report["env_steps"], report["learner_steps"], inserted, trained), strict=True))


def watch_run(config: str, overrides: Sequence[str], *, warm_up_s: float, window_s: float, timeout_s: float) -> Usage:
    """Train with these settings, without evaluations, and watch a window that begins so long after the first update.

    Raises:
        RuntimeError: the run ends, or the time is over, before the window does.
    """
    with tempfile.TemporaryDirectory(prefix="scale_") as folder:
        settings = [
            f"runs_dir={folder}",
            "name=scale",
            "evaluation.num_episodes=0",
            "stop.eval_success_rate=null",
            "stop.eval_return=null",
            "stop.env_steps=null",
            f"stop.time_s={timeout_s}",
            "report.interval_s=0.5",
            "report.loggers=[jsonl]",
            *overrides,
        ]
        output = Path(folder) / "output"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "amago_ray.cli", "train", config, *settings],
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        try:
            return _watch(process, Path(folder) / "scale" / "metrics.jsonl", warm_up_s, window_s, timeout_s)
        except RuntimeError as error:
            raise RuntimeError(f"{error}: {output.read_text()[-2000:]}") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=90)


@dataclass(frozen=True)
class _Point:
    time_s: float
    counts: Mapping[str, float]
    processor_s: Mapping[str, float]
    busy_s: float


def _watch(
    process: subprocess.Popen[bytes], metrics: Path, warm_up_s: float, window_s: float, timeout_s: float
) -> Usage:
    clock = TreeClock([process.pid])
    began, first_update, first, num_lines = time.monotonic(), None, None, 0
    while True:
        time.sleep(0.01)
        if process.poll() is not None or time.monotonic() - began > timeout_s:
            raise RuntimeError("the window did not end")
        lines = metrics.read_bytes().split(b"\n")[:-1] if metrics.exists() else []
        if len(lines) == num_lines:
            continue
        num_lines = len(lines)
        # Used by processes, and counted, at the same time.
        counts = counts_of(json.loads(lines[-1]))
        if counts is None:
            continue
        now = time.monotonic()
        first_update = first_update or now
        if now - first_update < warm_up_s:
            continue
        point = _Point(now, counts, _processor_s(clock), parse_busy_ticks((PROC / "stat").read_text()) / TICKS_PER_S)
        first = first or point
        if point.time_s - first.time_s >= window_s:
            break
    used = {role: point.processor_s[role] - first.processor_s.get(role, 0.0) for role in point.processor_s}
    return Usage(
        point.time_s - first.time_s,
        {name: point.counts[name] - first.counts[name] for name in COUNTS},
        used,
        max(point.busy_s - first.busy_s - sum(used.values()), 0.0),
    )


def _processor_s(clock: TreeClock) -> Counter[str]:
    """Seconds used so far, by role."""
    processes = read_processes()
    clock.look(processes)
    members = set(clock.living(processes))
    seconds: Counter[str] = Counter()
    for process in processes:
        if process.pid in members:
            try:
                command = (PROC / str(process.pid) / "cmdline").read_text()
            except OSError:
                continue
            seconds[role_of(command)] += process.cpu_ticks / TICKS_PER_S
    return seconds
