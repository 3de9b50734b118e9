"""Learning curves of finished runs: one picture, and the numbers behind it as JSON.

    python benchmarks/plot_curves.py runs/t_maze_0 runs/t_maze_1 --out benchmarks/results/t_maze

writes `t_maze.png` and `t_maze.json`. Runs are drawn over env steps and over seconds since their first report.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import yaml

from amago_ray.telemetry.loggers import read_metrics


def curve(run: Path, metric: str) -> list[dict[str, float]]:
    """The points of a run at which the metric was reported."""
    reports = read_metrics(run / "metrics.jsonl")
    began = reports[0]["unix_time_s"]
    points = []
    for report in reports:
        if metric in report:
            steps = report["eval/env_steps"] if metric.startswith("eval/") else report["env_steps"]
            points.append(
                {
                    "env_steps": steps,
                    "learner_steps": report["learner_steps"],
                    "time_s": round(report["unix_time_s"] - began, 2),
                    metric: round(report[metric], 4),
                }
            )
    return points


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--metric", default="eval/return_mean")
    parser.add_argument("--title", help="what the picture shows")
    parser.add_argument("--out", type=Path, required=True, help="path of the results, without ending")
    arguments = parser.parse_args()

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    curves = {run.name: curve(run, arguments.metric) for run in arguments.runs}
    for name, points in curves.items():
        for axis, x in zip(axes, ("env_steps", "time_s"), strict=True):
            axis.plot(
                [point[x] for point in points], [point[arguments.metric] for point in points], label=name, marker="."
            )
            axis.set_xlabel(x.replace("_", " "))
            axis.grid(alpha=0.3)
    axes[0].set_ylabel(arguments.metric)
    axes[1].legend(fontsize="small")
    if arguments.title:
        figure.suptitle(arguments.title, fontsize="medium")
    first = arguments.runs[0]
    metadata = json.loads((first / "metadata.json").read_text())
    config = yaml.safe_load((first / "config.yaml").read_text())
    result = {
        "metric": arguments.metric,
        "git_commit": metadata["git_commit"],
        "versions": metadata["versions"],
        "num_cpus": metadata["num_cpus"],
        "config": {name: value for name, value in config.items() if name != "runs_dir"},
        "runs": curves,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out.with_suffix(".png"), dpi=110)
    arguments.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    for name, points in curves.items():
        print(name, "->", arguments.metric, [point[arguments.metric] for point in points][-3:])


if __name__ == "__main__":
    main()
