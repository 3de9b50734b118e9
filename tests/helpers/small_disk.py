"""A disk that is small enough to be filled."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BALLAST = "ballast"


@contextmanager
def small_disk(path: Path, num_bytes: int) -> Iterator[Path]:
    """A new folder on a disk of its own with so much room; skips the test where mounting is not permitted."""
    path.mkdir(parents=True)
    try:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "none", str(path)]
        subprocess.run(mount, check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        pytest.skip(f"a disk of its own needs the right to mount: {reason}")
    try:
        yield path
    finally:
        # Also where somebody still has a file open there.
        subprocess.run(["umount", "--lazy", str(path)], check=True, capture_output=True, timeout=30)


def fill(disk: Path) -> None:
    """Leave no room, whatever is written at the same time."""
    with (disk / _BALLAST).open("wb", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while ballast.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue


def make_room(disk: Path) -> None:
    """Free what `fill` has taken."""
    os.unlink(disk / _BALLAST)
