"""The run directory: taken or free, sessions, status, and what cannot be written."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.one_line import one_line

from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.load import load_config
from amago_ray.config.replay import ReplayConfig
from amago_ray.errors import RunDirectoryError
from amago_ray.training.run_directory import RunDirectory, write_atomically


def make_config(tmp_path: Path, **settings: object) -> Config:
    return Config(env=EnvConfig(id="some-env"), name="mine", runs_dir=str(tmp_path / "runs"), **settings)


def create(config: Config, *, resume: bool = False, overwrite: bool = False) -> RunDirectory:
    """The directory of a session that is over."""
    directory = RunDirectory.create(config, resume=resume, overwrite=overwrite)
    directory.release()
    return directory


def occupied(config: Config) -> RunDirectory:
    """The directory of a run that has reported and saved."""
    directory = create(config)
    (directory.path / "metrics.jsonl").write_text("{}\n")
    directory.checkpoints.mkdir()
    (directory.replay / "shard_0").mkdir(parents=True)
    return directory


def test_a_new_run_keeps_its_settings_and_surroundings(tmp_path: Path) -> None:
    config = make_config(tmp_path, seed=4)
    directory = create(config)
    assert directory.path == tmp_path / "runs" / "mine"
    assert load_config(directory.path / "config.yaml") == config
    assert directory.session == 1
    assert directory.metadata["versions"]["torch"]
    assert directory.metadata["num_cpus"] == os.cpu_count()
    assert directory.metadata["seed"] == 4
    assert directory.read_status() == {}
    assert RunDirectory.open(directory.path).path == directory.path


def test_a_taken_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    path = occupied(config).path
    with pytest.raises(RunDirectoryError, match="taken by an earlier run") as error:
        create(config)
    assert "--resume" in one_line(error)
    assert "--overwrite" in one_line(error)
    assert (path / "metrics.jsonl").exists()


def test_a_start_that_failed_takes_nothing(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    create(config)
    assert create(replace(config, seed=9)).session == 1


def test_resume_counts_sessions_and_keeps_everything(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    occupied(config)
    for session in (2, 3):
        directory = create(replace(config, seed=session), resume=True)
        assert directory.session == session
        assert directory.checkpoints.is_dir()
        assert directory.replay.is_dir()
        assert (directory.path / "metrics.jsonl").read_text() == "{}\n"
    assert load_config(directory.path / "config.yaml").seed == 3, "settings given on resume count"


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="nothing to resume") as error:
        create(make_config(tmp_path), resume=True)
    one_line(error)
    assert not (tmp_path / "runs").exists()


def test_overwrite_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    path = occupied(config).path
    for name in ("status.json", "events.out.tfevents.1.x", "notes.txt"):
        (path / name).write_text("x")
    (path / "mine").mkdir()
    directory = create(config, overwrite=True)
    names = {entry.name for entry in path.iterdir()}
    assert names == {".lock", "config.yaml", "metadata.json", "mine", "notes.txt"}
    assert directory.session == 1


def test_replay_elsewhere_is_part_of_what_is_taken_and_overwritten(tmp_path: Path) -> None:
    """Episodes of an earlier run with equal ids would hide those of a new one."""
    config = make_config(tmp_path, replay=ReplayConfig(directory=str(tmp_path / "shared")))
    shard = tmp_path / "shared" / "shard_0"
    shard.mkdir(parents=True)
    (tmp_path / "shared" / "notes.txt").write_text("x")
    create(config)
    shard.mkdir(exist_ok=True)
    (shard / "segment_0.arrow").write_bytes(b"x")
    with pytest.raises(RunDirectoryError, match=r"replay\.directory holds episodes of an earlier run") as error:
        create(config)
    assert "--overwrite" in one_line(error)
    assert (shard / "segment_0.arrow").exists()
    (tmp_path / "runs" / "mine" / "metrics.jsonl").write_text("{}\n")
    create(config, resume=True)
    assert (shard / "segment_0.arrow").exists()
    create(config, overwrite=True)
    assert not shard.exists()
    assert (tmp_path / "shared" / "notes.txt").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "runs").write_text("a file")
    words = "nothing to resume" if resume else "cannot be written: Not a directory"
    with pytest.raises(RunDirectoryError, match=words) as error:
        create(make_config(tmp_path), resume=resume)
    assert str(tmp_path / "runs" / "mine") in one_line(error)


def test_a_name_that_no_file_system_takes_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="cannot be written: File name too long") as error:
        create(replace(make_config(tmp_path), name="x" * 300))
    one_line(error)


def test_a_file_of_the_same_name_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").write_text("a file")
    with pytest.raises(RunDirectoryError, match="cannot be written") as error:
        create(make_config(tmp_path))
    one_line(error)
    assert (tmp_path / "runs" / "mine").read_text() == "a file"


def test_open_wants_a_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RunDirectoryError, match="not a run directory") as error:
            RunDirectory.open(path)
        one_line(error)


def test_broken_files_are_one_line(tmp_path: Path) -> None:
    directory = create(make_config(tmp_path))
    (directory.path / "status.json").write_text('{"state": ')
    with pytest.raises(RunDirectoryError, match=r"status\.json: expected JSON") as error:
        directory.read_status()
    one_line(error)


def full_disk(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a20_status_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PITFALLS A20."""
    directory = create(make_config(tmp_path))
    directory.write_status({"state": "running", "metrics": {"a": 1.0}})
    assert directory.read_status()["metrics"] == {"a": 1.0}
    before = (directory.path / "status.json").read_bytes()
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(RunDirectoryError, match="No space left") as error:
        directory.write_status({"state": "ended", "metrics": {"a": 2.0}})
    one_line(error)
    assert (directory.path / "status.json").read_bytes() == before
    assert not list(directory.path.glob(".*.tmp"))


def test_a20_readers_never_see_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PITFALLS A20: until the rename the old content stands, and afterwards the new one."""
    path = tmp_path / "status.json"
    write_atomically(path, b"old")
    seen = []
    original = Path.replace

    def replace_and_look(self: Path, target: Path) -> Path:
        seen.append((path.read_bytes(), self.read_bytes()))
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace_and_look)
    write_atomically(path, b"new" * 1000)
    assert seen == [(b"old", b"new" * 1000)]
    assert path.read_bytes() == b"new" * 1000
    assert json.dumps([entry.name for entry in tmp_path.iterdir()]) == '["status.json"]'


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    directory = RunDirectory.create(config, resume=False, overwrite=False)
    with pytest.raises(RunDirectoryError, match="another process is training this run"):
        RunDirectory.create(config, resume=False, overwrite=True)
    assert (directory.path / "config.yaml").exists(), "what the other process writes is left alone"
    directory.release()
    RunDirectory.create(config, resume=False, overwrite=True).release()
