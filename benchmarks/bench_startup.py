"""From the launch of `amago-ray train` to its first update, Ray's own start included: seconds to each stage.

Launches the command several times, each with a Ray and a run directory of its own, and ends it at its first update.
Beside wall time stands what the command's processes used of the processors, and what others did meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measuring.load import LoadWindow
from measuring.machine import commit, hardware, now

STAGES = ("parts made", "first report", "first episode", "first update", "processor s", "others' s")


def launch(config: str, overrides: Sequence[str], name: str, timeout_s: float) -> dict[str, float]:
    """Seconds from the launch to each stage, then processor seconds of the command and of others.

    Raises:
        RuntimeError: the run ends, or the time is over, before the first update.
    """
    with tempfile.TemporaryDirectory(prefix="startup_") as folder:
        run = Path(folder) / name
        settings = [f"runs_dir={folder}", "report.interval_s=0.05", "report.loggers=[jsonl]", *overrides]
        command = [sys.executable, "-m", "amago_ray.cli", "train", config, f"--name={name}", *settings]
        output = Path(folder) / "output"
        with output.open("wb") as file:
            began = time.time()
            process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            with LoadWindow([process.pid], interval_s=0.1) as window:
                stages = follow(run, began, process, timeout_s)
        except RuntimeError as error:
            raise RuntimeError(f"{error}: {output.read_text()}") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=60)
        return {**stages, "processor s": window.load.tree_cpu_s, "others' s": window.load.other_cpu_s}


def follow(run: Path, began: float, process: subprocess.Popen[bytes], timeout_s: float) -> dict[str, float]:
    """Seconds from `began` (Unix time) to the stages that the run's files tell."""
    metrics = run / "metrics.jsonl"
    stages: dict[str, float] = {}
    while "first update" not in stages:
        time.sleep(0.01)
        if process.poll() is not None or time.time() - began > timeout_s:
            raise RuntimeError("no first update")
        if (run / "config.yaml").exists():
            # Written when everything that the run needs has been made.
            stages.setdefault("parts made", (run / "config.yaml").stat().st_mtime - began)
        for line in metrics.read_bytes().split(b"\n")[:-1] if metrics.exists() else []:
            report = json.loads(line)
            stages.setdefault("first report", report["unix_time_s"] - began)
            for stage, counter in (("first episode", "episodes"), ("first update", "learner_steps")):
                if report[counter] > 0:
                    stages.setdefault(stage, report["unix_time_s"] - began)
    return stages


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="quickstart")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings to change")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--timeout-s", type=float, default=120)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    arguments = parser.parse_args()

    print("  ".join(f"{stage:>13}" for stage in STAGES))
    launches = []
    for _ in range(arguments.repeats):
        launches.append(launch(arguments.config, arguments.overrides, "startup", arguments.timeout_s))
        print("  ".join(f"{launches[-1][stage]:13.2f}" for stage in STAGES), flush=True)
    medians = {stage: statistics.median(each[stage] for each in launches) for stage in STAGES}
    print("  ".join(f"{medians[stage]:13.2f}" for stage in STAGES), "median")
    if arguments.out:
        settings = {"config": arguments.config, "overrides": arguments.overrides}
        about = {"time": now(), "commit": commit(Path(__file__).parents[1]), **hardware(), **settings}
        arguments.out.write_text(json.dumps({**about, "median": medians, "launches": launches}, indent=1))


if __name__ == "__main__":
    main()
