"""The run directory: taken or free, whose it is, what is removed when, sessions, status, and what cannot be written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.one_line import one_line
from helpers.refusals import refusal
from helpers.run_directories import begun

from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.config.load import load_config
from amago_ray.config.replay import ReplayConfig
from amago_ray.data.files import write_atomically
from amago_ray.errors import AmagoRayError, DataError, RunDirectoryError
from amago_ray.replay.owner import Claim, DirectoryOwner
from amago_ray.training.checkpoints import Checkpoints
from amago_ray.training.run_directory import RunDirectory

FILES = {"policy.safetensors": b"weights", "training_state.pt": b"state", "config.yaml": b"env: x"}
SEGMENT = "segment_00000000_000000.arrows"


def make_config(tmp_path: Path, **settings: object) -> Config:
    return Config(env=EnvConfig(id="some-env"), name="mine", runs_dir=str(tmp_path / "runs"), **settings)


def store(replay: Path, number: int, run_id: int) -> Path:
    """A shard's directory with a segment, as a run that is over leaves it."""
    directory = replay / f"shard_{number}"
    owner = DirectoryOwner(directory, Claim(run_id, "new"), shard=number, incarnation=0)
    owner.begin()
    owner.close()
    (directory / SEGMENT).write_bytes(b"episodes")
    return directory


def occupied(config: Config) -> RunDirectory:
    """The directory of a run that has reported, saved, stored and filmed."""
    directory = begun(config)
    directory.reports.write_text("{}\n")
    directory.write_status({"state": "ended"})
    directory.output.write_text("printed")
    (directory.path / "events.out.tfevents.1.host.2.0.amago_ray").write_bytes(b"events")
    checkpoints = Checkpoints(directory.checkpoints, keep=3)
    checkpoints.save(10, FILES, {})
    checkpoints.save_best(10, FILES, {})
    store(directory.replay, 0, directory.claim.run_id)
    directory.film.parent.mkdir()
    directory.film.write_bytes(b"GIF89a")
    return directory


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def refused(config: Config, kind: type[AmagoRayError], words: str, **options: bool) -> str:
    with refusal(Path(config.runs_dir), kind, words) as line:
        begun(config, **options)
    return line[0]


# --- runs -----------------------------------------------------------------------------------------------------------


def test_a_new_run_keeps_its_settings_and_surroundings(tmp_path: Path) -> None:
    config = make_config(tmp_path, seed=4)
    directory = begun(config)
    assert directory.path == tmp_path / "runs" / "mine"
    assert load_config(directory.path / "config.yaml") == config
    assert directory.session == 1
    assert directory.metadata["versions"]["torch"]
    assert directory.metadata["num_cpus"] == os.cpu_count()
    assert directory.metadata["seed"] == 4
    assert directory.metadata["run_id"] == directory.claim.run_id == RunDirectory.open(directory.path).claim.run_id
    assert directory.read_status() == {}


def test_run_ids_are_random_numbers_of_63_bits_and_equal_length(tmp_path: Path) -> None:
    """Of equal length, so that the bytes of stored episodes do not depend on them."""
    ids = {begun(replace(make_config(tmp_path), name=f"run{number}")).claim.run_id for number in range(20)}
    assert len(ids) == 20
    assert all(run_id < 2**63 and len(str(run_id)) == 19 for run_id in ids)


def test_a_taken_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    path = occupied(config).path
    before = contents(path)
    message = refused(config, RunDirectoryError, "taken by an earlier run")
    assert "--resume" in message
    assert "--overwrite" in message
    assert contents(path) == before


