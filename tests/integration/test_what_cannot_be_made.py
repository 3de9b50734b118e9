"""Actors that cannot be made end a run over Ray after a few tries, with the original reason, in one line."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import ray
from helpers.local_runs import tiny_config
from helpers.one_line import one_line
from helpers.refusals import refusal

from amago_ray import train
from amago_ray.errors import AmagoRayError

pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("embedded_ray")]


def reason(config: Any, **how: Any) -> str:
    """Why the run could not begin, in one line; it has changed no file, and no actor of it is left."""
    with refusal(Path(config.runs_dir)) as line:
        train(config, **how)
    assert_gone()
    return line[0]


def reason_later(config: Any) -> str:
    """Why the run ended after it had begun: the evaluator is made for the first evaluation."""
    with pytest.raises(AmagoRayError) as caught:
        train(config)
    assert_gone()
    status = json.loads((Path(config.runs_dir) / config.name / "status.json").read_text())
    assert (status["state"], status["reason"]) == ("failed", str(caught.value))
    return one_line(caught)


def assert_gone() -> None:
    assert not [actor for actor in ray.util.list_named_actors() if "tiny" in actor]


LONG = {"learner_steps": None, "time_s": 100}
LICENSED = {"max_episode_steps": 50, "id": "helpers.worker_env:Licensed"}


def test_an_env_that_cannot_be_made_in_a_worker(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, env=LICENSED, relabel={"kind": "none"}, stop=LONG)
    assert "no licence for this process" in reason(config)


def test_an_env_of_evaluation_that_cannot_be_made_in_a_worker(tmp_path: Path) -> None:
    free = {"id": "CartPole-v1"}
    config = tiny_config(
        tmp_path, env=free, relabel={"kind": "none"}, evaluation={"num_episodes": 2, "env": LICENSED}, stop=LONG
    )
    assert "no licence for this process" in reason_later(config)


def test_a_checkpoint_of_another_size(tmp_path: Path) -> None:
    train(tiny_config(tmp_path, stop={"learner_steps": 10}), local=True)
    config = tiny_config(tmp_path, model={"sequence_model": {"context_length": 8, "d_model": 16}}, stop=LONG)
    line = reason(config, resume=True)
    assert "learner state: expected one of this agent and model, got" in line
    assert re.search(r"shape torch.Size\(\[4, 8, 8\]\) .* is torch.Size\(\[4, 16, 8\]\)", line)


FREE: dict[str, Any] = {"env": {"id": "CartPole-v1"}, "relabel": {"kind": "none"}}
SCRATCH = {"max_episode_steps": 50, "id": "helpers.scratch:Env"}
WITHOUT_ROOM: dict[str, dict[str, Any]] = {
    "env runner": {"env": SCRATCH},
    "evaluator": {"evaluation": {"num_episodes": 2, "env": SCRATCH}},
    "replay shard": {"relabel": {"kind": "helpers.scratch:Relabeler"}},
    "learner": {"agent": {"advantage_filter": {"kind": "helpers.scratch:Filter"}}},
}


@pytest.mark.parametrize("part", WITHOUT_ROOM)
def test_a_part_that_finds_a_full_disk(part: str, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, **{**FREE, **WITHOUT_ROOM[part]}, stop=LONG)
    assert "No space left on device" in (reason_later if part == "evaluator" else reason)(config)


def test_a_replay_directory_on_a_full_disk(tmp_path: Path) -> None:
    """Where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=False).returncode
    ):
        pytest.skip("a file system cannot be mounted here")
    try:
        with pytest.raises(OSError, match="No space left"), (disk / "full").open("wb") as file:
            file.write(bytes(10**6))
        config = tiny_config(tmp_path / "runs", **FREE, replay={"directory": str(disk / "replay")}, stop=LONG)
        assert reason(config).endswith("cannot write there (No space left on device)")
        assert [path.name for path in disk.iterdir()] == ["full"]
    finally:
        subprocess.run(["umount", disk], check=True)
