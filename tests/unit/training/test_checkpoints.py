"""Checkpoints: whole or not at all, found again, pruned, verified."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.one_line import one_line

from amago_ray.errors import CheckpointError
from amago_ray.training.checkpoints import Checkpoints, open_checkpoint, remove_checkpoints

FILES = {"policy.safetensors": b"weights" * 1000, "training_state.pt": b"state"}


def save(checkpoints: Checkpoints, step: int) -> Path:
    return checkpoints.save(step, {**FILES, "config.yaml": str(step).encode()}, {"learner_steps": step})


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def corrupt(path: Path) -> None:
    content = bytearray((path / "policy.safetensors").read_bytes())
    content[1000] ^= 1
    (path / "policy.safetensors").write_bytes(content)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=3)
    assert not checkpoints.exists()
    path = save(checkpoints, 7)
    assert path == tmp_path / "checkpoints" / "step_000000007"
    assert checkpoints.exists()
    assert (tmp_path / "checkpoints" / "latest").read_text() == path.name
    found = Checkpoints(tmp_path / "checkpoints", keep=3).load()
    assert found.path == path
    assert found.metadata["learner_steps"] == 7
    for name, content in FILES.items():
        assert found.read(name) == content
    assert names(path) == ["config.yaml", "metadata.json", "policy.safetensors", "training_state.pt"]


def test_old_ones_are_pruned_and_the_best_stays(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save_best(5, FILES, {})
    for step in (10, 20, 30, 100):
        save(checkpoints, step)
    assert names(tmp_path) == ["best", "best_000000005", "latest", "step_000000030", "step_000000100"]
    checkpoints.save_best(100, FILES, {})
    assert names(tmp_path) == ["best", "best_000000100", "latest", "step_000000030", "step_000000100"]
    assert checkpoints.load("best").path.name == "best_000000100"
    assert checkpoints.load("step_000000030").metadata["learner_steps"] == 30
    assert checkpoints.load().metadata["learner_steps"] == 100


def test_a_second_checkpoint_of_one_step_replaces_the_first(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for note in "abc":
        checkpoints.save(10, FILES, {"note": note})
        assert len([name for name in names(tmp_path) if name.startswith("step_")]) == 1
        assert checkpoints.load().metadata["note"] == note
    save(checkpoints, 9)
    assert checkpoints.load().metadata["learner_steps"] == 9


class DiskFailure:
    """Makes the n-th of a kind of system call fail, and all that follow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, target: Any, name: str, after: int) -> None:
        original: Callable[..., Any] = getattr(target, name)
        self.calls = 0

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*args, **kwargs)

        monkeypatch.setattr(target, name, call)


@pytest.mark.parametrize("same_step", [False, True], ids=["a later step", "the same step"])
@pytest.mark.parametrize(
    ("target", "name"), [(os, "fsync"), (Path, "replace"), (Path, "mkdir")], ids=["fsync", "replace", "mkdir"]
)
def test_a20_a_write_that_fails_at_any_point_leaves_the_old_checkpoint(
    tmp_path: Path, target: Any, name: str, same_step: bool
) -> None:
    """docs/algorithm.md §14.20: whatever call fails, a reader finds the old checkpoint whole, or the new one whole."""
    step = 10 if same_step else 20
    for after in range(8):
        directory = tmp_path / str(after)
        checkpoints = Checkpoints(directory, keep=1)
        checkpoints.save(10, FILES, {"note": "old"})
        with pytest.MonkeyPatch.context() as patch:
            failure = DiskFailure(patch, target, name, after)
            message = None
            try:
                checkpoints.save(step, FILES, {"note": "new"})
            except CheckpointError as error:
                message = str(error)
        failed = message is not None
        assert message is None or message.endswith("cannot be written: No space left on device")
        found = Checkpoints(directory, keep=1).load()
        assert found.metadata["note"] in (("old", "new") if failed else ("new",))
        # And the next one works, and leaves nothing behind.
        checkpoints.save(30, FILES, {"note": "next"})
        assert checkpoints.load().metadata["note"] == "next"
        assert names(directory) == ["latest", "step_000000030"]
        if not failed:
            break
    assert not failed, "the last attempt had all the calls it needs"
    assert failure.calls >= 1
    assert after >= 1


def test_a20_a_process_killed_while_writing_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """docs/algorithm.md §14.20: half a directory under its temporary name is neither found nor in the way, and goes."""
    checkpoints = Checkpoints(tmp_path, keep=3)
    save(checkpoints, 10)
    half = tmp_path / ".step_000000020.tmp"
    half.mkdir()
    (half / "policy.safetensors").write_bytes(b"wei")
    (tmp_path / ".latest.77.tmp").write_text("step_0000")
    assert checkpoints.load().metadata["learner_steps"] == 10
    save(checkpoints, 20)
    assert names(tmp_path) == ["latest", "step_000000010", "step_000000020"]


def test_the_pointer_moves_last(tmp_path: Path) -> None:
    """Killed between the two renames, the older checkpoint is still the latest, and whole."""
    checkpoints = Checkpoints(tmp_path, keep=3)
    save(checkpoints, 10)
    with pytest.MonkeyPatch.context() as patch:
        DiskFailure(patch, Path, "replace", 1)
        with pytest.raises(CheckpointError):
            save(checkpoints, 20)
    assert (tmp_path / "latest").read_text() == "step_000000010"
    assert checkpoints.load().metadata["learner_steps"] == 10


