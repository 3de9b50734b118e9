"""The owner file of a shard's directory: what it says, and how it is written, read and, where damaged, made up for."""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

from amago_ray.errors import DamagedError, DataError
from amago_ray.replay.layout import OWNER_FILE, SEGMENT_NAME, find_segments

_FILE_BYTES = 512
"""Every owner file is of this size, so that it can be written anew in its place where there is no room for another."""


@dataclass(frozen=True)
class Owner:
    """What a directory's owner file says; no `run_id` and no `epoch` in those of earlier versions.

    shard: None where only the files' contents are known.
    """

    shard: int | None
    incarnation: int
    token: str
    run_id: int | None = None
    epoch: int = 0

    def to_bytes(self) -> bytes:
        """The file's content."""
        fields = asdict(self)
        return json.dumps({**fields, "crc32": _checksum(fields)}).encode().ljust(_FILE_BYTES)


def read_owner(path: Path) -> Owner | None:
    """What an owner file says; None where there is none.

    Raises:
        DamagedError: it says nothing that a shard would write.
    """
    try:
        fields = json.loads(path.read_bytes())
        # Earlier versions wrote none.
        checksum = fields.pop("crc32", None)
        owner = Owner(**fields)
        if checksum not in (None, _checksum(asdict(owner))):
            raise ValueError("its checksum is another")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError, AttributeError) as error:
        raise DamagedError(f"{path}: expected a shard's owner file ({error})") from error
    return owner


def known_owner(directory: Path, run_id: int) -> Owner | None:
    """Whose a directory is: as its owner file says or, where that is damaged, as the episodes of run `run_id` there.

    Raises:
        DamagedError: the file is damaged, and there are no episodes of that run.
    """
    try:
        return read_owner(directory / OWNER_FILE)
    except DamagedError:
        incarnations = []
        for path in find_segments(directory):
            match = SEGMENT_NAME.fullmatch(path.name)
            assert match is not None, "a segment that `find_segments` found"
            incarnations.append(int(match[2]))
        if _run_of_episodes(directory) != run_id:
            raise
        return Owner(None, max(incarnations), "", run_id, min(incarnations))


def overwrite(path: Path, content: bytes) -> int:
    """Write an owner file anew in its place, which needs no room; returns a descriptor of it.

    Raises:
        OSError: it is one of an earlier version, too small for that, or cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size != len(content):
            raise OSError("no room for another owner file")
        os.pwrite(descriptor, content, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _run_of_episodes(directory: Path) -> int | None:
    """The run whose episodes are there, by the first that can be read."""
    # Not above: who only looks at a run's directory, to act with its policy, needs no Arrow.
    from amago_ray.replay.segment import Segment

    for path in find_segments(directory):
        try:
            first = next(Segment.open(path).scan(), None)
        except (DataError, OSError, ValueError):
            continue
        if first is not None:
            return first.header.episode_id.run
    return None


def _checksum(fields: dict[str, object]) -> int:
    return zlib.crc32(json.dumps(fields, sort_keys=True).encode())
