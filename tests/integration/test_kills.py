"""The processes of one run over Ray are killed, one kind after the other: the run goes on and loses nothing.

All kills happen in one run, so that it is also seen to survive them together.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.processes import descendants, kill_actor
from helpers.small_run import SmallRun
from helpers.stored import stored_episodes

pytestmark = pytest.mark.timeout(240)

ENVS_PER_RUNNER = 4
SETTINGS = [
    "rollout.num_env_runners=2",
    "replay.num_shards=2",
    f"rollout.num_envs_per_env_runner={ENVS_PER_RUNNER}",
    "replay.samples_per_insert=2",
    "evaluation.interval_env_steps=2000",
    "stop.env_steps=100000000",
    "report.loggers=[console,jsonl]",
]


class KilledRun:
    """A run that goes on while its processes are killed."""

    def __init__(self, run: SmallRun, output: Path) -> None:
        self.run = run
        self.path = run.path
        self._output = output
        self._printed = output.open("w")
        self.process = run.start(*SETTINGS, stdout=self._printed)

    @property
    def output(self) -> str:
        """What was printed, in one line: the console wraps."""
        return " ".join(self._output.read_text().split())

    @property
    def last(self) -> dict[str, float]:
        """The newest report."""
        reports = self.run.metrics()
        return reports[-1] if reports else {}

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, f"not in time: {self.last}\n{self.output[-3000:]}"
            time.sleep(0.05)

    def wait_for_warning(self, pattern: str) -> None:
        """Wait until a warning has been printed."""
        self.wait_until(lambda: re.search(f"warning: {pattern}", self.output) is not None)

    def grows(self, *names: str) -> None:
        """Wait until each count is above what it is now."""
        before = {name: self.last.get(name, 0) for name in names}
        self.wait_until(lambda: all(self.last.get(name, 0) > value for name, value in before.items()))

    def kill(self, kind: str) -> None:
        kill_actor(self.process.pid, kind)

    def stop(self) -> None:
        """Ctrl-C, and the end of everything."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)
        self._printed.close()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledRun]:
    directory = tmp_path_factory.mktemp("kills")
    run = KilledRun(SmallRun(directory), directory / "output")
    try:
        run.wait_until(lambda: run.last.get("learner_steps", 0) > 20 and (run.path / "checkpoints" / "latest").exists())
        yield run
    finally:
        if run.process.poll() is None:
            run.stop()


def test_an_env_runner(killed: KilledRun) -> None:
    killed.kill("EnvRunnerActor")
    killed.wait_for_warning(r"the env runner \d died and is started again")
    killed.grows("env_steps", "learner_steps")
    killed.wait_until(lambda: sum("EnvRunnerActor" in title for title in descendants(killed.process.pid).values()) == 2)


def test_a_replay_shard(killed: KilledRun) -> None:
    killed.kill("ReplayShardActor")
    killed.wait_for_warning(r"the replay shard \d died and was started again")
    killed.grows("env_steps", "learner_steps", "replay/inserted_timesteps")


def test_the_control_actor(killed: KilledRun) -> None:
    before = killed.last
    killed.kill("ControlActor")
    killed.wait_for_warning(r"the control actor died and was started again")
    killed.grows("env_steps", "learner_steps", "replay/inserted_timesteps")
    # Weights travel again: what is collected now is of new ones.
    killed.wait_until(lambda: killed.last.get("time/policy_lag", 1e9) < 200)
    assert killed.last["env_steps"] > before["env_steps"]


def test_the_evaluator(killed: KilledRun) -> None:
    evaluator = [title for title in descendants(killed.process.pid).values() if "EvaluatorActor" in title]
    assert evaluator
    killed.kill("EvaluatorActor")
    # An idle evaluator is missed when it is needed next.
    evaluated = [report["eval/env_steps"] for report in killed.run.metrics() if "eval/env_steps" in report][-1]
    killed.wait_for_warning(r"the evaluator died and is started again")
    killed.wait_until(lambda: killed.last.get("eval/env_steps", 0) > evaluated)


def test_the_learner(killed: KilledRun) -> None:
    saved = json.loads(
        (
            killed.path / "checkpoints" / (killed.path / "checkpoints" / "latest").read_text() / "metadata.json"
        ).read_text()
    )
    killed.kill("LearnerActor")
    killed.wait_for_warning(r"the learner died and is started again")
    killed.grows("env_steps")
    killed.wait_until(lambda: killed.last["learner_steps"] > saved["learner_steps"])
    killed.grows("learner_steps")


def test_nothing_acknowledged_was_lost_and_no_count_fell(killed: KilledRun) -> None:
    """Last: the run ends, and its books are closed."""
    killed.stop()
    assert killed.process.returncode == 0, killed.output
    assert "Traceback" not in killed.output
    reports = killed.run.metrics()
    for name in (
        "env_steps",
        "episodes",
        "rollout/stored_episodes",
        "replay/inserted_timesteps",
        "replay/duplicate_episodes",
    ):
        counts = [report[name] for report in reports if name in report]
        assert counts == sorted(counts), name
    ids = stored_episodes(killed.path / "replay")
    assert len(set(ids)) == len(ids), "no episode is stored twice"
    assert reports[-1]["replay/evicted_episodes"] == 0
    assert 0 < reports[-1]["rollout/stored_episodes"] <= len(ids)
    newest = {runner: max(each.incarnation for each in ids if each.runner == runner) for runner in (0, 1)}
    for runner, incarnation in newest.items():
        counters = {each.counter for each in ids if each[1:3] == (runner, incarnation)}
        missing = set(range(max(counters) + 1)) - counters
        assert len(missing) < ENVS_PER_RUNNER, "all but the episodes that were running at the end are stored"
