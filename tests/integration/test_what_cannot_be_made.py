"""Actors that cannot be made end a run over Ray after a few tries, with the original reason, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray
from helpers.local_runs import tiny_config
from helpers.one_line import one_line

from amago_ray import train
from amago_ray.errors import AmagoRayError

pytestmark = [pytest.mark.timeout(240), pytest.mark.usefixtures("embedded_ray")]


def reason(config: Any, **how: Any) -> str:
    with pytest.raises(AmagoRayError) as caught:
        train(config, **how)
    assert not [actor for actor in ray.util.list_named_actors() if "tiny" in actor], "nothing of the run is left"
    return one_line(caught)


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
    assert "no licence for this process" in reason(config)


def test_a_checkpoint_of_another_size(tmp_path: Path) -> None:
    train(tiny_config(tmp_path, stop={"learner_steps": 10}), local=True)
    config = tiny_config(tmp_path, model={"sequence_model": {"context_length": 8, "d_model": 16}}, stop=LONG)
    assert "expected" in reason(config, resume=True)


def test_an_owner_file_that_is_empty(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, stop={"learner_steps": 10})
    train(config, local=True)
    owner = Path(config.runs_dir) / config.name / "replay" / "shard_0" / "owner.json"
    owner.write_text("")
    assert str(owner) in reason(tiny_config(tmp_path, stop=LONG), resume=True)
