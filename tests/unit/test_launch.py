"""Putting a run together: all or nothing, and nothing of the user's lost."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from helpers.local_runs import TINY, tiny_config
from helpers.refusals import refusal

import amago_ray
from amago_ray import AmagoRayError, Config
from amago_ray.data.arrow_codec import read_stream
from amago_ray.errors import CheckpointError, ConfigError, DataError, EnvError, RunDirectoryError

SHORT = {"stop": {"learner_steps": 10}}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def refused(config: Config, kind: type[AmagoRayError], words: str, **options: Any) -> None:
    with refusal(Path(config.runs_dir), kind, words):
        amago_ray.train(config, local=True, **options)


@pytest.mark.parametrize(
    ("sections", "kind", "words"),
    [
        ({"relabel": {"kind": "nowhere:Relabeler"}}, ConfigError, "cannot import"),
        ({"env": "helpers.envs:NoSuchEnv"}, EnvError, "NoSuchEnv"),
        ({"model": {**TINY["model"], "sequence_model": {"kind": "nowhere:Model"}}}, ConfigError, "cannot import"),
        (
            {"model": {**TINY["model"], "sequence_model": {"attention_backend": "flash_attn"}}},
            ConfigError,
            "flash_attn",
        ),
        ({"evaluation": {"env": "NoSuchEnv-v0"}}, EnvError, "no such environment"),
        ({"replay": {"directory": "/dev/null/x"}}, DataError, "cannot write there"),
    ],
    ids=["relabeler", "environment", "model", "absent GPU", "evaluation", "unwritable replay"],
)
@pytest.mark.parametrize("options", [{"overwrite": True}, {"resume": True}], ids=["overwrite", "resume"])
def test_a_run_that_cannot_start_costs_the_old_one_nothing(
    tmp_path: Path, sections: dict[str, Any], kind: type[AmagoRayError], words: str, options: dict[str, bool]
) -> None:
    amago_ray.train(tiny_config(tmp_path, **SHORT), local=True)
    refused(tiny_config(tmp_path, **sections), kind, words, **options)


def test_a_run_that_fails_at_its_last_preparation_costs_the_old_one_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where everything could be made but the files of the new run."""
    amago_ray.train(tiny_config(tmp_path, **SHORT), local=True)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr("amago_ray.training.run_directory.stage", Mock(side_effect=full))
    refused(tiny_config(tmp_path, **SHORT), RunDirectoryError, "No space left on device", overwrite=True)
    fresh = dataclasses.replace(tiny_config(tmp_path, **SHORT, replay={"num_shards": 3}), name="fresh")
    refused(fresh, RunDirectoryError, "No space left on device")


@pytest.mark.parametrize(
    ("sections", "kind", "words"),
    [
        ({"env": "amago_ray/TMaze-v0"}, ConfigError, "env: expected that of the run"),
        ({"seed": 4}, ConfigError, "seed: expected 3, with which the run .* began, got 4"),
        ({"replay": {"num_shards": 2}}, CheckpointError, r"expected replay\.num_shards 1, got 2"),
        ({"agent": {"num_critics": 3}}, CheckpointError, "expected one of this agent"),
    ],
    ids=["env", "seed", "shards", "networks"],
)
def test_a_run_goes_on_as_what_it_was(
    tmp_path: Path, sections: dict[str, Any], kind: type[AmagoRayError], words: str
) -> None:
    config = tiny_config(tmp_path, relabel={"kind": "none"}, exploration={"kind": "none"}, **SHORT)
    amago_ray.train(config, local=True)
    changed = tiny_config(tmp_path, relabel={"kind": "none"}, exploration={"kind": "none"}, **{**SHORT, **sections})
    refused(changed, kind, words, resume=True)


def test_one_process_has_one_learner(tmp_path: Path) -> None:
    words = r"^learner\.num_learners: expected 1 in one process without Ray, got 2$"
    refused(tiny_config(tmp_path, learner={"num_learners": 2}, **SHORT), ConfigError, words)
    assert not (tmp_path / "tiny").exists()


def test_runs_of_equal_seed_do_not_swallow_each_others_episodes(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, replay={"directory": str(tmp_path / "data")}, **SHORT)
    amago_ray.train(config, local=True)
    first = run_ids(tmp_path / "data")
    amago_ray.train(config, local=True, overwrite=True)
    second = run_ids(tmp_path / "data")
    assert len(first) == len(second) == 1
    assert first != second
    assert second == {json.loads((tmp_path / "tiny" / "metadata.json").read_text())["run_id"]}
    other = dataclasses.replace(config, name="other")
    refused(other, DataError, "holds episodes of another run")
    amago_ray.train(other, local=True, overwrite=True)
    assert not run_ids(tmp_path / "data") & (first | second)
    refused(config, DataError, "expected replay of run id", resume=True)


def run_ids(replay: Path) -> set[int]:
    """Those of all stored episodes."""
    streams = (read_stream(path.read_bytes(), str(path))[1] for path in replay.rglob("*.arrows"))
    return {episode.header.episode_id.run for episodes in streams for episode in episodes}


@pytest.mark.parametrize(
    ("sizes", "encoder", "remedy"),
    [
        ([10_000], {}, "let the environment show its digits (MultiDiscrete)"),
        ([6000, 6000], {}, 'name "observation" in model.timestep_encoder.token_keys'),
        ([6000, 6000], {"token_keys": ["observation"]}, None),
        ([9999], {}, None),
    ],
)
def test_observations_of_very_many_values_are_warned_of_with_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sizes: list[int], encoder: dict[str, Any], remedy: str | None
) -> None:
    config = tiny_config(
        tmp_path,
        env={"id": "helpers.peculiar_envs:Counts", "kwargs": {"sizes": sizes}},
        model={"timestep_encoder": encoder},
        relabel={"kind": "none"},
        exploration={"kind": "epsilon_greedy"},
        stop={"learner_steps": 1},
        evaluation={"num_episodes": 0},
    )
    with caplog.at_level(logging.WARNING):
        amago_ray.train(config, local=True)
    assert (" columns, one for each value, which is slow: " in caplog.text) == (remedy is not None)
    assert (remedy or "") in caplog.text


def test_environments_that_change_the_folder_move_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    sections = {
        "env": {"id": "helpers.chdir_env:ChdirEnv", "kwargs": {"folder": str(tmp_path)}, "max_episode_steps": 9}
    }
    config = tiny_config(
        Path("runs"),
        relabel={"kind": "none"},
        replay={"directory": "data"},
        exploration={"kind": "none"},
        evaluation={"film_at_end": False},
        **sections,
        **SHORT,
    )
    outcome = amago_ray.train(config, local=True)
    assert Path.cwd() == tmp_path / "here"
    assert outcome.run_directory == tmp_path / "here" / "runs" / "tiny"
    assert {path.name for path in tmp_path.iterdir()} == {"here"}
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"runs", "data"}
    assert amago_ray.evaluate("runs/tiny", num_episodes=2)["eval/length_mean"] == 9
    assert Path.cwd() == tmp_path / "here"
