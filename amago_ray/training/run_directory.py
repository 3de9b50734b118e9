"""`RunDirectory`: where a run keeps everything, written by the trainer alone."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from amago_ray.config import Config
from amago_ray.config.load import dump_yaml
from amago_ray.errors import RunDirectoryError
from amago_ray.replay.owner import Claim

_RUN_FILES = (
    "config.yaml",
    "metadata.json",
    "metrics.jsonl",
    "status.json",
    "events.out.tfevents.*",
    "checkpoints",
    "replay",
    "videos",
)


class RunDirectory:
    """`runs/<name>/`: config, metadata, status, metrics, TensorBoard events, checkpoints, replay."""

    def __init__(self, path: Path, mode: Literal["new", "resume", "overwrite"] = "resume") -> None:
        self.path = path
        self._mode = mode
        self._lock: int | None = None

    @classmethod
    def create(cls, config: Config, *, resume: bool, overwrite: bool) -> RunDirectory:
        """Make or reopen the run's directory, lock it against other processes, and count this session.

        Raises: RunDirectoryError if it is taken and neither `resume` nor `overwrite` was asked for, if there is
        nothing to resume, if another process writes it, or if it cannot be written.
        """
        path = Path(config.runs_dir) / config.name
        directory = cls(path, "resume" if resume else "overwrite" if overwrite else "new")
        try:
            directory._prepare(config, resume=resume, overwrite=overwrite)
        except BaseException:
            directory.release()
            raise
        return directory

    def release(self) -> None:
        """Let other processes write the directory; calling it twice is fine. A process that dies releases it too."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """An existing run's directory.

        Raises: RunDirectoryError if there is none.
        """
        path = Path(path)
        if not (path / "config.yaml").is_file():
            raise RunDirectoryError(f"{path}: not a run directory: expected a config.yaml in it")
        return cls(path)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints live."""
        return self.path / "checkpoints"

    @property
    def replay(self) -> Path:
        """Where shards on this node write, unless `replay.directory` says otherwise."""
        return self.path / "replay"

    @property
    def metadata(self) -> dict[str, Any]:
        """Run id, versions, host, seed and the number of sessions so far."""
        return _read_json(self.path / "metadata.json")

    @property
    def session(self) -> int:
        """1 for a new run, one more for each resume."""
        return int(self.metadata["sessions"])

    @property
    def claim(self) -> Claim:
        """In whose name this session opens the shards of replay."""
        return Claim(int(self.metadata["run_id"]), self._mode)

    def write_status(self, status: Mapping[str, Any]) -> None:
        """What `amago-ray status` shows.

        Raises: RunDirectoryError if it cannot be written.
        """
        path = self.path / "status.json"
        try:
            write_atomically(path, json.dumps({**status, "unix_time_s": time.time()}, indent=1).encode())
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be written: {error.strerror or error}") from error

    def read_status(self) -> dict[str, Any]:
        """The newest status; empty before the first."""
        return _read_json(self.path / "status.json")

    def _prepare(self, config: Config, *, resume: bool, overwrite: bool) -> None:
        path = self.path
        shards = None if config.replay.directory is None else Path(config.replay.directory)
        try:
            # A run that failed before its first report took nothing.
            taken = _has_content(path / "metrics.jsonl") or (path / "checkpoints").exists()
            if resume and not taken:
                raise RunDirectoryError(f"{path}: nothing to resume: expected the directory of an earlier run")
            if taken and not resume and not overwrite:
                raise RunDirectoryError(
                    f"{path}: taken by an earlier run: go on with --resume, replace it with --overwrite, "
                    "or choose another --name"
                )
            self._lock_out_others()
            if shards is not None and not resume:
                if any(shards.glob("shard_*/segment_*")) and not overwrite:
                    raise RunDirectoryError(
                        f"{shards}: replay.directory holds episodes of an earlier run: replace them with --overwrite, "
                        "or choose another directory"
                    )
                _remove(shards, ("shard_*",))
            if not resume:
                _remove(path, _RUN_FILES)
            write_atomically(path / "config.yaml", dump_yaml(config).encode())
            self._count_session(config)
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be written: {error.strerror or error}") from error

    def _lock_out_others(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunDirectoryError(f"{self.path}: another process is training this run") from error

    def _count_session(self, config: Config) -> None:
        path = self.path / "metadata.json"
        data = _read_json(path)
        sessions = int(data.get("sessions", 0)) + 1
        # Runs of a version without run ids get theirs when they are resumed.
        run_id = data.get("run_id") or draw_run_id()
        data = {**data, **_environment(), "run_id": run_id, "seed": config.seed, "sessions": sessions}
        write_atomically(path, json.dumps(data, indent=1).encode())


def draw_run_id() -> int:
    """A random number of 63 bits that no other run has.

    It always has 19 digits, so that the bytes that an episode takes do not depend on it.
    """
    lowest = 10**18
    return lowest + secrets.randbelow(2**63 - lowest)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old or the new one whole, also after a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _remove(path: Path, patterns: Sequence[str]) -> None:
    """Delete what a run writes, and nothing else that may be in the directory."""
    for pattern in patterns:
        for entry in path.glob(pattern):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: expected JSON: {error}") from error
    return data


def _environment() -> dict[str, Any]:
    """Versions, host and source commit, for whoever wants to reproduce the run."""
    versions = {}
    for package in ("amago_ray", "ray", "torch", "gymnasium", "numpy", "pyarrow"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    try:
        git = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
        commit = git.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        commit = None
    return {
        "versions": versions,
        "git_commit": commit,
        "host": platform.node(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
    }
