"""`RunLock`: one process writes a run's directory at a time."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from amago_ray.data.files import missing_folders
from amago_ray.errors import RunDirectoryError

# Whoever only looks whether the lock is held holds it for a moment.
_ATTEMPTS = 5
_PAUSE_S = 0.02


class RunLock:
    """A lock on `.lock` in a directory, which the system lets go when its process dies."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / ".lock"
        self._descriptor: int | None = None
        self._made: list[Path] = []

    def acquire(self) -> None:
        """Lock the directory, which is made where missing, and taken away again by `release` unless `keep` is called.

        Raises:
            RunDirectoryError: another process holds it.
            OSError: the directory cannot be written.
        """
        directory = self._path.parent
        missing = missing_folders(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._made = missing
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        for attempt in range(_ATTEMPTS):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if attempt == _ATTEMPTS - 1:
                    # What the other process has made is not ours to take away.
                    self._made = []
                    raise RunDirectoryError(f"{directory}: another process is training this run") from error
                time.sleep(_PAUSE_S)

    @property
    def has_made_directory(self) -> bool:
        """Whether the directory goes when the lock is let go."""
        return bool(self._made)

    def keep(self) -> None:
        """The directory stays when the lock is let go."""
        self._made = []

    def release(self) -> None:
        """Let the directory go; calling it twice is fine."""
        if self._made:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
                for path in self._made:
                    path.rmdir()
            self._made = []
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_held(self) -> bool:
        """Whether any process holds the lock."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return False
