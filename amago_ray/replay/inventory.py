"""`Inventory`: what a shard's directory has accepted, and what has become of it."""

from __future__ import annotations

import errno
import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from amago_ray.replay.layout import INVENTORY_FILE

Cause = Literal["deleted", "damaged"]
"""Why stored episodes are lost: their file is gone, or it is cut short or no longer what was written."""


@dataclass(frozen=True)
class Count:
    """So many episodes, which have so many transitions together."""

    episodes: int = 0
    transitions: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.episodes + other.episodes, self.transitions + other.transitions)

    def __sub__(self, other: Count) -> Count:
        return Count(self.episodes - other.episodes, self.transitions - other.transitions)


@dataclass(frozen=True)
class Entry:
    """What was accepted into a segment, and what of it was lost since."""

    accepted: Count = Count()
    deleted: Count = Count()
    damaged: Count = Count()

    @property
    def stored(self) -> Count:
        """What of it should be there."""
        return self.accepted - self.deleted - self.damaged

    def lose(self, cause: Cause, lost: Count) -> Entry:
        """The entry after a loss."""
        if cause == "deleted":
            return replace(self, deleted=self.deleted + lost)
        return replace(self, damaged=self.damaged + lost)


# A header and one row for each segment there ever was, at a place of its own: every change is one write within a page.
_HEADER = struct.Struct("<8sQ6q")
_ROW = struct.Struct("<6q")
_CHECKSUM = struct.Struct("<I")
_HEADER_BYTES = 128
_ROW_BYTES = 64
_MAGIC = b"amagoinv"


