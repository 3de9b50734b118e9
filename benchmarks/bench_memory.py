"""Anonymous memory (RssAnon, without mapped files) of a run's processes over Ray, at their largest while it trains.

Starts `amago-ray train` and looks into `/proc` until the run has made so many updates. With `--pixels` instead: what a
runner of 16 environments with pictures takes, one of which plays a single episode of 10,000 steps.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring.load import PROC, TreeClock, read_processes
from measuring.machine import commit, hardware, now

KINDS = {
    "EnvRunner": "env runner",
    "ReplayShard": "replay shard",
    "Learner": "learner",
    "Evaluator": "evaluator",
    "Control": "control",
    "amago_ray.cli": "driver",
}

PIXEL_STEPS = 10_000


def kind_of(command: str) -> str | None:
    """What a process does in the run, by its command line; actors are named by Ray."""
    actor = re.match(r"ray::(\S+)", command)
    where = actor[1].rpartition(":")[2] if actor else command
    return next((kind for part, kind in KINDS.items() if part in where), None)


def measure(config: str, overrides: Sequence[str], updates: int, timeout_s: float) -> dict[str, float]:
    """The largest RssAnon in MB of each kind of process, until the run has made `updates`.

    Raises:
        RuntimeError: the run ends, or the time is over, before.
    """
    with tempfile.TemporaryDirectory(prefix="memory_") as folder:
        settings = [f"runs_dir={folder}", "report.loggers=[jsonl]", *overrides]
        command = [sys.executable, "-m", "amago_ray.cli", "train", config, "--name=memory", *settings]
        output, metrics = Path(folder) / "output", Path(folder) / "memory" / "metrics.jsonl"
        with output.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        tree = TreeClock([process.pid])
        largest: dict[str, float] = {}
        began = time.monotonic()
        try:
            while not metrics.exists() or num_updates(metrics) < updates:
                if process.poll() is not None or time.monotonic() - began > timeout_s:
                    raise RuntimeError(f"the run made fewer than {updates} updates: {output.read_text()}")
                processes = read_processes()
                tree.look(processes)
                for pid in tree.living(processes):
                    look(pid, largest)
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=60)
    return largest


def num_updates(metrics: Path) -> int:
    """Updates that the newest report counts."""
    lines = metrics.read_bytes().split(b"\n")[:-1]
    return json.loads(lines[-1])["learner_steps"] if lines else 0


def measure_pixels(role: str) -> dict[str, float]:
    """RssAnon in MB that a runner adds to this process, at its largest, while one of 16 environments plays on.

    The others' episodes end every 100 steps and are let go.
    """
    from amago_ray.acting.env_runner import make_env_runner
    from amago_ray.acting.evaluation import make_evaluation_runner
    from amago_ray.config.load import config_from_dict

    envs = [
        {"id": "measuring.pixels:Pixels", "kwargs": {"length": length}, "share": share}
        for length, share in ((PIXEL_STEPS, 1), (100, 15))
    ]
    small = {"hidden_dim": 8, "output_dim": 8}
    model = {"timestep_encoder": {"kind": "mlp", **small}, "sequence_model": {"d_model": 8, "context_length": 64}}
    rollout = {"num_envs_per_env_runner": 16}
    exploration = {"kind": "epsilon_greedy"}
    config = config_from_dict({"env": envs, "model": model, "rollout": rollout, "exploration": exploration})
    if role == "collecting":
        runner = make_env_runner(config, run_id=0, runner=0, incarnation=0)
    else:
        runner = make_evaluation_runner(config, config.envs[0], 16, 0, greedy=False)
    before = largest = rss_anon_mb("self")
    for _ in range(PIXEL_STEPS):
        runner.step()
        runner.take_episodes()
        largest = max(largest, rss_anon_mb("self"))
    return {role: largest - before}


def rss_anon_mb(pid: int | str) -> float:
    """Anonymous memory of a process."""
    found = re.search(r"RssAnon:\s+(\d+) kB", (PROC / str(pid) / "status").read_text())
    return int(found[1]) * 1024 / 1e6 if found is not None else 0.0


def look(pid: int, largest: dict[str, float]) -> None:
    """Raise the figure of a process's kind to what it has now."""
    try:
        command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        megabytes = rss_anon_mb(pid)
    except OSError:
        return  # It ended while we read.
    kind = kind_of(command)
    if kind is not None:
        largest[kind] = max(largest.get(kind, 0.0), megabytes)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings to change")
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--timeout-s", type=float, default=300)
    parser.add_argument("--pixels", choices=("collecting", "evaluating"), help="measure one runner of pictures instead")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()

    settings: dict[str, Any]
    if arguments.pixels:
        settings = {"pixels": arguments.pixels, "steps": PIXEL_STEPS}
        largest = measure_pixels(arguments.pixels)
    else:
        overrides = ["rollout.num_envs_per_env_runner=64", *arguments.overrides]
        settings = {"config": arguments.config, "overrides": overrides, "updates": arguments.updates}
        largest = measure(arguments.config, overrides, arguments.updates, arguments.timeout_s)
    for kind, megabytes in sorted(largest.items(), key=lambda pair: -pair[1]):
        print(f"{kind:<14} {megabytes:6.0f} MB")
    if arguments.out:
        about = {"time": now(), "commit": commit(Path(__file__).parents[1]), **hardware(), **settings}
        arguments.out.write_text(json.dumps({**about, "rss_anon_mb": largest}, indent=1))


if __name__ == "__main__":
    main()
