"""Ray's control service dies: the run saves what it has learned, ends in one line, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from helpers.processes import descendants, is_alive
from helpers.small_run import SMALL
from helpers.watched_run import WatchedRun

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_the_control_service_of_an_embedded_ray(tmp_path: Path) -> None:
    settings = [*SMALL, "stop.env_steps=100000000", "report.loggers=[console,jsonl]", "checkpoint.interval_s=1e9"]
    run = WatchedRun(tmp_path, settings, name="lost")
    run.start()
    try:
        run.wait_until(lambda: run.last.get("learner_steps", 0) >= 20)
        processes = descendants(run.process.pid)
        (service,) = (pid for pid, title in processes.items() if "gcs_server" in title.split(" ")[0])
        os.kill(service, signal.SIGKILL)
        run.wait_for_warning("Ray's control service at .* does not answer")
        assert run.process.wait(timeout=120) == 2
        last_line = run.output.rpartition("error: ")[2]
        assert "has not answered for 30 s; the last good checkpoint is" in last_line
        assert "Traceback" not in run.output
        assert run.saved["learner_steps"] >= 20
        assert [title for pid, title in processes.items() if is_alive(pid)] == []
    finally:
        run.end()
