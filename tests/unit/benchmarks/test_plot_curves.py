import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from plot_curves import differences, mean_curve, read_points

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "plot_curves.py"


def write_run(run: Path, seed: int, values: list[float], **settings: object) -> Path:
    run.mkdir()
    reports = [{"unix_time_s": 0.0, "env_steps": 0, "learner_steps": 0, "rollout/return_mean": 1.0}]
    reports += [
        {
            "unix_time_s": 1.0,
            "env_steps": 10 * i + 5,
            "learner_steps": i,
            "eval/env_steps": 10 * i,
            "eval/return_mean": v,
        }
        for i, v in enumerate(values)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(report) + "\n" for report in reports))
    (run / "config.yaml").write_text(yaml.safe_dump({"name": run.name, "seed": seed, "env": "A-v0", **settings}))
    (run / "metadata.json").write_text(json.dumps({"seed": seed, "git_commit": "abc", "versions": {}}))
    return run


def test_points_are_the_evaluations_at_the_steps_of_their_weights(tmp_path):
    points = read_points(write_run(tmp_path / "a", 0, [0.0, 0.5]), ["eval/return_mean"])
    assert points == [
        {"env_steps": 0, "learner_steps": 0, "eval/return_mean": 0.0},
        {"env_steps": 10, "learner_steps": 1, "eval/return_mean": 0.5},
    ]


def test_the_mean_is_over_all_seeds_and_ends_with_the_shortest():
    first = [{"env_steps": 0, "x": 0.0}, {"env_steps": 10, "x": 1.0}, {"env_steps": 20, "x": 9.0}]
    second = [{"env_steps": 0, "x": 2.0}, {"env_steps": 8, "x": 2.0}, {"env_steps": 16, "x": 4.0}]
    steps, values = mean_curve([first, second], "x")
    assert steps == [0, 8, 10, 16]
    assert values == pytest.approx([1.0, 1.4, 1.75, 4.9])


def test_differences_name_the_settings():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 4}) == {"a.c": 3, "d": 4}


def plot(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=100)


def test_a_picture_and_its_numbers(tmp_path):
    runs = [write_run(tmp_path / f"run{seed}", seed, [0.0, float(seed)]) for seed in range(2)]
    control = write_run(tmp_path / "control", 0, [0.0, 0.0], agent={"kind": "b"})
    done = plot(*runs, "--level", "optimum=1", "--beside", f"plain={control}", "--out", tmp_path / "out")
    assert not done.returncode, done.stderr
    assert (tmp_path / "out.png").stat().st_size > 1000
    result = json.loads((tmp_path / "out.json").read_text())
    assert [result["runs"][f"seed {seed}"][-1]["eval/return_mean"] for seed in range(2)] == [0.0, 1.0]
    assert result["config"] == {"env": "A-v0"}
    assert result["beside"]["plain"]["differs"] == {"agent": {"kind": "b"}}


def test_runs_of_other_settings_are_no_seeds_of_one_config(tmp_path):
    runs = [write_run(tmp_path / "a", 0, [0.0]), write_run(tmp_path / "b", 1, [0.0], env="B-v0")]
    done = plot(*runs, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"{runs[1]}: expected the settings of {runs[0]}, got {{'env': 'B-v0'}}"]
