"""The quickstart's task for half an hour, with a replay that is full after minutes: `make soak`.

Every process's anonymous memory and open descriptors, and what the object store holds, are looked at again and again; a
straight line through the last two thirds says whether they grow. Counted as flat is what grows by less than `FLAT` of
its mean, or less than a few megabytes or descriptors, in that time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import conftest  # noqa: E402
import ray  # noqa: E402
from helpers.node_cluster import NodeCluster  # noqa: E402
from helpers.processes import anonymous_bytes, descendants, open_files  # noqa: E402
from helpers.watched_run import WatchedRun  # noqa: E402

INTERVAL_S = 5.0
FLAT = 0.05
FEW = {"MB": 8.0, "descriptors": 8.0}
SETTINGS = [
    "configs/quickstart.yaml",
    "stop.eval_success_rate=null",
    "stop.env_steps=null",
    "rollout.num_env_runners=2",
    "replay.num_shards=2",
    "replay.capacity_timesteps=40_000",
    "checkpoint.interval_s=30",
    "evaluation.film_at_end=false",
    "report.loggers=[console,jsonl]",
]

Series = dict[tuple[str, str], list[tuple[float, float]]]
"""Of a process and a unit: seconds and amounts."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, help="a JSON file for the table")
    options = parser.parse_args()
    assert conftest.TESTS == ROOT / "tests", "it has set up this process for tests"
    series: Series = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="soak_") as directory:
        cluster = NodeCluster(4)
        try:
            settings = [*SETTINGS, f"stop.time_s={options.minutes * 60:g}", "--address", cluster.address]
            run = WatchedRun(Path(directory), settings, name="soak", root=os.getpid())
            run.start()
            try:
                run.wait_until_trained()
                look_on(run, series)
            finally:
                run.end()
            code, last = run.process.returncode, run.last
        finally:
            cluster.close()
    table = [row for key in sorted(series) if (row := summary(*key, series[key])) is not None]
    for row in table:
        grows = "" if row["flat"] else "   GROWS"
        print(f"{row['what']:<34}{row['mean']:>10.1f} {row['unit']:<12}{row['per_hour']:>+10.1f} per hour{grows}")
    print(f"env steps {last['env_steps']:,.0f}, learner steps {last['learner_steps']:,.0f}, exit code {code}")
    if options.out is not None:
        counts = {name: last[name] for name in ("env_steps", "learner_steps", "replay/evicted_episodes")}
        found = {"minutes": options.minutes, **counts, "exit_code": code, "table": table}
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if code == 0 and table and all(row["flat"] for row in table) else 1


def look_on(run: WatchedRun, series: Series) -> None:
    """Look at every process until the run ends."""
    began_s = time.monotonic()
    while run.is_running:
        now_s = time.monotonic() - began_s
        for pid, title in descendants(os.getpid()).items():
            # Gone meanwhile.
            with suppress(OSError):
                name = named(title)
                series[name, "MB"].append((now_s, anonymous_bytes(pid) / 1e6))
                series[name, "descriptors"].append((now_s, len(open_files(pid))))
        total, free = ray.cluster_resources(), ray.available_resources()
        held = total["object_store_memory"] - free.get("object_store_memory", 0.0)
        series["object store", "MB"].append((now_s, held / 1e6))
        time.sleep(INTERVAL_S)


def named(title: str) -> str:
    """What a process is, from its title; equal ones share a name."""
    if match := re.match(r"ray::(\w+)", title):
        return match[1]
    if "amago_ray.cli" in title:
        return "driver"
    words = title.split()
    scripts = [word for word in words[:4] if word.endswith(".py")]
    return Path(scripts[0] if scripts else words[0]).name


def summary(what: str, unit: str, points: list[tuple[float, float]]) -> dict[str, object] | None:
    """A row of the table; None for what was seen too seldom."""
    seconds, amounts = np.array(points).T
    kept = seconds > seconds[-1] / 3
    seconds, amounts = seconds[kept], amounts[kept]
    if np.ptp(seconds) < 60 or len(seconds) < 10:
        return None
    slope = float(np.polyfit(seconds, amounts, 1)[0])
    growth, mean = slope * float(np.ptp(seconds)), float(amounts.mean())
    flat = growth < max(FLAT * mean, FEW[unit])
    return {"what": what, "unit": unit, "mean": round(mean, 1), "per_hour": round(slope * 3600, 1), "flat": bool(flat)}


if __name__ == "__main__":
    sys.exit(main())
