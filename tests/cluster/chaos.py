"""The quickstart's task on three nodes while a killer is at large: `make chaos`.

Every 10 to 20 seconds a process of a random actor gets SIGKILL, and once a node goes, for which another one comes. At
the end the task must be solved, the books must be right, and no count may have fallen. The seed fixes the moments and
the choices among the actors that live then.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

import conftest  # noqa: E402
from helpers.ledger import close_books  # noqa: E402
from helpers.node_cluster import NodeCluster  # noqa: E402
from helpers.processes import actors  # noqa: E402
from helpers.watched_run import WatchedRun  # noqa: E402

SOLVED = 0.9
PEACE_S = 60.0
"""At the end nobody is killed for so long."""
SETTINGS = [
    "configs/quickstart.yaml",
    "stop.eval_success_rate=null",
    "stop.env_steps=null",
    "rollout.num_env_runners=2",
    "replay.num_shards=2",
    "checkpoint.interval_s=10",
    "evaluation.interval_env_steps=5000",
    "evaluation.film_at_end=false",
    "report.loggers=[console,jsonl]",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long the run takes, with a minute of peace")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for what was seen")
    options = parser.parse_args()
    assert conftest.TESTS == ROOT / "tests", "it has set up this process for tests"
    with tempfile.TemporaryDirectory(prefix="chaos_") as directory:
        cluster = NodeCluster(2, 2, 2)
        try:
            seen = train(Path(directory), cluster, options.minutes * 60, random.Random(options.seed))
        finally:
            cluster.close()
    seen = {"seed": options.seed, "minutes": options.minutes, **seen}
    print(json.dumps(seen, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(seen, indent=1) + "\n")
    return 0 if not seen["wrong"] else 1


def train(directory: Path, cluster: NodeCluster, time_s: float, rng: random.Random) -> dict[str, Any]:
    """Train for so long under the killer; returns what was seen."""
    settings = [*SETTINGS, f"stop.time_s={time_s:g}", "--address", cluster.address]
    run = WatchedRun(directory, settings, name="chaos", root=os.getpid())
    run.start()
    killed: Counter[str] = Counter()
    try:
        run.wait_until_trained()
        until_s = time.monotonic() + time_s - PEACE_S
        node_at_s = time.monotonic() + rng.uniform(0.3, 0.7) * (time_s - PEACE_S)
        while run.is_running and time.monotonic() < until_s:
            time.sleep(min(rng.uniform(10, 20), max(until_s - time.monotonic(), 0)))
            if time.monotonic() > node_at_s:
                node_at_s = float("inf")
                node = rng.choice(cluster.nodes[1:])
                killed["node"] += 1
                killed.update(
                    f"{actor.kind} with its node" for actor in actors(os.getpid()) if cluster.node_of(actor.pid) is node
                )
                cluster.remove(node)
                cluster.add(2)
            elif found := actors(os.getpid()):
                victim = rng.choice(found)
                with suppress(ProcessLookupError):
                    os.kill(victim.pid, signal.SIGKILL)
                    killed[victim.kind] += 1
        code = run.process.wait(timeout=PEACE_S + 240)
    finally:
        run.end()
    wrong = [] if code == 0 else [f"exit code {code}: {run.output[-1000:]}"]
    success = run.last.get("eval/success_rate", 0.0)
    if success < SOLVED:
        wrong.append(f"success {success:.2f}, expected {SOLVED}")
    books: dict[str, int] = {}
    try:
        closed = close_books(run.path / "replay", run.reports)
        books = vars(closed)
        num_silent = sum(count for kind, count in killed.items() if kind.startswith("EnvRunnerActor"))
        closed.check(num_silent_runners=num_silent)
    except AssertionError as error:
        wrong.append(str(error))
    last = run.last
    return {
        "killed": dict(sorted(killed.items())),
        "success": success,
        "env_steps": last["env_steps"],
        "learner_steps": last["learner_steps"],
        "books": books,
        "warnings": run.num_warnings(""),
        "wrong": wrong,
    }


if __name__ == "__main__":
    sys.exit(main())
