"""The main job over Ray: train, interrupt, kill, resume."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from helpers.processes import descendants

if TYPE_CHECKING:
    from helpers.small_run import SmallRun

pytestmark = pytest.mark.timeout(240)


def checkpoint_metadata(path: Path) -> dict[str, int]:
    name = (path / "checkpoints" / "latest").read_text()
    return json.loads((path / "checkpoints" / name / "metadata.json").read_text())


def test_a_run_trains_evaluates_and_leaves_everything_in_its_directory(small_run: SmallRun) -> None:
    output = small_run.train("stop.env_steps=4000")
    assert "reached 4,000 env steps" in output
    path = small_run.path
    names = {entry.name for entry in path.iterdir()}
    assert {"config.yaml", "metadata.json", "status.json", "metrics.jsonl", "checkpoints", "replay"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    last = small_run.metrics()[-1]
    assert 4000 <= last["env_steps"] < 4000 + 4, "the one runner's last step is one of its four environments at most"
    assert last["learner_steps"] > 100
    assert 10 < last["replay/samples_per_insert"] < 27
    assert 0 <= last["rollout/success_rate"] <= 1
    evaluated = [report["eval/learner_steps"] for report in small_run.metrics() if "eval/success_rate" in report]
    assert evaluated[0] == 0
    assert evaluated[-1] == checkpoint_metadata(path)["learner_steps"], "the last weights are evaluated and saved"
    assert any(report.get("time/policy_lag", 1e9) < 200 for report in small_run.metrics())
    assert {"policy.safetensors", "training_state.pt", "env_spec.json"} <= checkpoint_metadata(path)["sha256"].keys()


def test_ctrl_c_checkpoints_and_resume_goes_on(small_run: SmallRun) -> None:
    process = small_run.start("stop.env_steps=1000000")
    small_run.wait_until(lambda: any(r["learner_steps"] > 20 for r in small_run.metrics()), process)
    # A terminal sends the signal to the whole process group.
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "stopped by the user" in output
    assert "Traceback" not in output
    saved = checkpoint_metadata(small_run.path)
    assert saved["learner_steps"] >= 20

    output = small_run.train("--resume", f"stop.env_steps={saved['env_steps'] + 1000}")
    later = checkpoint_metadata(small_run.path)
    assert later["learner_steps"] > saved["learner_steps"]
    assert later["env_steps"] >= saved["env_steps"] + 1000
    assert later["episodes"] > saved["episodes"]
    stored = [
        report["rollout/stored_episodes"] for report in small_run.metrics() if "rollout/stored_episodes" in report
    ]
    assert stored == sorted(stored), "a count fell"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_checkpoint_as_ctrl_c_does(small_run: SmallRun, number: signal.Signals) -> None:
    """Ray's own handler of SIGTERM, which it installs when it starts, would end the process at once."""
    process = small_run.start("stop.env_steps=1000000", "checkpoint.interval_s=1000000")
    small_run.wait_until(lambda: any(r["learner_steps"] > 20 for r in small_run.metrics()), process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "stopped by the user" in output
    assert checkpoint_metadata(small_run.path)["learner_steps"] > 20


def test_a_signal_while_ray_starts_ends_in_one_line_and_leaves_nothing(small_run: SmallRun) -> None:
    """Ray's handler of SIGTERM holds until it has started."""
    process = small_run.start()
    small_run.wait_until(lambda: any("raylet" in title for title in descendants(process.pid).values()), process)
    process.send_signal(signal.SIGTERM)
    # What Ray has started holds the other end of what the process prints into, until it ends.
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert output.strip() == "stopped by the user"
    assert not small_run.path.exists()


def test_killed_driver_resumes_with_its_replay(small_run: SmallRun) -> None:
    process = small_run.start("stop.env_steps=1000000")
    latest = small_run.path / "checkpoints" / "latest"
    small_run.wait_until(lambda: latest.exists() and checkpoint_metadata(small_run.path)["learner_steps"] > 0, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    saved = checkpoint_metadata(small_run.path)
    stored = small_run.metrics()[-1]["replay/timesteps"]
    assert stored > 0

    small_run.train("--resume", f"stop.env_steps={saved['env_steps'] + 1000}")
    counts = [(report["env_steps"], report["learner_steps"]) for report in small_run.metrics()]
    assert counts == sorted(counts), "what was logged beyond the checkpoint is gone"
    first = next(
        report
        for report in small_run.metrics()
        if report["env_steps"] > saved["env_steps"] and "replay/timesteps" in report
    )
    assert first["env_steps"] >= saved["env_steps"]
    assert first["learner_steps"] >= saved["learner_steps"]
    assert first["replay/timesteps"] >= stored
    assert first["replay/duplicate_episodes"] == 0
    # No burst: what was stored before the kill gives no credit to train.
    assert small_run.metrics()[-1]["replay/samples_per_insert"] < 27


def test_a_taken_directory_is_refused_in_one_line(small_run: SmallRun) -> None:
    (small_run.path).mkdir(parents=True)
    (small_run.path / "metadata.json").write_text('{"run_id": 7}')
    (small_run.path / "metrics.jsonl").write_text("{}\n")
    process = small_run.start()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output.strip().count("\n") == 0
    assert "--resume" in output
    assert "--overwrite" in output
