"""Who may write in a shard's directory."""

import json

import pytest

from amago_ray.errors import DataError
from amago_ray.replay.owner import DirectoryOwner


def test_newer_incarnations_take_over_and_older_ones_are_fenced(tmp_path):
    first = DirectoryOwner(tmp_path, shard=0, incarnation=0)
    first.check()
    second = DirectoryOwner(tmp_path, shard=0, incarnation=1)
    second.check()
    with pytest.raises(DataError, match="belongs to incarnation 1 of this shard, found the older incarnation 0"):
        first.check()
    with pytest.raises(DataError, match="belongs to incarnation 1"):
        DirectoryOwner(tmp_path, shard=0, incarnation=0)
    second.check()


def test_of_equal_incarnations_the_later_claim_writes(tmp_path):
    first = DirectoryOwner(tmp_path, shard=0, incarnation=0)
    second = DirectoryOwner(tmp_path, shard=0, incarnation=0)
    second.check()
    with pytest.raises(DataError, match="claimed by another process of incarnation 0"):
        first.check()


def test_other_shards_files_are_refused(tmp_path):
    DirectoryOwner(tmp_path, shard=0, incarnation=0)
    with pytest.raises(DataError, match="expected the files of shard 1, found shard 0"):
        DirectoryOwner(tmp_path, shard=1, incarnation=5)


def test_a_touched_file_is_still_ours(tmp_path):
    owner = DirectoryOwner(tmp_path, shard=0, incarnation=0)
    path = tmp_path / "owner.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    owner.check()


def test_a_directory_that_is_gone_is_noticed(tmp_path):
    owner = DirectoryOwner(tmp_path / "shard", shard=0, incarnation=0)
    (tmp_path / "shard" / "owner.json").unlink()
    with pytest.raises(DataError, match="cannot append"):
        owner.check()


def test_unreadable_owner_file_is_named(tmp_path):
    (tmp_path / "owner.json").write_text("{")
    with pytest.raises(DataError, match=r"owner\.json: expected a shard's owner file"):
        DirectoryOwner(tmp_path, shard=0, incarnation=0)


def test_a_place_where_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write there"):
        DirectoryOwner(tmp_path / "file" / "shard", shard=0, incarnation=0)
