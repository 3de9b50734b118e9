"""Ours against the original AMAGO, on the same works in one run; without a peer, ours alone.

    python benchmarks/versus_amago.py --peer ~/amago --peer-python ~/amago/.venv/bin/python --suite acting

--peer is a checkout of the original, --peer-python the Python of an environment in which it can be imported. Sides are
measured in turns (A B A B), each waiting idle while the other works. Prints a table for each suite and writes
<date>_<hardware>.md and .json; a suite that is measured again on the same day replaces its earlier entry.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import machine
from measuring.floors import Ceilings, acting_floor, update_floor
from measuring.protocol import Side, SideError, run_watched
from measuring.report import render_suite, write
from measuring.works import SUITES, ActingWork, LearningWork, SolvingWork, describe

HERE = Path(__file__).parent
UNITS = {"acting": "env steps/s", "learning": "ms per update", "solve": "s from launch to goal"}
ORIGINAL_ENVS = 24


@dataclass(frozen=True)
class Contender:
    """How one side is started for one work."""

    whose: str
    name: str
    command: Sequence[str]


class Versus:
    """Measures suites within a budget of wall time each."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._logs = 0

    def run(self, suite: str) -> dict[str, Any]:
        """All works of a suite."""
        works = [work for work in SUITES[suite] if self._options.only in work.name]
        began, deadline = machine.now(), time.monotonic() + self._options.budget_s
        results = []
        for index, work in enumerate(works):
            share_s = (deadline - time.monotonic()) / (len(works) - index)
            print(f"{suite}: {work.name} (at most {share_s:.0f} s)", file=sys.stderr, flush=True)
            result = self._solve(work, share_s) if isinstance(work, SolvingWork) else self._rates(suite, work, share_s)
            results.append({"name": work.name, "target": work.target, "work": describe(work), **result})
        return {
            "began": began,
            "unit": UNITS[suite],
            "more_is_better": suite == "acting",
            "commit": machine.commit(HERE),
            "peer_commit": None if self._options.peer is None else machine.commit(self._options.peer),
            "versions": machine.versions(["amago_ray", "torch", "numpy", "ray", "gymnasium"]),
            "works": results,
        }

    def _rates(self, suite: str, work: ActingWork | LearningWork, share_s: float) -> dict[str, Any]:
        """Repetitions in turns, between sides that all stay set up."""
        deadline = time.monotonic() + share_s
        entries, sides = [], []
        try:
            for contender in self._contenders(suite, work):
                entry = {"whose": contender.whose, "name": contender.name, "error": None, "repetitions": []}
                entries.append(entry)
                try:
                    side = Side(contender.command, log=self._log(), timeout_s=deadline - time.monotonic())
                except SideError as error:
                    entry["error"] = str(error)
                else:
                    entry["facts"] = side.facts
                    sides.append((entry, side))
            for _ in range(self._options.repeats or 5):
                began = time.monotonic()
                for entry, side in sides:
                    if entry["error"] is None:
                        self._repeat(entry, side, deadline)
                if time.monotonic() + (time.monotonic() - began) > deadline:
                    break
        finally:
            for _, side in sides:
                side.close()
        return {"sides": [{**entry, "floor": _floor(work, entry)} for entry in entries]}

    def _repeat(self, entry: dict[str, Any], side: Side, deadline: float) -> None:
        try:
            repetition = side.measure(self._options.seconds, timeout_s=max(30.0, deadline - time.monotonic()))
        except SideError as error:
            entry["error"] = str(error)
        else:
            entry["repetitions"].append(repetition)
            print(
                f"  {entry['whose']}, {entry['name']}: {repetition['value']:,.1f}"
                f" (others took {repetition['other_cpu_s']:.1f} of {repetition['elapsed_s']:.1f} s)",
                file=sys.stderr,
                flush=True,
            )

    def _contenders(self, suite: str, work: ActingWork | LearningWork) -> list[Contender]:
        described = describe(work)
        original, ours = self._original(suite), [sys.executable, str(HERE / "our_side.py"), suite]
        if isinstance(work, LearningWork):
            found = (
                [Contender("original", "compiled", [*original, json.dumps({"work": described})])] if original else []
            )
            for precision in ("float32", "bfloat16"):
                command = [*ours, json.dumps({"work": described, "precision": precision})]
                found.append(Contender("ours", precision, command))
            return found
        found = []
        for mode in ("sync", "async") if original else ():
            case = {"work": described, "num_envs": ORIGINAL_ENVS, "mode": mode}
            found.append(Contender("original", f"{mode}, {ORIGINAL_ENVS} envs", [*original, json.dumps(case)]))
        num_runners = self._options.runners
        # As many environments as the original has, and as many as the shipped config gives to each runner.
        for num_envs in dict.fromkeys((max(1, ORIGINAL_ENVS // num_runners), self._options.num_envs)):
            case = {"work": described, "num_runners": num_runners, "num_envs": num_envs}
            found.append(Contender("ours", f"{num_runners} x {num_envs} envs", [*ours, json.dumps(case)]))
        return found

    def _solve(self, work: SolvingWork, share_s: float) -> dict[str, Any]:
        """Whole runs in turns; the original's compile cache is warm, its evaluations are free, ours are not."""
        deadline = time.monotonic() + share_s
        original = {"whose": "original", "name": "sync, 8 envs", "error": None, "repetitions": []}
        ours = {"whose": "ours", "name": f"configs/{work.config}.yaml", "error": None, "repetitions": []}
        sides = [(ours, self._solve_ours, 1.0)]
        if self._original("solve"):
            sides.insert(0, (original, self._solve_original, 0.7))
            try:
                self._solve_original(work, 0, deadline - time.monotonic(), max_rounds=1)
            except SideError as error:
                original["error"] = str(error)
        for repeat in range(self._options.repeats or 1):
            began = time.monotonic()
            for entry, solve, part in sides:
                if entry["error"] is None:
                    try:
                        repetition = solve(work, repeat, max(20.0, part * (deadline - time.monotonic())))
                    except SideError as error:
                        entry["error"] = str(error)
                    else:
                        entry["repetitions"].append(repetition)
                        print(f"  {entry['whose']}: {repetition['value']:.1f} s", file=sys.stderr, flush=True)
            if time.monotonic() + (time.monotonic() - began) > deadline:
                break
        return {"sides": [entry for entry, _, _ in sides]}

    def _solve_original(
        self, work: SolvingWork, repeat: int, limit_s: float, max_rounds: int | None = None
    ) -> dict[str, Any]:
        case = {
            "work": describe(work),
            "launched_unix_s": time.time(),
            "limit_s": limit_s,
            "max_rounds": max_rounds,
            "dataloader_workers": os.cpu_count(),
        }
        output, load = run_watched(
            [*self._original("solve"), json.dumps(case)], log=self._log(), timeout_s=limit_s + 60
        )
        return {**json.loads(output), **load}

    def _solve_ours(self, work: SolvingWork, repeat: int, limit_s: float) -> dict[str, Any]:
        from amago_ray.telemetry.loggers import read_metrics

        name = f"{work.config}_{repeat}"
        settings = [f"runs_dir={self._folder}", f"seed={self._options.seed + repeat}", f"stop.time_s={limit_s:.0f}"]
        command = [sys.executable, "-m", "amago_ray.cli", "train", str(HERE.parent / "configs" / f"{work.config}.yaml")]
        launched = time.time()
        _, load = run_watched(
            [*command, f"name={name}", "--overwrite", *settings, *work.overrides],
            log=self._log(),
            timeout_s=limit_s + 60,
        )
        metric = {"success": "eval/success_rate", "return": "eval/return_mean"}[work.measure]
        reports = read_metrics(self._folder / name / "metrics.jsonl")
        curve = [
            {"elapsed_s": report["unix_time_s"] - launched, work.measure: report[metric]}
            for report in reports
            if metric in report
        ]
        reached = [point["elapsed_s"] for point in curve if point[work.measure] >= work.goal - 1e-6]
        updated = [report["unix_time_s"] - launched for report in reports if report.get("learner_steps")]
        return {
            "value": reached[0] if reached else load["elapsed_s"],
            "reached": bool(reached),
            "first_report_of_updates_s": updated[0] if updated else None,
            "updates": reports[-1].get("learner_steps"),
            "env_steps": reports[-1].get("env_steps"),
            "curve": curve,
            **load,
        }

    def _original(self, suite: str) -> list[str]:
        """The command of the original's side without its case; empty without a peer."""
        if self._options.peer is None:
            return []
        return [str(self._options.peer_python), str(HERE / "peer_amago.py"), str(self._options.peer), suite]

    def _log(self) -> Path:
        self._logs += 1
        return self._folder / f"{self._logs}.log"


def _floor(work: ActingWork | LearningWork, entry: Mapping[str, Any]) -> dict[str, float] | None:
    """From the ceilings that our side measured when it was set up."""
    measured = entry.get("facts", {}).get("ceilings")
    if measured is None:
        return None
    if isinstance(work, ActingWork):
        return acting_floor(work.size, work.episode_length, Ceilings(**measured))
    return update_floor(work.size, work.lengths, Ceilings(**measured))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="a checkout of the original")
    parser.add_argument("--peer-python", type=Path, help="the Python that can import it")
    parser.add_argument("--suite", nargs="+", choices=list(SUITES), default=list(SUITES))
    parser.add_argument("--only", default="", help="works whose name contains this")
    parser.add_argument("--repeats", type=int, help="repetitions of each side (5, or 1 of solve)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a repetition, at least (not of solve)")
    parser.add_argument("--budget-s", type=float, default=840.0, help="wall time of a suite; repetitions stop in time")
    parser.add_argument("--runners", type=int, default=os.cpu_count(), help="our env runners")
    parser.add_argument("--num-envs", type=int, default=24, help="of each of our env runners")
    parser.add_argument("--seed", type=int, default=0, help="of our first run in solve")
    parser.add_argument("--quick", action="store_true", help="two short repetitions; nothing is written without --out")
    parser.add_argument("--out", type=Path, help="folder of the results (benchmarks/results)")
    options = parser.parse_args()
    if (options.peer is None) != (options.peer_python is None):
        parser.error("--peer and --peer-python: expected both or neither")
    if options.quick:
        options.repeats, options.seconds = options.repeats or 2, min(options.seconds, 1.0)
    out = options.out or (None if options.quick else HERE / "results")

    hardware = machine.hardware()
    for suite in options.suite:
        with tempfile.TemporaryDirectory(prefix="versus_amago_") as folder:
            result = Versus(options, Path(folder)).run(suite)
        print("\n".join(render_suite(suite, result, hardware["num_cpus"])))
        if out is not None:
            write(out / f"{machine.now()[:10]}_{machine.hardware_slug(hardware)}", hardware, {suite: result})


if __name__ == "__main__":
    main()
