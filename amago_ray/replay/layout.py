"""What shards keep on disk, by name: nothing else in their directories is ever deleted."""

from __future__ import annotations

import errno
import re
from pathlib import Path

OWNER_FILE = "owner.json"
INVENTORY_FILE = "inventory.bin"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors that mean a full disk."""
SEGMENT_NAME = re.compile(r"segment_(\d{8})_(\d{6,})\.arrows")

_SHARD_NAME = re.compile(r"shard_(\d+)")
_DAMAGED_NAME = re.compile(r"segment_\d{8}_\d{6,}\.damaged")
_UNFINISHED_NAME = re.compile(r"segment_\d{8}_\d{6,}\.tmp|owner\.json\.[0-9a-f]{32}\.tmp")


def shard_directory(replay: Path, shard: int) -> Path:
    """Where shard number `shard` keeps its files."""
    return replay / f"shard_{shard}"


def find_shards(replay: Path) -> list[Path]:
    """The directories of shards in `replay`, or links to such: those with our names and our mark."""
    if not replay.is_dir():
        return []
    return sorted(
        path for path in replay.iterdir() if _SHARD_NAME.fullmatch(path.name) and (path / OWNER_FILE).is_file()
    )


def shard_number(directory: Path) -> int:
    """Which shard keeps its files there, by the directory's name."""
    match = _SHARD_NAME.fullmatch(directory.name)
    assert match is not None, "a directory that `find_shards` found"
    return int(match[1])


def find_segments(directory: Path) -> list[Path]:
    """Segment files of a shard's directory, oldest first."""
    return sorted(path for path in directory.iterdir() if SEGMENT_NAME.fullmatch(path.name))


def find_unfinished(directory: Path) -> list[Path]:
    """Files that a process was killed in the middle of writing."""
    return [path for path in directory.iterdir() if _UNFINISHED_NAME.fullmatch(path.name)]


def set_aside(segment: Path) -> Path:
    """Where a segment is moved that cannot be read: out of the way, to be looked at or removed with the shard."""
    return segment.with_suffix(".damaged")


def remove_shard(directory: Path) -> None:
    """Remove a shard's files, and the directory with its mark unless something else is in it; of a link, the link."""
    if directory.is_symlink():
        directory.unlink()
        return
    damaged = [path for path in directory.iterdir() if _DAMAGED_NAME.fullmatch(path.name)]
    for path in [*find_unfinished(directory), *find_segments(directory), *damaged]:
        path.unlink()
    (directory / INVENTORY_FILE).unlink(missing_ok=True)
    if all(path.name == OWNER_FILE for path in directory.iterdir()):
        (directory / OWNER_FILE).unlink(missing_ok=True)
        directory.rmdir()
