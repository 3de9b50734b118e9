"""Files that several rooms read and write: the names of a checkpoint's, and writing a file whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

POLICY_FILE = "policy.safetensors"
TRAINING_STATE_FILE = "training_state.pt"


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old or the new one whole, also after a crash."""
    temporary = stage(path, data)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def stage(path: Path, data: bytes) -> Path:
    """Write `data` to the disk beside `path`, ready to replace it: where there is no room, nothing has changed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return temporary


def remove_file(path: Path) -> None:
    """Remove a file, or a link and not what it leads to; a folder of that name is left alone.

    Raises:
        OSError: it cannot be removed.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)


def missing_folders(path: Path) -> list[Path]:
    """`path` and the folders above it that do not exist, innermost first."""
    return [each for each in (path, *path.parents) if not each.exists()]
