"""`Checkpoints`: the directory of a run's checkpoints, each written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amago_ray.errors import CheckpointError
from amago_ray.training.run_directory import write_atomically

_log = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"
SPEC_FILE = "env_spec.json"
POLICY_FILE = "policy.safetensors"
TRAINING_STATE_FILE = "training_state.pt"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk: its directory, and its `metadata.json` read and verified."""

    path: Path
    metadata: Mapping[str, Any]

    def read(self, name: str) -> bytes:
        """A file of the checkpoint."""
        return (self.path / name).read_bytes()


class Checkpoints:
    """Saves, finds and prunes checkpoints `step_<learner steps>` under one directory.

    A checkpoint is written to a temporary directory, fsynced and renamed; the pointer file `latest` moves last.
    """

    def __init__(self, directory: Path, keep: int) -> None:
        self._directory = directory
        self._keep = keep

    def save(self, learner_steps: int, files: Mapping[str, bytes], metadata: Mapping[str, Any]) -> Path:
        """Write a checkpoint of these files, make it the latest and prune old ones; returns its directory.

        Raises: CheckpointError if it cannot be written; older checkpoints stay as they were.
        """
        name = f"step_{learner_steps:09d}"
        path = self._write(name, files, metadata)
        write_atomically(self._directory / "latest", name.encode())
        for old in self._steps()[: -self._keep]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def save_best(self, learner_steps: int, files: Mapping[str, bytes], metadata: Mapping[str, Any]) -> Path:
        """Write the weights that evaluated best, without training state, and point `best` at them."""
        name = f"best_{learner_steps:09d}"
        path = self._write(name, files, metadata)
        write_atomically(self._directory / "best", name.encode())
        for old in self._directory.glob("best_*"):
            if old != path:
                shutil.rmtree(old, ignore_errors=True)
        return path

    def load(self, name: str = "latest") -> Checkpoint:
        """The checkpoint "best", one named by its directory, or the newest readable one for "latest".

        A broken newest checkpoint is skipped with a warning in favour of the one before.

        Raises: CheckpointError if there is none, or the named one is broken.
        """
        if name == "best" and (self._directory / "best").is_file():
            name = (self._directory / "best").read_text().strip()
        if name != "latest":
            return open_checkpoint(self._directory / name)
        pointer = self._directory / "latest"
        candidates = list(reversed(self._steps()))
        if pointer.is_file():
            newest = self._directory / pointer.read_text().strip()
            candidates.sort(key=lambda path: path == newest, reverse=True)
        for path in candidates:
            try:
                return open_checkpoint(path)
            except CheckpointError as error:
                _log.warning("skipping a broken checkpoint: %s", error)
        raise CheckpointError(f"{self._directory}: no readable checkpoint")

    def exists(self) -> bool:
        """Whether any checkpoint was ever completed here."""
        return bool(self._steps())

    def _steps(self) -> list[Path]:
        return sorted(self._directory.glob("step_*"))

    def _write(self, name: str, files: Mapping[str, bytes], metadata: Mapping[str, Any]) -> Path:
        final = self._directory / name
        temporary = self._directory / f".{name}.{os.getpid()}.tmp"
        hashes = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
        document = json.dumps({**metadata, "sha256": hashes}, indent=1).encode()
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for file, data in {**files, "metadata.json": document}.items():
                with (temporary / file).open("wb") as handle:
                    handle.write(data)
                    handle.flush()
                    os.fsync(handle.fileno())
            if final.exists():
                shutil.rmtree(final)
            temporary.replace(final)
            descriptor = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(f"{final}: cannot be written: {error.strerror or error}") from error
        return final


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in this directory, its files compared with their hashes.

    Raises: CheckpointError if it is not a whole one.
    """
    try:
        metadata = json.loads((path / "metadata.json").read_text())
        hashes = metadata["sha256"]
        for file, expected in hashes.items():
            found = hashlib.sha256((path / file).read_bytes()).hexdigest()
            if found != expected:
                raise CheckpointError(f"{path / file}: expected sha256 {expected[:12]}…, found {found[:12]}…")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint: {error}") from error
    return Checkpoint(path, metadata)