def test_a_broken_newest_is_skipped_with_a_warning_in_favour_of_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=5)
    paths = [save(checkpoints, step) for step in (10, 20, 30, 40)]
    corrupt(paths[3])
    (paths[2] / "metadata.json").write_text("{")
    (paths[1] / "training_state.pt").unlink()
    with caplog.at_level(logging.WARNING):
        assert checkpoints.load().metadata["learner_steps"] == 10
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert all("\n" not in message for message in messages)
    assert "step_000000040/policy.safetensors: expected sha256" in messages[0]
    assert "step_000000030" in messages[1]
    assert "step_000000020" in messages[2]
    assert "training_state.pt" in messages[2]


def test_pruning_after_going_back_never_takes_what_was_just_saved(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 10)
    broken = Checkpoints(tmp_path, keep=2).save(40, FILES, {})
    corrupt(broken)
    assert checkpoints.load().metadata["learner_steps"] == 10
    # The run goes on from step 10.
    save(checkpoints, 20)
    assert checkpoints.load().metadata["learner_steps"] == 20
    assert names(tmp_path) == ["latest", "step_000000020"], "step 40 belongs to a past that was given up"


def test_a17_every_file_is_verified_by_its_hash(tmp_path: Path) -> None:
    """docs/algorithm.md §14.17."""
    path = save(Checkpoints(tmp_path, keep=1), 3)
    assert set(open_checkpoint(path).metadata["sha256"]) == {*FILES, "config.yaml"}
    corrupt(path)
    with pytest.raises(CheckpointError, match=r"policy.safetensors: expected sha256 \w{12}…, got \w{12}…") as error:
        open_checkpoint(path)
    one_line(error)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", "null", "{}", '{"sha256": []}', '{"sha256": null}', "\x00\xff"]
)
def test_broken_metadata_is_one_line(tmp_path: Path, content: str) -> None:
    path = save(Checkpoints(tmp_path, keep=1), 3)
    (path / "metadata.json").write_text(content)
    with pytest.raises(CheckpointError, match="not a readable checkpoint") as error:
        open_checkpoint(path)
    assert str(path) in one_line(error)


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    for name, words in (
        ("latest", "no readable checkpoint"),
        ("best", "no readable checkpoint"),
        ("step_7", "No such file"),
    ):
        with pytest.raises(CheckpointError, match=words) as error:
            checkpoints.load(name)
        assert "checkpoints" in one_line(error)
    found = Checkpoints(tmp_path, keep=1)
    path = save(found, 3)
    with pytest.raises(CheckpointError, match="cannot be read") as error:
        open_checkpoint(path).read("other")
    one_line(error)
    (tmp_path / "latest").write_bytes(b"\xff\xfe")
    assert found.load().path == path, "a broken pointer hides nothing"


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot be written: Not a directory") as error:
        save(Checkpoints(tmp_path / "file" / "checkpoints", keep=1), 1)
    one_line(error)


def test_metadata_survives_exactly(tmp_path: Path) -> None:
    metadata = {"numbers": [0.1, 1e-300, 2**127, -1], "none": None, "nested": {"ü": True}}
    path = Checkpoints(tmp_path, keep=1).save(1, FILES, metadata)
    found = dict(open_checkpoint(path).metadata)
    found.pop("sha256")
    assert found == metadata
    assert json.loads((path / "metadata.json").read_text())["numbers"][2] == 2**127


# --- what is the user's ---------------------------------------------------------------------------------------------


MINE = (
    "notes.txt",
    "step_000000015/policy.safetensors",
    "step_000000016_backup/metadata.json",
    "step_final/policy.safetensors",
    "best_of_all/policy.safetensors",
    ".cache.tmp",
    ".mine.tmp/notes.txt",
)


def add_mine(directory: Path) -> None:
    for name in MINE:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(name)


def mine_is_whole(directory: Path) -> bool:
    return all((directory / name).read_text() == name for name in MINE)


def test_pruning_takes_checkpoints_alone(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 10)
    add_mine(tmp_path)
    (tmp_path / "step_000000010" / "notes.txt").write_text("mine")
    for step in (20, 30):
        save(checkpoints, step)
        checkpoints.save_best(step, FILES, {})
    assert mine_is_whole(tmp_path)
    assert names(tmp_path / "step_000000010") == ["notes.txt"]
    others = {name.partition("/")[0] for name in MINE} | {"step_000000010"}
    assert set(names(tmp_path)) - others == {"best", "best_000000030", "latest", "step_000000030"}
    assert checkpoints.load().metadata["learner_steps"] == 30


def test_removing_all_takes_checkpoints_alone(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    checkpoints = Checkpoints(directory, keep=3)
    for step in (10, 20):
        save(checkpoints, step)
    checkpoints.save_best(20, FILES, {})
    half = directory / ".step_000000030.tmp"
    half.mkdir()
    (half / "policy.safetensors").write_bytes(b"wei")
    add_mine(directory)
    elsewhere = save(Checkpoints(tmp_path / "elsewhere", keep=1), 40)
    (directory / elsewhere.name).symlink_to(elsewhere)
    remove_checkpoints(directory)
    assert mine_is_whole(directory)
    assert set(names(directory)) == {name.partition("/")[0] for name in MINE}
    assert open_checkpoint(elsewhere).metadata["learner_steps"] == 40
    remove_checkpoints(tmp_path / "nowhere")


def test_steps_beyond_nine_digits_are_steps_of_their_own(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (100_000_000, 999_999_999, 1_000_000_000):
        save(checkpoints, step)
    assert names(tmp_path) == ["latest", "step_1000000000", "step_999999999"]
    (tmp_path / "latest").unlink()
    assert checkpoints.load().metadata["learner_steps"] == 1_000_000_000
    save(checkpoints, 100_000_000)
    assert names(tmp_path) == ["latest", "step_100000000"], "those beyond it belong to a past that was given up"
