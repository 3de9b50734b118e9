"""The processes of one run are stopped, one kind after the other: each is named, killed, and started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
from helpers.processes import descendants, is_alive
from helpers.small_run import SMALL
from helpers.watched_run import WatchedRun

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SETTINGS = [
    *SMALL,
    "rollout.num_env_runners=2",
    "replay.samples_per_insert=2",
    "evaluation.interval_env_steps=2000",
    "stop.env_steps=100000000",
    "report.loggers=[console,jsonl]",
    "supervision.pulse_interval_s=0.5",
    "supervision.late_after_s=4",
    "supervision.dead_after_s=12",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedRun]:
    run = WatchedRun(tmp_path_factory.mktemp("silent"), SETTINGS, name="silent")
    run.start()
    try:
        run.wait_until_trained()
        run.wait_until(lambda: run.actors("EvaluatorActor"))
        yield run
    finally:
        run.end()


@pytest.mark.parametrize(
    ("kind", "name", "role"),
    [
        ("EnvRunnerActor", r"env runner \d", "env_runner"),
        ("ReplayShardActor", "replay shard 0", "replay_shard"),
        ("LearnerActor", "learner", "learner"),
        ("ControlActor", "control actor", "control"),
        ("EvaluatorActor", "evaluator", "evaluator"),
    ],
)
def test_a_stopped_process_is_replaced(run: WatchedRun, kind: str, name: str, role: str) -> None:
    killed = run.last["runtime/killed_processes"]
    count = len(run.actors(kind))
    stopped = run.kill(kind, signal.SIGSTOP)
    run.wait_for_warning(f"the {name} .*?has been silent for")
    run.wait_for_warning(f"the {name} has been silent for .*? it is killed")
    # An evaluator is started again when it is needed.
    run.wait_until_replaced(stopped, count)
    with suppress(ProcessLookupError):
        os.kill(stopped.pid, signal.SIGCONT)
    run.wait_until(lambda: run.last[f"runtime/restarts/{role}"] >= 1)
    assert run.last["runtime/killed_processes"] > killed
    run.grows("env_steps", "learner_steps", "replay/inserted_timesteps")


def test_ctrl_c_ends_whatever_does_not_answer(run: WatchedRun) -> None:
    """Last: the run ends, with the learner, the shard and an env runner stopped."""
    processes = descendants(run.process.pid)
    for kind in ("LearnerActor", "ReplayShardActor", "EnvRunnerActor"):
        run.kill(kind, signal.SIGSTOP)
    run.stop()
    assert "no checkpoint: the learner did not answer" in run.output
    assert [title for pid, title in processes.items() if is_alive(pid)] == []
