"""Learning curves of finished runs of one config: one picture, and the numbers behind it as JSON.

    python benchmarks/plot_curves.py runs/t_maze_* --level optimum=1 --level chance=0.5 --out benchmarks/results/t_maze

writes `t_maze.png` and `t_maze.json`. Each run, a seed, is a thin line over env steps, their mean a thick one. Every
`--metric` has a panel of its own; `--level NAME=Y,Y` draws a dotted line in each of them (one Y: in all);
`--beside NAME=RUN` adds a run of other settings for comparison, dashed.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import yaml
from matplotlib.axes import Axes
from measuring.machine import hardware

from amago_ray.telemetry.loggers import read_metrics

Point = dict[str, float]
OWN_SETTINGS = ("name", "seed", "runs_dir")
"""What may differ between runs of one config."""


def read_points(run: Path, metrics: list[str]) -> list[Point]:
    """The points of a run at which the metrics were reported."""
    reports = read_metrics(run / "metrics.jsonl")
    points = []
    for report in reports:
        if all(metric in report for metric in metrics):
            steps = report["eval/env_steps"] if metrics[0].startswith("eval/") else report["env_steps"]
            points.append(
                {
                    "env_steps": steps,
                    "learner_steps": report["learner_steps"],
                    **{metric: round(report[metric], 4) for metric in metrics},
                }
            )
    return points


def mean_curve(curves: list[list[Point]], metric: str) -> tuple[list[float], list[float]]:
    """Env steps and the mean over runs there, interpolated linearly, as far as all runs reach."""
    last = min(points[-1]["env_steps"] for points in curves)
    steps = sorted({point["env_steps"] for points in curves for point in points if point["env_steps"] <= last})
    values = [
        np.interp(steps, [point["env_steps"] for point in points], [point[metric] for point in points])
        for points in curves
    ]
    return steps, np.mean(values, axis=0).tolist()


def read_config(run: Path) -> dict[str, Any]:
    """The settings of a run, without those that are a run's own."""
    config: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    return {name: value for name, value in config.items() if name not in OWN_SETTINGS}


def differences(config: Any, other: Any, path: str = "") -> dict[str, Any]:
    """Settings of `other` that `config` has otherwise, by dotted path."""
    if not (isinstance(config, dict) and isinstance(other, dict)):
        return {} if config == other else {path: other}
    found: dict[str, Any] = {}
    for name in sorted({*config, *other}):
        found |= differences(config.get(name), other.get(name), f"{path}.{name}" if path else name)
    return found


def draw(axis: Axes, metric: str, seeds: dict[str, list[Point]], beside: dict[str, list[Point]]) -> None:
    """One panel: seeds thin, their mean thick, other runs dashed."""

    def line(points: list[Point], **style: Any) -> None:
        axis.plot([point["env_steps"] for point in points], [point[metric] for point in points], **style)

    for number, (name, points) in enumerate(seeds.items()):
        line(points, label=name, color=f"C{number}", linewidth=0.9, marker=".", markersize=3)
    if len(seeds) > 1:
        axis.plot(*mean_curve(list(seeds.values()), metric), label="mean", color="black", linewidth=2.2)
    for number, (name, points) in enumerate(beside.items(), len(seeds)):
        line(points, label=name, color=f"C{number}", linewidth=1.4, linestyle="--")
    axis.set_xlabel("env steps")
    axis.set_ylabel(metric)
    axis.grid(alpha=0.3)


def named(text: str) -> tuple[str, str]:
    """Split NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories of one config, one for each seed")
    parser.add_argument("--metric", action="append", help="once for each panel; default eval/return_mean")
    parser.add_argument("--level", type=named, action="append", default=[], metavar="NAME=Y[,Y]")
    parser.add_argument("--beside", type=named, action="append", default=[], metavar="NAME=RUN")
    parser.add_argument("--title", help="what the picture shows")
    parser.add_argument("--out", type=Path, required=True, help="path of the results, without ending")
    arguments = parser.parse_args()
    metrics = arguments.metric or ["eval/return_mean"]
    config = read_config(arguments.runs[0])
    for run in arguments.runs[1:]:
        if other := differences(config, read_config(run)):
            sys.exit(f"{run}: expected the settings of {arguments.runs[0]}, got {other}")

    metadata = [json.loads((run / "metadata.json").read_text()) for run in arguments.runs]
    seeds = {
        f"seed {of_run['seed']}": read_points(run, metrics)
        for run, of_run in zip(arguments.runs, metadata, strict=True)
    }
    beside = {name: read_points(Path(run), metrics) for name, run in arguments.beside}
    figure, axes = plt.subplots(
        1, len(metrics), figsize=(max(6.0, 4.5 * len(metrics)), 3.4), layout="constrained", squeeze=False
    )
    for axis, metric in zip(axes[0], metrics, strict=True):
        draw(axis, metric, seeds, beside)
    for name, levels in arguments.level:
        for axis, y in zip(axes[0], islice(cycle(map(float, levels.split(","))), len(metrics)), strict=True):
            axis.axhline(y, color="gray", linestyle=":", linewidth=1.2)
            axis.annotate(name, (0.01, y), xycoords=("axes fraction", "data"), fontsize="x-small", va="bottom")
    axes[0][-1].legend(fontsize="x-small")
    if arguments.title:
        figure.suptitle(arguments.title, fontsize="medium")
    result = {
        "title": arguments.title,
        "metrics": metrics,
        "git_commits": sorted({str(of_run["git_commit"]) for of_run in metadata}),
        "versions": metadata[0]["versions"],
        "hardware": hardware(),
        "config": config,
        "runs": seeds,
        "beside": {
            name: {"differs": differences(config, read_config(Path(run))), "points": beside[name]}
            for name, run in arguments.beside
        },
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out.with_suffix(".png"), dpi=110)
    arguments.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    for name, points in {**seeds, **beside}.items():
        for metric in metrics:
            print(name, "->", metric, [point[metric] for point in points][-3:])


if __name__ == "__main__":
    main()
