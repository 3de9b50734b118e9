"""A run goes on over Ray with another number of replay shards, and none of its episodes is out of use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.local_runs import tiny_config
from helpers.stored import stored_episodes

from amago_ray import train
from amago_ray.config import Config
from amago_ray.telemetry.loggers import read_metrics

pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("embedded_ray")]


def config_of(tmp_path: Path, num_shards: int, **settings: Any) -> Config:
    return tiny_config(
        tmp_path,
        replay={"num_shards": num_shards},
        evaluation={"num_episodes": 0},
        rollout={"num_env_runners": 1},
        **settings,
    )


def test_fewer_shards_take_over_what_the_others_held_and_more_begin_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(train(config_of(tmp_path, 3, stop={"learner_steps": 10}), local=True).run_directory)
    before = stored_episodes(run / "replay")
    assert {path.name for path in (run / "replay").glob("shard_*")} == {"shard_0", "shard_1", "shard_2"}

    console = {"loggers": ["console", "jsonl"], "interval_s": 0.2}
    train(config_of(tmp_path, 1, stop={"learner_steps": 15}, report=console), resume=True)
    after = stored_episodes(run / "replay")
    assert [path.name for path in (run / "replay").glob("shard_*")] == ["shard_0"]
    assert set(before) < set(after)
    assert len(set(after)) == len(after), "none twice"
    printed = " ".join(capsys.readouterr().out.split())
    for shard in (1, 2):
        assert f"episodes of the former replay shard {shard} were taken over" in printed
    last = read_metrics(run / "metrics.jsonl")[-1]
    assert last["learner_steps"] == 15, "never past the last update"
    assert last["replay/episodes"] == len(after)

    train(config_of(tmp_path, 2, stop={"learner_steps": 20}, report=console), resume=True)
    assert set(after) < set(stored_episodes(run / "replay"))
    printed = " ".join(capsys.readouterr().out.split())
    assert "replay.num_shards is 2, was 1" in printed
