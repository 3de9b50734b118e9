"""Who may write in a shard's directory, and what becomes of another run's files there."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from helpers.episodes import make_episode
from helpers.one_line import one_line

from amago_ray.config.replay import ReplayConfig
from amago_ray.errors import DataError, ReplacedError
from amago_ray.relabel import NoRelabeler
from amago_ray.replay import ReplayShard
from amago_ray.replay.layout import find_shards, remove_shard
from amago_ray.replay.owner import NO_RUN, Claim, DirectoryOwner
from amago_ray.replay.owner_file import read_owner

RUN, OTHER = 2**62, 2**62 + 1
SEGMENT = "segment_00000000_000000.arrows"


def claim(
    directory: Path,
    run_id: int = RUN,
    mode: Literal["new", "resume", "overwrite"] = "new",
    *,
    shard: int = 0,
    incarnation: int = 0,
) -> DirectoryOwner:
    return DirectoryOwner(directory, Claim(run_id, mode), shard=shard, incarnation=incarnation)


def occupied(directory: Path, run_id: int | None = OTHER) -> Path:
    """The directory of a shard of a run that is over, with a segment; run_id None: as earlier versions wrote it."""
    owner = claim(directory, run_id or 0)
    owner.begin()
    owner.close()
    if run_id is None:
        owner = {"shard": 0, "incarnation": 5, "token": "x"}
        (directory / "owner.json").write_text(json.dumps(owner))
    (directory / SEGMENT).write_bytes(b"episodes")
    return directory


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_newer_incarnations_take_over_and_older_ones_are_fenced(tmp_path: Path) -> None:
    first = claim(tmp_path)
    first.check()
    second = claim(tmp_path, incarnation=1)
    second.check()
    with pytest.raises(ReplacedError, match="belongs to incarnation 1 of this shard, got the older incarnation 0"):
        first.check()
    with pytest.raises(DataError, match="belongs to incarnation 1"):
        claim(tmp_path)
    second.check()


def test_of_equal_incarnations_the_later_claim_writes(tmp_path: Path) -> None:
    first = claim(tmp_path)
    second = claim(tmp_path)
    second.check()
    with pytest.raises(ReplacedError, match="claimed by another process of incarnation 0"):
        first.check()


def test_files_are_known_by_the_incarnation_that_began_them(tmp_path: Path) -> None:
    assert claim(tmp_path / "a", incarnation=3).epoch == 3
    assert claim(tmp_path / "a", incarnation=5).epoch == 3
    assert claim(tmp_path / "b", incarnation=5).epoch == 5
    occupied(tmp_path / "other")
    replacing = claim(tmp_path / "other", mode="overwrite", incarnation=7)
    replacing.begin()
    assert replacing.epoch == 7
    # As earlier versions wrote it.
    (tmp_path / "a" / "owner.json").write_text(json.dumps({"shard": 0, "incarnation": 5, "token": "x", "run_id": RUN}))
    assert claim(tmp_path / "a", incarnation=6).epoch == 0


def test_other_shards_files_are_refused(tmp_path: Path) -> None:
    claim(tmp_path)
    with pytest.raises(DataError, match="expected the files of shard 1, got shard 0"):
        claim(tmp_path, shard=1, incarnation=5)


def test_a_touched_file_is_still_ours(tmp_path: Path) -> None:
    owner = claim(tmp_path)
    path = tmp_path / "owner.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    owner.check()


def test_a_directory_that_is_gone_is_noticed(tmp_path: Path) -> None:
    owner = claim(tmp_path / "shard")
    (tmp_path / "shard" / "owner.json").unlink()
    with pytest.raises(DataError, match="cannot append"):
        owner.check()


@pytest.mark.parametrize("mode", ["new", "resume", "overwrite"])
@pytest.mark.parametrize("content", ["", "{", "[]", "7", "null", '{"shard": 0}', '{"mine": 1}'])
def test_unreadable_owner_file_is_named(
    tmp_path: Path, content: str, mode: Literal["new", "resume", "overwrite"]
) -> None:
    (tmp_path / "owner.json").write_text(content)
    with pytest.raises(DataError, match=r"owner\.json: expected a shard's owner file") as error:
        claim(tmp_path, mode=mode)
    one_line(error)
    assert (tmp_path / "owner.json").read_text() == content


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write there"):
        claim(tmp_path / "file" / "shard")


# --- other runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_id", [OTHER, None], ids=["another run", "a run without id"])
def test_a_new_run_refuses_another_runs_episodes(tmp_path: Path, run_id: int | None) -> None:
    occupied(tmp_path, run_id)
    with pytest.raises(DataError, match=r"holds episodes of another run.*--overwrite") as error:
        claim(tmp_path)
    one_line(error)
    assert names(tmp_path) == {"owner.json", SEGMENT}


@pytest.mark.parametrize("run_id", [OTHER, None], ids=["another run", "a run without id"])
def test_overwrite_removes_another_runs_files_when_training_begins(tmp_path: Path, run_id: int | None) -> None:
    occupied(tmp_path, run_id)
    mine = {"mine.bin": b"1", "segment_notes.txt": b"2", "segment_00000001_000000.arrows.bak": b"3"}
    for name, content in mine.items():
        (tmp_path / name).write_bytes(content)
    before = (tmp_path / "owner.json").read_bytes()
    owner = claim(tmp_path, mode="overwrite")
    assert owner.replaces
    assert (tmp_path / SEGMENT).read_bytes() == b"episodes", "a run that does not start has cost nothing"
    assert (tmp_path / "owner.json").read_bytes() == before
    owner.begin()
    assert not owner.replaces
    assert names(tmp_path) == {"owner.json", *mine}
    assert all((tmp_path / name).read_bytes() == content for name, content in mine.items())
    owner.check()
    (tmp_path / SEGMENT).write_bytes(b"ours")
    again = claim(tmp_path, mode="overwrite", incarnation=1)
    again.begin()
    assert (tmp_path / SEGMENT).read_bytes() == b"ours", "a shard that is started again keeps what it stored"


def test_a_run_resumes_its_own_shards_alone(tmp_path: Path) -> None:
    for mode in ("new", "resume", "overwrite"):
        owner = claim(tmp_path / "own", mode=mode)
        owner.begin()
        owner.close()
    occupied(tmp_path / "other")
    with pytest.raises(DataError, match=f"expected replay of run id {RUN}, got that of run id {OTHER}") as error:
        claim(tmp_path / "other", mode="resume")
    one_line(error)
    occupied(tmp_path / "old", None)
    claim(tmp_path / "old", mode="resume", incarnation=5).close()
    assert json.loads((tmp_path / "old" / "owner.json").read_text())["run_id"] == RUN
    assert (tmp_path / "old" / SEGMENT).exists()


@pytest.mark.parametrize("mode", ["new", "resume", "overwrite"])
def test_a_folder_that_is_not_a_shards_is_refused(tmp_path: Path, mode: Literal["new", "resume", "overwrite"]) -> None:
    (tmp_path / SEGMENT).write_bytes(b"recorded")
    with pytest.raises(DataError, match=r"expected a replay shard's folder, got one without owner\.json") as error:
        claim(tmp_path, mode=mode)
    one_line(error)
    assert names(tmp_path) == {SEGMENT}


def test_a_claim_that_never_began_leaves_nothing(tmp_path: Path) -> None:
    claim(tmp_path / "replay" / "shard_0").close()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    claim(tmp_path / "empty").close()
    assert names(tmp_path / "empty") == set()
    first, second = claim(tmp_path / "more" / "shard_0"), claim(tmp_path / "more" / "shard_1", shard=1)
    first.close()
    second.close()
    assert names(tmp_path / "more") == set()
    occupied(tmp_path / "own", RUN)
    claim(tmp_path / "own", incarnation=1).close()
    assert names(tmp_path / "own") == {"owner.json", SEGMENT}


@pytest.mark.parametrize("call", ["write_bytes", "mkdir"])
def test_a_claim_that_finds_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    original = getattr(Path, call)

    def full_disk(self: Path, *args: object, **options: object) -> None:
        if call == "mkdir" and self.name == "replay":
            original(self, *args, **options)
        else:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, call, full_disk)
    with pytest.raises(DataError, match="No space left on device") as error:
        claim(tmp_path / "replay" / "shard_0")
    one_line(error)
    assert list(tmp_path.iterdir()) == []


def test_half_a_claim_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / f"owner.json.{'0' * 32}.tmp").write_text('{"sha')
    claim(tmp_path).check()


HOLD = """
import sys
from pathlib import Path
from amago_ray.replay.owner import Claim, DirectoryOwner