class Inventory:
    """Where each episode is that a directory ever accepted, kept in a file beside the segments.

    Invariant: accepted = stored + evicted + deleted + damaged, in episodes and in transitions, over reopenings. A
    process may be killed between any two writes: each leaves the file whole, and `Inventory` with what segments hold
    says what happened.
    """

    def __init__(self, directory: Path, *, is_new: bool = False) -> None:
        """Read the inventory of `directory`; one that is missing or damaged counts nothing.

        is_new: what is there is another run's, and will be removed.
        """
        self._path = directory / INVENTORY_FILE
        self.first = 0
        """The oldest segment that is not evicted."""
        self._entries: dict[int, Entry] = {}
        self._evicted = Entry()
        self._live = Entry()
        self._is_written = False
        self.is_found = not is_new and self._read()
        """Whether there was a sound one."""

    @property
    def last(self) -> int:
        """The newest segment that was ever begun; -1 before the first."""
        return max(self._entries, default=self.first - 1)

    @property
    def accepted(self) -> Count:
        """Everything ever stored here."""
        return self._evicted.accepted + self._live.accepted

    @property
    def evicted(self) -> Count:
        """What had to make room."""
        return self._evicted.stored

    @property
    def deleted(self) -> Count:
        """Lost with files that are gone."""
        return self._evicted.deleted + self._live.deleted

    @property
    def damaged(self) -> Count:
        """Lost as it is no longer what was stored."""
        return self._evicted.damaged + self._live.damaged

    @property
    def live(self) -> dict[int, Entry]:
        """Segments that are not evicted."""
        return {sequence: self._entries.get(sequence, Entry()) for sequence in range(self.first, self.last + 1)}

    def accept(self, sequence: int, count: Count) -> None:
        """So much more is in a segment.

        Raises:
            OSError: that cannot be written; nothing has changed.
        """
        entry = self._entries.get(sequence, Entry())
        self._put(sequence, replace(entry, accepted=entry.accepted + count))

    def lose(self, sequence: int, cause: Cause, count: Count) -> None:
        """So much of a segment is lost; where that cannot be written, it is found again at the next opening."""
        entry = self._entries.get(sequence, Entry()).lose(cause, count)
        with suppress(OSError):
            self._write_row(sequence, entry)
        self._set(sequence, entry)

    def evict_to(self, first: int) -> None:
        """All segments before `first` are evicted, and none from it on.

        Raises:
            OSError: that cannot be written; nothing has changed.
        """
        if first == self.first:
            return
        evicted, live = self._evicted, self._live
        for sequence in range(self.first, first):
            entry = self._entries.get(sequence, Entry())
            evicted, live = _sum(evicted, entry), _difference(live, entry)
        for sequence in range(first, self.first):
            entry = self._entries.get(sequence, Entry())
            evicted, live = _difference(evicted, entry), _sum(live, entry)
        self._write_header(first, evicted)
        self.first, self._evicted, self._live = first, evicted, live

    def truncate(self, last: int, stored: Count) -> None:
        """Segments after `last` were never begun, and of `last` only so much was ever accepted.

        Raises:
            OSError: that cannot be written.
        """
        for sequence in [sequence for sequence in self._entries if sequence > last]:
            self._live = _difference(self._live, self._entries.pop(sequence))
        if last >= 0:
            entry = self._entries.get(last, Entry())
            self._put(last, replace(entry, accepted=stored + entry.deleted + entry.damaged))
        else:
            self._evicted = Entry()
        if self._path.exists():
            self._write_header(self.first, self._evicted)
            os.truncate(self._path, _HEADER_BYTES + _ROW_BYTES * (last + 1))

    def sync(self) -> None:
        """Force the inventory to the disk."""
        if self._path.exists():
            descriptor = os.open(self._path, os.O_RDONLY)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)

    def _put(self, sequence: int, entry: Entry) -> None:
        self._write_row(sequence, entry)
        self._set(sequence, entry)

    def _set(self, sequence: int, entry: Entry) -> None:
        self._live = _sum(_difference(self._live, self._entries.get(sequence, Entry())), entry)
        self._entries[sequence] = entry

    def _write_row(self, sequence: int, entry: Entry) -> None:
        if not self._is_written:
            self._write_header(self.first, self._evicted)
        row = _ROW.pack(*_numbers(entry))
        self._write(_HEADER_BYTES + _ROW_BYTES * sequence, row + _CHECKSUM.pack(zlib.crc32(row)))

    def _write_header(self, first: int, evicted: Entry) -> None:
        header = _HEADER.pack(_MAGIC, first, *_numbers(evicted))
        self._write(0, header + _CHECKSUM.pack(zlib.crc32(header)))
        self._is_written = True

    def _write(self, offset: int, data: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if os.pwrite(descriptor, data, offset) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)

    def _read(self) -> bool:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return False
        header = _checked(content, 0, _HEADER.size)
        if header is None or not header.startswith(_MAGIC):
            return False
        _, self.first, *numbers = _HEADER.unpack(header)
        self._evicted = _entry(numbers)
        num_rows = (len(content) - _HEADER_BYTES + _ROW_BYTES - 1) // _ROW_BYTES
        for sequence in range(num_rows):
            row = _checked(content, _HEADER_BYTES + _ROW_BYTES * sequence, _ROW.size)
            if row is None:
                # Never written, or damaged: what the segment holds then counts.
                continue
            self._entries[sequence] = _entry(_ROW.unpack(row))
            if sequence >= self.first:
                self._live = _sum(self._live, self._entries[sequence])
        self._is_written = True
        return True


def _checked(content: bytes, offset: int, size: int) -> bytes | None:
    data, checksum = content[offset : offset + size], content[offset + size : offset + size + _CHECKSUM.size]
    if len(checksum) < _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != zlib.crc32(data):
        return None
    return data


def _numbers(entry: Entry) -> tuple[int, ...]:
    counts = (entry.accepted, entry.deleted, entry.damaged)
    return tuple(number for count in counts for number in (count.episodes, count.transitions))


def _entry(numbers: list[int] | tuple[int, ...]) -> Entry:
    return Entry(Count(*numbers[0:2]), Count(*numbers[2:4]), Count(*numbers[4:6]))


def _sum(one: Entry, other: Entry) -> Entry:
    return Entry(one.accepted + other.accepted, one.deleted + other.deleted, one.damaged + other.damaged)


def _difference(one: Entry, other: Entry) -> Entry:
    return Entry(one.accepted - other.accepted, one.deleted - other.deleted, one.damaged - other.damaged)
