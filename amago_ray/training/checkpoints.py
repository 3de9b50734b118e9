"""`Checkpoints`: the directory of a run's checkpoints, each written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

from amago_ray.data.files import POLICY_FILE, TRAINING_STATE_FILE, remove_file, write_atomically
from amago_ray.errors import CheckpointError

_log = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"
SPEC_FILE = "env_spec.json"
METADATA_FILE = "metadata.json"

IMPORTED = "imported_from"
"""Key in the metadata of a checkpoint of foreign weights: a run that goes on from it has acted and stored nothing."""

_FILES = (CONFIG_FILE, SPEC_FILE, POLICY_FILE, TRAINING_STATE_FILE, METADATA_FILE)
_NAME = re.compile(r"(step|best)_\d{9,}(_\d+)?")
_UNFINISHED_NAME = re.compile(rf"\.({_NAME.pattern})\.tmp|\.(latest|best)\.\d+\.tmp")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk: its directory, and its `metadata.json` read and verified."""

    path: Path
    metadata: Mapping[str, Any]

    def read(self, name: str) -> bytes:
        """A file of the checkpoint.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise CheckpointError(f"{self.path / name}: cannot be read: {error.strerror or error}") from error


class Checkpoints:
    """Saves, finds and prunes checkpoints `step_<learner steps>` under one directory.

    A checkpoint is written to a temporary directory, fsynced and renamed; the pointer file `latest` moves last.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory = directory
        self._keep = keep

    def save(self, learner_steps: int, files: Mapping[str, bytes], metadata: Mapping[str, Any]) -> Path:
        """Write a checkpoint of these files, make it the latest and prune old ones; returns its directory.

        Raises:
            CheckpointError: it cannot be written; older checkpoints stay as they were.
        """
        path = self._write("step", learner_steps, files, metadata, pointer="latest")
        steps = [step for step in self._found("step") if _is_ours(step)]
        newest = steps.index(path)
        # Those beyond it belong to a past that a resume from an older checkpoint has given up.
        for old in steps[: max(newest + 1 - self._keep, 0)] + steps[newest + 1 :]:
            _try_to_remove(old)
        return path

    def save_best(self, learner_steps: int, files: Mapping[str, bytes], metadata: Mapping[str, Any]) -> Path:
        """Write the weights that evaluated best, without training state, and point `best` at them.

        Raises:
            CheckpointError: they cannot be written; the earlier best ones stay as they were.
        """
        path = self._write("best", learner_steps, files, metadata, pointer="best")
        for old in self._found("best"):
            if old != path and _is_ours(old):
                _try_to_remove(old)
        return path

    def load(self, name: str = "latest") -> Checkpoint:
        """The checkpoint named by its directory, the newest readable one for "latest", or that which evaluated best for
        "best" (the latest where nothing was evaluated).

        A broken newest checkpoint is skipped with a warning in favour of the one before.

        Raises:
            CheckpointError: there is none, or the named one is broken.
        """
        if name == "best":
            best = self._directory / "best"
            name = best.read_text(errors="replace").strip() if best.is_file() else "latest"
        if name != "latest":
            return open_checkpoint(self._directory / name)
        pointer = self._directory / "latest"
        candidates = list(reversed(self._found("step")))
        if pointer.is_file():
            newest = self._directory / pointer.read_text(errors="replace").strip()
            candidates.sort(key=lambda path: path == newest, reverse=True)
        for path in candidates:
            try:
                return open_checkpoint(path)
            except CheckpointError as error:
                _log.warning("skipping a broken checkpoint: %s", error)
        raise CheckpointError(f"{self._directory}: no readable checkpoint")

    def exists(self) -> bool:
        """Whether any checkpoint was ever completed here."""
        return bool(self._found("step"))

    def _found(self, kind: Literal["step", "best"]) -> list[Path]:
        found = (path for path in self._directory.glob(f"{kind}_*") if _NAME.fullmatch(path.name))
        return sorted(found, key=lambda path: [int(number) for number in path.name.split("_")[1:]])

    def _write(
        self,
        kind: Literal["step", "best"],
        learner_steps: int,
        files: Mapping[str, bytes],
        metadata: Mapping[str, Any],
        *,
        pointer: str,
    ) -> Path:
        """Write a checkpoint's directory, then the pointer to it, then remove another of the same step."""
        name = f"{kind}_{learner_steps:09d}"
        same = [path for path in self._found(kind) if path.name == name or path.name.startswith(f"{name}_")]
        # A directory cannot be replaced in one go, so a second checkpoint of the same step gets a name of its own.
        names = chain([name], (f"{name}_{number}" for number in count(2)))
        final = next(path for path in (self._directory / each for each in names) if path not in same)
        temporary = self._directory / f".{final.name}.tmp"
        hashes = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
        document = json.dumps({**metadata, "sha256": hashes}, indent=1).encode()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            _remove_unfinished(self._directory)
            temporary.mkdir()
            for file, data in {**files, METADATA_FILE: document}.items():
                with (temporary / file).open("wb") as handle:
                    handle.write(data)
                    handle.flush()
                    os.fsync(handle.fileno())
            temporary.replace(final)
            descriptor = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            write_atomically(self._directory / pointer, final.name.encode())
        except OSError as error:
            _try_to_remove(temporary)
            raise CheckpointError(f"{final}: cannot be written: {error.strerror or error}") from error
        for other in same:
            if _is_ours(other):
                _try_to_remove(other)
        return final


def remove_checkpoints(directory: Path) -> None:
    """Remove what `Checkpoints` has written in a directory, and nothing else that may be there; links are not followed.

    Raises:
        OSError: something cannot be removed.
    """
    if not directory.is_dir():
        return
    _remove_unfinished(directory)
    for path in directory.iterdir():
        if _NAME.fullmatch(path.name) and _is_ours(path):
            _remove(path)
    for pointer in ("latest", "best"):
        remove_file(directory / pointer)


def _is_ours(path: Path) -> bool:
    """Whether this is the directory of a checkpoint: its metadata has the hashes of its files."""
    try:
        return "sha256" in json.loads((path / METADATA_FILE).read_text())
    except (OSError, ValueError, TypeError):
        return False


def _remove_unfinished(directory: Path) -> None:
    for path in directory.iterdir():
        if _UNFINISHED_NAME.fullmatch(path.name):
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a file or link, or a checkpoint's files and then its directory, if nothing else is in it."""
    if path.is_symlink() or not path.is_dir():
        remove_file(path)
        return
    for name in _FILES:
        remove_file(path / name)
    with suppress(OSError):
        path.rmdir()


def _try_to_remove(path: Path) -> None:
    """Remove it if that is possible: a checkpoint too many does no harm."""
    with suppress(OSError):
        _remove(path)


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in this directory, its files compared with their hashes.

    Raises:
        CheckpointError: it is not a whole one.
    """
    try:
        metadata = json.loads((path / METADATA_FILE).read_text())
        hashes = metadata["sha256"]
        for file, expected in hashes.items():
            found = hashlib.sha256((path / file).read_bytes()).hexdigest()
            if found != expected:
                raise CheckpointError(f"{path / file}: expected sha256 {expected[:12]}…, got {found[:12]}…")
    except OSError as error:
        raise CheckpointError(f"{path}: not a readable checkpoint: {error.strerror}: {error.filename}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint: metadata.json: {error}") from error
    return Checkpoint(path, metadata)