owner = DirectoryOwner(Path(sys.argv[1]), Claim(int(sys.argv[2]), "new"), shard=0, incarnation=0)
print("claimed", flush=True)
sys.stdin.read()
"""


def test_a_living_runs_shard_is_never_overwritten(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), str(OTHER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        (tmp_path / SEGMENT).write_bytes(b"episodes")
        with pytest.raises(DataError, match=f"in use by run id {OTHER}, which is running") as error:
            claim(tmp_path, mode="overwrite")
        one_line(error)
        process.kill()
    owner = claim(tmp_path, mode="overwrite")
    owner.begin()
    assert names(tmp_path) == {"owner.json"}


# --- names ----------------------------------------------------------------------------------------------------------


def test_only_marked_directories_are_shards_and_links_are_never_followed(tmp_path: Path) -> None:
    replay = tmp_path / "replay"
    assert find_shards(replay) == []
    shard = occupied(replay / "shard_3")
    (replay / "shard_7").mkdir()
    (replay / "shard_7" / "mine.bin").write_bytes(b"1")
    (replay / "shard_000.tar").write_bytes(b"2")
    elsewhere = occupied(tmp_path / "elsewhere")
    (replay / "shard_1").symlink_to(elsewhere)
    link = replay / "shard_1"
    assert find_shards(replay) == [link, shard]
    remove_shard(link)
    assert not link.is_symlink()
    (shard / "segment_00000001_000000.arrows").symlink_to(elsewhere / SEGMENT)
    remove_shard(shard)
    assert not shard.exists()
    assert (elsewhere / SEGMENT).read_bytes() == b"episodes"


def test_no_run_is_a_run_of_its_own(tmp_path: Path) -> None:
    DirectoryOwner(tmp_path, NO_RUN, shard=0, incarnation=0).check()


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize("position", [1, 20, 40, 120])
def test_a_damaged_owner_file_is_written_anew_where_the_episodes_are_the_runs(
    tmp_path: Path, position: int, is_running: bool
) -> None:
    own = Claim(RUN, "resume")
    shard = ReplayShard(
        ReplayConfig(), directory=tmp_path, context_length=9, relabeler=NoRelabeler(), claim=own, shard=3, incarnation=5
    )
    shard.add([make_episode(4, run=RUN, counter=0)])
    before = read_owner(tmp_path / "owner.json")
    content = bytearray((tmp_path / "owner.json").read_bytes())
    content[position] ^= 2
    (tmp_path / "owner.json").write_bytes(content)
    with pytest.raises(DataError):
        DirectoryOwner(tmp_path, Claim(OTHER, "overwrite"), shard=3, incarnation=9)
    assert (tmp_path / "owner.json").read_bytes() == content
    if is_running:
        shard.add([make_episode(4, run=RUN, counter=1)])
        assert read_owner(tmp_path / "owner.json") == before
    else:
        shard.close()
        owner = DirectoryOwner(tmp_path, own, shard=3, incarnation=6)
        found = read_owner(tmp_path / "owner.json")
        assert found is not None
        assert (found.shard, found.incarnation, found.run_id, owner.epoch) == (3, 6, RUN, 5)


def test_a_damaged_owner_file_that_nobody_replaced_is_still_ours_before_the_first_episode(tmp_path: Path) -> None:
    owner = claim(tmp_path)
    content = (tmp_path / "owner.json").read_bytes()
    (tmp_path / "owner.json").write_bytes(content[1:])
    owner.check()
    assert (tmp_path / "owner.json").read_bytes() == content