def test_a_start_that_failed_takes_nothing(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    first = begun(config).claim.run_id
    directory = begun(replace(config, seed=9))
    assert directory.session == 1
    assert directory.claim.run_id != first


def test_episodes_alone_take_a_directory_too(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    directory = begun(config)
    store(directory.replay, 3, directory.claim.run_id)
    refused(config, RunDirectoryError, "taken by an earlier run")


def test_resume_counts_sessions_and_keeps_everything(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    before = occupied(config)
    for session in (2, 3):
        directory = begun(replace(config, stop=replace(config.stop, env_steps=session)), resume=True)
        assert directory.session == session
        assert directory.claim == Claim(before.claim.run_id, "resume")
        assert directory.checkpoints.is_dir()
        assert directory.replay.is_dir()
        assert directory.reports.read_text() == "{}\n"
    assert load_config(directory.path / "config.yaml").stop.env_steps == 3, "settings given on resume count"
    assert directory.metadata["sessions"] == 3


def test_a_run_of_a_version_without_run_ids_gets_one_when_it_is_resumed(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    directory = occupied(config)
    found = directory.metadata
    del found["run_id"]
    (directory.path / "metadata.json").write_text(json.dumps(found))
    (directory.replay / "shard_0" / "owner.json").write_text('{"shard": 0, "incarnation": 0, "token": "x"}')
    resumed = begun(config, resume=True)
    assert resumed.session == 2
    assert resumed.metadata["run_id"] == resumed.claim.run_id > 2**59
    assert begun(config, resume=True).claim.run_id == resumed.claim.run_id
    DirectoryOwner(resumed.replay / "shard_0", resumed.claim, shard=0, incarnation=1).close()
    assert (directory.replay / "shard_0" / SEGMENT).exists()


def test_a_copy_is_resumed_with_a_copy_of_replay_alone(tmp_path: Path) -> None:
    shared = tmp_path / "data"
    config = make_config(tmp_path, replay=ReplayConfig(directory=str(shared)))
    directory = begun(config)
    store(shared, 0, directory.claim.run_id)
    directory.reports.write_text("{}\n")
    directory.close()
    shutil.copytree(directory.path, tmp_path / "runs" / "copy")
    copied = replace(config, name="copy")
    line = refused(copied, RunDirectoryError, "a copy of the run", resume=True)
    assert str(directory.path) in line
    assert "replay.directory" in line
    begun(config, resume=True).close()

    shutil.copytree(shared, tmp_path / "data_copy")
    begun(replace(copied, replay=ReplayConfig(directory=str(tmp_path / "data_copy"))), resume=True).close()


@pytest.mark.parametrize("kept", ["outside", "inside"])
def test_a_run_that_was_moved_or_copied_whole_is_resumed(tmp_path: Path, kept: str) -> None:
    settings = {"replay": ReplayConfig(directory=str(tmp_path / "data"))} if kept == "outside" else {}
    config = make_config(tmp_path, **settings)
    directory = begun(config)
    directory.reports.write_text("{}\n")
    store(directory.replay, 0, directory.claim.run_id)
    directory.close()
    if kept == "inside":
        shutil.copytree(directory.path, tmp_path / "runs" / "other")
    else:
        directory.path.rename(tmp_path / "runs" / "other")
    begun(replace(config, name="other"), resume=True).close()


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    refused(make_config(tmp_path), RunDirectoryError, "nothing to resume", resume=True)
    assert not (tmp_path / "runs").exists()


# --- replacing a run ------------------------------------------------------------------------------------------------


def test_overwrite_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    path = occupied(config).path
    old = RunDirectory.open(path).claim.run_id
    mine = {
        "notes.txt",
        "mine/config.yaml",
        "events.out.tfevents.1.other_tool",
        "videos/holiday.mp4",
        "replay/recorded.npz",
        "replay/shard_0/mine.bin",
        "replay/shard_7/mine.bin",
        "replay/shard_000.tar",
        "checkpoints/notes.txt",
        "checkpoints/step_000000010/notes.txt",
        "checkpoints/step_000000010_backup/policy.safetensors",
        "checkpoints/step_000000777/policy.safetensors",
        "checkpoints/step_final/policy.safetensors",
    }
    for name in mine:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    directory = begun(config, overwrite=True)
    # A shard's mark stays where something else is in its directory, for the new shard to take over.
    kept = {".lock", "config.yaml", "metadata.json", "replay/shard_0/owner.json"}
    assert set(contents(path)) == kept | mine
    assert all((path / name).read_text() == name for name in mine)
    assert directory.session == 1
    assert directory.claim.mode == "overwrite"
    assert directory.metadata["run_id"] != old
    DirectoryOwner(path / "replay" / "shard_0", directory.claim, shard=0, incarnation=0).begin()


def test_overwrite_leaves_nothing_of_a_run_that_is_all_ours(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    path = occupied(config).path
    (path / ".status.json.77.tmp").write_text("{")
    (path / "checkpoints" / ".step_000000020.tmp").mkdir()
    begun(config, overwrite=True)
    assert {entry.name for entry in path.iterdir()} == {".lock", "config.yaml", "metadata.json"}


def test_nothing_is_removed_before_the_new_run_is_known_to_start(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    path = occupied(config).path
    before = contents(path)
    for options in ({"overwrite": True}, {"resume": True}):
        directory = RunDirectory.of(replace(config, seed=5))
        directory.reserve(**options)
        directory.close()
        assert contents(path) == before


def test_a_run_that_does_not_start_leaves_no_directory(tmp_path: Path) -> None:
    directory = RunDirectory.of(make_config(tmp_path))
    directory.reserve()
    directory.close()
    directory.close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    directory.reserve()
    directory.close()
    assert list(tmp_path.rglob("*")) == [tmp_path / "runs"]


@pytest.mark.parametrize("num_written", [0, 1])
def test_where_the_new_settings_find_no_room_the_old_run_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_written: int
) -> None:
    config = make_config(tmp_path)
    path = occupied(config).path
    before = contents(path)
    directory = RunDirectory.of(replace(config, seed=5))
    directory.reserve(overwrite=True)
    original, left = os.fsync, [True] * num_written
    monkeypatch.setattr(os, "fsync", lambda file: original(file) if left and left.pop() else full_disk())
    with pytest.raises(RunDirectoryError, match="cannot be written: No space left on device") as error:
        directory.begin(config)
    one_line(error)
    directory.close()
    assert contents(path) == before


# --- what is the user's ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}], ids=["new", "overwrite", "resume"])
@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "metadata.json",
        "metrics.jsonl",
        "status.json",
        "videos/holiday.mp4",
        "replay/recorded.npz",
        "replay",
        "checkpoints/step_000000010/policy.safetensors",
    ],
)
def test_a_folder_of_the_users_own_is_refused(tmp_path: Path, name: str, options: dict[str, bool]) -> None:
    config = make_config(tmp_path)
    path = tmp_path / "runs" / "mine" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"seed": 7}')
    message = refused(config, RunDirectoryError, "that no run has written", **options)
    assert f'"{name.partition("/")[0]}"' in message
    assert contents(tmp_path / "runs" / "mine") == {name: b'{"seed": 7}'}


def test_beside_files_of_other_names_a_run_may_live(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    path = tmp_path / "runs" / "mine"
    path.mkdir(parents=True)
    for name in ("notes.txt", "events.out.tfevents.1.other_tool", ".lock"):
        (path / name).write_text("mine")
    begun(config)
    assert contents(path)["notes.txt"] == contents(path)[".lock"] == b"mine"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', '{"versions": 1}'])
def test_metadata_of_something_else_is_no_mark(tmp_path: Path, content: str) -> None:
    path = tmp_path / "runs" / "mine" / "metadata.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    refused(make_config(tmp_path), RunDirectoryError, "that no run has written", overwrite=True)
    assert path.read_text() == content


def test_a_folder_where_a_run_writes_a_file_is_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    path = occupied(config).path
    (path / "status.json").unlink()
    (path / "status.json").mkdir()
    (path / "status.json" / "mine").write_text("x")
    refused(config, RunDirectoryError, r"status\.json: expected a file that a run has written", overwrite=True)
    assert (path / "metrics.jsonl").exists()


def test_a_start_that_was_killed_before_its_mark_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "mine"
    path.mkdir(parents=True)
    (path / ".lock").touch()
    (path / ".metadata.json.77.tmp").write_text("{")
    # As a shard that has opened but not begun leaves it.
    owner = DirectoryOwner(path / "replay" / "shard_0", Claim(77, "new"), shard=0, incarnation=0)
    owner.begin()
    owner.close()
    directory = begun(make_config(tmp_path))
    assert directory.session == 1
    DirectoryOwner(path / "replay" / "shard_0", directory.claim, shard=0, incarnation=0).begin()


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    path = occupied(config).path
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("checkpoints", "videos", "metrics.jsonl", "replay/shard_0"):
        target = elsewhere / Path(name).name
        (path / name).rename(target)
        (path / name).symlink_to(target)
    before = contents(elsewhere)
    assert len(before) > 8
    begun(config, overwrite=True)
    assert contents(elsewhere) == before
    assert {entry.name for entry in path.iterdir()} == {".lock", "config.yaml", "metadata.json"}


def test_a_run_may_live_behind_a_link(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(tmp_path / "disk")
    occupied(config)
    begun(config, overwrite=True)
    assert (tmp_path / "runs" / "mine").is_symlink()
    assert {entry.name for entry in (tmp_path / "disk").iterdir()} == {".lock", "config.yaml", "metadata.json"}


# --- replay elsewhere -----------------------------------------------------------------------------------------------


def test_replay_elsewhere_is_part_of_what_is_taken_and_overwritten(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    config = make_config(tmp_path, replay=ReplayConfig(directory=str(shared), num_shards=2))
    directory = occupied(config)
    run_id = directory.claim.run_id
    store(shared, 1, run_id)
    old = store(shared, 5, run_id)
    (shared / "notes.txt").write_text("x")
    fresh = replace(config, name="other")
    message = refused(fresh, DataError, "shard_0: holds episodes of another run")
    assert "--overwrite" in message
    assert not (tmp_path / "runs" / "other").exists()
    begun(config, resume=True)
    assert (old / SEGMENT).exists()
    begun(config, overwrite=True)
    assert {entry.name for entry in shared.iterdir()} == {"notes.txt"}


def test_shards_of_other_runs_are_left_to_who_opens_them(tmp_path: Path) -> None:
    """What lies beside this run's shards in a shared directory is not in its way."""
    shared = tmp_path / "shared"
    config = make_config(tmp_path, replay=ReplayConfig(directory=str(shared)))
    occupied(config)
    other, beyond = store(shared, 3, 77), shared / "shard_7"
    beyond.mkdir()
    (beyond / "mine.bin").write_bytes(b"1")
    (shared / "shard_000.tar").write_bytes(b"2")
    begun(config, overwrite=True)
    assert set(contents(shared)) == {f"shard_3/{SEGMENT}", "shard_3/owner.json", "shard_7/mine.bin", "shard_000.tar"}
    assert other.exists()


def test_a_folder_of_the_users_own_is_no_shard(tmp_path: Path) -> None:
    shared = tmp_path / "data"
    (shared / "shard_0").mkdir(parents=True)
    (shared / "shard_0" / "mine.bin").write_bytes(b"1")
    config = make_config(tmp_path, replay=ReplayConfig(directory=str(shared)))
    for options in ({}, {"overwrite": True}):
        refused(config, DataError, r"expected a replay shard's folder, got one without owner\.json", **options)
    assert contents(shared) == {"shard_0/mine.bin": b"1"}


def test_another_run_that_lives_keeps_its_replay(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    living = DirectoryOwner(shared / "shard_0", Claim(77, "new"), shard=0, incarnation=0)
    living.begin()
    (shared / "shard_0" / SEGMENT).write_bytes(b"episodes")
    config = make_config(tmp_path, replay=ReplayConfig(directory=str(shared)))
    refused(config, DataError, "in use by run id 77, which is running", overwrite=True)
    living.close()
    begun(config, overwrite=True)
    assert (shared / "shard_0" / SEGMENT).exists(), "the shard removes it when it begins"


@pytest.mark.parametrize("inside", ["", "replay", "mine/deeper"])
def test_replay_may_lie_inside_the_run(tmp_path: Path, inside: str) -> None:
    place = tmp_path / "runs" / "mine" / inside
    config = make_config(tmp_path, replay=ReplayConfig(directory=str(place)))
    occupied(config)
    begun(config, overwrite=True)
    assert set(contents(tmp_path / "runs" / "mine")) == {".lock", "config.yaml", "metadata.json"}


# --- places ---------------------------------------------------------------------------------------------------------


def test_places_stay_what_they_were_when_the_working_folder_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config(env=EnvConfig(id="e"), runs_dir="runs", name="mine", replay=ReplayConfig(directory="data"))
    directory = RunDirectory.of(config)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert directory.path == tmp_path / "runs" / "mine"
    assert directory.replay == tmp_path / "data"


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}], ids=["new", "overwrite", "resume"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, options: dict[str, bool]) -> None:
    (tmp_path / "runs").write_text("a file")
    words = "nothing to resume" if "resume" in options else "cannot be written: Not a directory"
    assert str(tmp_path / "runs" / "mine") in refused(make_config(tmp_path), RunDirectoryError, words, **options)


def test_a_name_that_no_file_system_takes_is_one_line(tmp_path: Path) -> None:
    refused(replace(make_config(tmp_path), name="x" * 300), RunDirectoryError, "cannot be written: File name too long")


@pytest.mark.parametrize("options", [{}, {"overwrite": True}], ids=["new", "overwrite"])
def test_a_file_of_the_same_name_is_one_line(tmp_path: Path, options: dict[str, bool]) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").write_text("a file")
    refused(make_config(tmp_path), RunDirectoryError, "expected a folder, got a file", **options)
    assert (tmp_path / "runs" / "mine").read_text() == "a file"


def test_a_link_to_nowhere_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(tmp_path / "gone")
    refused(make_config(tmp_path), RunDirectoryError, "cannot be written", overwrite=True)
    assert not (tmp_path / "gone").exists()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "mine"
    path.mkdir(parents=True)
    (path / ".lock").symlink_to(tmp_path / "gone")
    refused(make_config(tmp_path), RunDirectoryError, "cannot be written")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_place_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def read_only(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", read_only)
    refused(make_config(tmp_path), RunDirectoryError, f"cannot be written: {os.strerror(number)}")


def test_open_wants_a_run(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")
    for path, words in (
        (tmp_path, "not a run directory"),
        (tmp_path / "nothing", "not a run directory"),
        (tmp_path / "text", "expected the folder of a run or of a checkpoint, got a file"),
    ):
        with pytest.raises(RunDirectoryError, match=words) as error:
            RunDirectory.open(path)
        one_line(error)


# --- status ---------------------------------------------------------------------------------------------------------


def test_broken_files_are_one_line(tmp_path: Path) -> None:
    directory = begun(make_config(tmp_path))
    (directory.path / "status.json").write_text('{"state": ')
    with pytest.raises(RunDirectoryError, match=r"status\.json: expected JSON") as error:
        directory.read_status()
    one_line(error)


def full_disk(*args: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a20_status_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/algorithm.md §14.20."""
    directory = begun(make_config(tmp_path))
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
    """docs/algorithm.md §14.20: until the rename the old content stands, and afterwards the new one."""
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


@pytest.mark.parametrize("state", ["starting", "running"])
def test_a_run_whose_process_is_gone_has_died(tmp_path: Path, state: str) -> None:
    directory = RunDirectory.of(make_config(tmp_path))
    directory.reserve()
    directory.begin(make_config(tmp_path))
    directory.write_status({"state": state})
    assert RunDirectory.open(directory.path).read_status()["state"] == state
    directory.close()
    status = RunDirectory.open(directory.path).read_status()
    assert status["state"] == "died"
    assert status["pid"] == os.getpid()
    directory.write_status({"state": "ended"})
    assert directory.read_status()["state"] == "ended"


@pytest.mark.parametrize(("silence_s", "state"), [(1.0, "running"), (3600.0, "died")])
def test_a_run_on_another_machine_counts_as_dead_when_it_is_silent(
    tmp_path: Path, silence_s: float, state: str
) -> None:
    """Not every file system shows one machine's locks to another."""
    directory = begun(make_config(tmp_path))
    status = {"state": "running", "host": "elsewhere", "pid": 1, "unix_time_s": time.time() - silence_s}
    (directory.path / "status.json").write_text(json.dumps(status))
    assert directory.read_status()["state"] == state


# --- two processes --------------------------------------------------------------------------------------------------


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    directory = RunDirectory.of(config)
    directory.reserve()
    refused(config, RunDirectoryError, "another process is training this run", overwrite=True)
    directory.begin(config)
    refused(config, RunDirectoryError, "another process is training this run", overwrite=True)
    assert (directory.path / "config.yaml").exists(), "what the other process writes is left alone"
    directory.close()
    begun(config, overwrite=True)


RESERVE = """
import sys
from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.training.run_directory import RunDirectory

config = Config(env=EnvConfig(id="some-env"), name="mine", runs_dir=sys.argv[1])
directory = RunDirectory.of(config)
directory.reserve()
directory.begin(config)
directory.write_status({"state": "running"})
print("running", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_lets_its_run_go(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    arguments = [sys.executable, "-c", RESERVE, config.runs_dir]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        path = tmp_path / "runs" / "mine"
        assert RunDirectory.open(path).read_status()["state"] == "running"
        refused(config, RunDirectoryError, "another process is training this run", overwrite=True)
        process.kill()
    assert RunDirectory.open(path).read_status()["state"] == "died"
    begun(config)
