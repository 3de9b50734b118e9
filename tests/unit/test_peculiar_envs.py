"""Environments with a peculiarity, through whole runs in this process."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.local_runs import tiny_config
from helpers.one_line import one_line

import amago_ray
from amago_ray.errors import EnvError, SpaceError
from amago_ray.telemetry.console import RunOutcome


def train(
    folder: Path, name: str, loggers: tuple[str, ...] = ("jsonl",), num_envs: int = 3, **kwargs: Any
) -> RunOutcome:
    config = tiny_config(
        folder,
        env={"id": f"helpers.peculiar_envs:{name}", "kwargs": kwargs},
        stop={"learner_steps": 10},
        rollout={"num_envs_per_env_runner": num_envs},
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


@pytest.mark.parametrize(("num_envs", "who"), [(1, "that of env runner 0"), (3, "environment 1")])
def test_environments_that_differ_from_each_other_are_refused_before_anything_begins(
    tmp_path: Path, num_envs: int, who: str
) -> None:
    with pytest.raises(SpaceError) as error:
        train(tmp_path, "Grows", num_envs=num_envs)
    assert f"env 'helpers.peculiar_envs:Grows': {who} is made with other spaces than the first one: " in one_line(error)
    assert re.search(
        r"observation 'observation': expected Box\(-1, 1, \[\d+\], float32\), got Box\(-1", str(error.value)
    )
    assert list(tmp_path.iterdir()) == []


def test_one_that_sets_torch_does_not_take_the_run_along(tmp_path: Path) -> None:
    run = train(tmp_path, "SetsTorch").run_directory
    assert amago_ray.record(run, tmp_path / "x.gif").exists()
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["Silences", "Closes"])
def test_one_that_takes_or_closes_the_standard_streams_leaves_them_to_us(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    streams = sys.stdout, sys.stderr
    run = train(tmp_path, name).run_directory
    assert (sys.stdout, sys.stderr) == streams
    amago_ray.evaluate(run, num_episodes=1)
    assert (sys.stdout, sys.stderr) == streams
    print("printed as before")
    print("said as before", file=sys.stderr)
    shown = capsys.readouterr()
    assert shown.out.endswith("printed as before\n")
    assert shown.err.endswith("said as before\n")


def test_one_that_wanders_does_not_take_the_run_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = train(Path("runs"), "Wanders", to="elsewhere", in_step="deeper")
    assert os.getcwd() == str(tmp_path)
    assert outcome.run_directory.resolve() == tmp_path / "runs" / "tiny"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "runs"]
    reports = (outcome.run_directory / "metrics.jsonl").read_text().splitlines()
    dropped = [json.loads(report).get("rollout/dropped_episodes", 0.0) for report in reports]
    assert set(dropped) == {0.0}
