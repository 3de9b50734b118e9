"""`AppendedFile`: a file that grows by whole records, whatever the disk does."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


class AppendedFile:
    """Appends records. What cannot be written now is kept and written before the next one, so that none is lost.

    A file that someone removed is begun again at its place.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab+", buffering=0)
        self._waiting = b""

    def read(self) -> bytes:
        """Everything in the file."""
        self._file.seek(0)
        return self._file.read()

    def cut(self, num_bytes: int) -> None:
        """Keep the first `num_bytes`."""
        self._file.truncate(num_bytes)

    def append(self, record: bytes) -> None:
        """Append a record, after those that are still waiting.

        Raises:
            OSError: they cannot all be written; the file holds whole records still, and they wait.
        """
        self._waiting += record
        if os.fstat(self._file.fileno()).st_nlink == 0:
            anew = self._path.open("ab+", buffering=0)
            self._file.close()
            self._file = anew
        end = self._file.seek(0, os.SEEK_END)
        left = memoryview(self._waiting)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            error.filename = str(self._path)
            raise
        self._waiting = b""

    def close(self) -> None:
        """Write what is waiting, and close the file; calling it twice is fine.

        Raises:
            OSError: what is waiting cannot be written, and is lost.
        """
        if self._file.closed:
            return
        try:
            if self._waiting:
                self.append(b"")
        finally:
            self._file.close()
