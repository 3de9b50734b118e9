"""Environments with a peculiarity, through whole runs in this process."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.local_runs import tiny_config
from helpers.one_line import one_line

import amago_ray
from amago_ray.errors import EnvError
from amago_ray.telemetry.console import RunOutcome


def train(folder: Path, name: str, loggers: tuple[str, ...] = ("jsonl",), **kwargs: Any) -> RunOutcome:
    config = tiny_config(
        folder,
        env={"id": f"helpers.peculiar_envs:{name}", "kwargs": kwargs},
        stop={"learner_steps": 10},
        exploration={"kind": "epsilon_greedy"},
        relabel={"kind": "none"},
        evaluation={"num_episodes": 2, "num_envs": 2, "at_start": False},
        report={"loggers": list(loggers)},
    )
    return amago_ray.train(config, local=True)


def test_what_it_prints_is_in_a_file_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = train(tmp_path, "Prints", loggers=("console", "jsonl"))
    shown = capsys.readouterr().out
    assert "learner steps 10" in shown
    assert "step [" not in shown
    printed = (outcome.run_directory / "environment.log").read_text(encoding="utf-8").splitlines()
    assert len(printed) > 10
    assert all(line.startswith("step [/bold] [red]x[/red] \x1b[31mred ") for line in printed)


def test_what_it_raises_is_in_that_file_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = train(tmp_path, "FailsUnderOddSeeds", loggers=("console",))
    shown = capsys.readouterr()
    assert shown.out.count("warning: env 'helpers.peculiar_envs:FailsUnderOddSeeds': step: RuntimeError: seed ") == 1
    assert "Traceback" not in shown.out + shown.err
    # One for collecting, one for evaluating.
    assert (outcome.run_directory / "environment.log").read_text().count("Traceback") <= 2


def test_a_run_ends_with_one_line_when_every_environment_goes_on_failing(tmp_path: Path) -> None:
    with pytest.raises(EnvError) as error:
        train(tmp_path, "Peculiar", reward="1.0x", since=3)
    assert one_line(error) == (
        "every environment has failed again and again, last: env 'helpers.peculiar_envs:Peculiar': step: reward: "
        "expected a number, got '1.0x'; there is no checkpoint yet"
    )


def test_one_that_sets_torch_does_not_take_the_run_along(tmp_path: Path) -> None:
    run = train(tmp_path, "SetsTorch").run_directory
    assert amago_ray.record(run, tmp_path / "x.gif").exists()
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()


def test_one_that_takes_the_standard_streams_does_not_keep_them(tmp_path: Path) -> None:
    streams = sys.stdout, sys.stderr
    run = train(tmp_path, "Silences").run_directory
    assert (sys.stdout, sys.stderr) == streams
    amago_ray.evaluate(run, num_episodes=1)
    assert (sys.stdout, sys.stderr) == streams


def test_one_that_wanders_does_not_take_the_run_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = train(Path("runs"), "Wanders", to="elsewhere", in_step="deeper")
    assert os.getcwd() == str(tmp_path)
    assert outcome.run_directory.resolve() == tmp_path / "runs" / "tiny"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "runs"]
    reports = (outcome.run_directory / "metrics.jsonl").read_text().splitlines()
    dropped = [json.loads(report).get("rollout/dropped_episodes", 0.0) for report in reports]
    assert set(dropped) == {0.0}
