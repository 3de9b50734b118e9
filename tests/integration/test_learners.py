"""Two learners train one agent over Ray; one is killed, then the other; and a checkpoint of two goes on with one."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from helpers.small_run import SMALL
from helpers.watched_run import WatchedRun

pytestmark = pytest.mark.timeout(400)

SETTINGS = [
    "learner.num_learners=2",
    "replay.samples_per_insert=4",
    "evaluation.num_episodes=0",
    "stop.env_steps=100000000",
    "report.loggers=[console,jsonl]",
]
LEARNER = "LearnerActor"
COUNTS = ("env_steps", "episodes", "rollout/stored_episodes", "replay/inserted_timesteps")


def test_a_group_of_learners_trains_is_restarted_as_a_whole_and_goes_on_as_one(tmp_path: Path) -> None:
    run = WatchedRun(tmp_path, [*SMALL, *SETTINGS], name="two")
    run.start()
    try:
        run.wait_until_trained()
        # The younger one, then the older one of those that took their places: whichever broadcasts is among them.
        for victim in (-1, 0):
            before, saved = run.wait_until(lambda: len(run.actors(LEARNER)) == 2 and run.actors(LEARNER)), run.saved
            num_warnings = run.num_warnings(r"the learner \d died and is started again")
            os.kill(before[victim].pid, signal.SIGKILL)
            run.wait_until(
                lambda n=num_warnings: run.num_warnings(r"the learner \d died and is started again") >= n + 2
            )
            for each in before:
                run.wait_until_replaced(each, count=2)
            run.wait_until(lambda s=saved: run.last["learner_steps"] > s["learner_steps"])
            run.grows("env_steps", "learner_steps")
        run.wait_until(lambda: "loss/total" in run.last)
        run.stop()
        reports = run.reports
        for name in COUNTS:
            counts = [report[name] for report in reports if name in report]
            assert counts == sorted(counts), name
        saved = run.saved
        last = saved["learner_steps"] + 30
        run.start("--resume", "learner.num_learners=1", f"stop.learner_steps={last}")
        assert run.process.wait(timeout=120) == 0, run.output[-3000:]
        assert run.saved["learner_steps"] == last
        assert re.search(rf"reached {last:,} learner steps", run.output)
    finally:
        run.end()
