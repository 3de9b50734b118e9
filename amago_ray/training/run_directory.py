"""`RunDirectory`: where a run keeps everything, written by the trainer alone."""

from __future__ import annotations

import json
import os
import platform
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from amago_ray.config import Config
from amago_ray.config.load import dump_yaml
from amago_ray.config.paths import local_path
from amago_ray.data.files import remove_file, stage, write_atomically
from amago_ray.errors import RunDirectoryError
from amago_ray.replay.layout import find_segments, find_shards, remove_shard, shard_directory
from amago_ray.replay.owner import Claim, examine, run_id_of
from amago_ray.telemetry.loggers import EVENTS_SUFFIX
from amago_ray.training.checkpoints import CONFIG_FILE, Checkpoints, remove_checkpoints
from amago_ray.training.provenance import provenance
from amago_ray.training.run_lock import RunLock

_RUNS_DIR = Path("runs")
"""Where runs are kept by default."""
_METADATA_FILE = "metadata.json"
_STATUS_FILE = "status.json"
_REPORTS_FILE = "metrics.jsonl"
_OUTPUT_FILE = "environment.log"
_FILES = (CONFIG_FILE, _METADATA_FILE, _STATUS_FILE, _REPORTS_FILE, _OUTPUT_FILE)
_FOLDERS = ("checkpoints", "replay", "videos")
_OTHER_NAMES = re.compile(rf"events\.out\.tfevents\..*{re.escape(EVENTS_SUFFIX)}|\.({'|'.join(_FILES)})\.\d+\.tmp")

# A run on another machine, whose lock may not be seen from here, counts as dead after this time without a word.
_LONGEST_SILENCE_S = 300.0


class RunDirectory:
    """`runs/<name>/`: config, metadata, status, metrics, TensorBoard events, checkpoints, replay, videos.

    A directory is a run's own if its `metadata.json` says so. Only in such a one is anything ever removed, and there
    only what runs write. `reserve` finds out whether a run may have it and changes nothing; `begin`, called when the
    run is known to start, removes the one that it replaces.
    """

    def __init__(self, path: Path, replay: Path | None = None, num_shards: int = 0) -> None:
        self.path = path
        self.replay = replay or path / "replay"
        """Where shards write on their nodes."""
        self._num_shards = num_shards
        self._lock = RunLock(path)
        self._mode: Literal["new", "resume", "overwrite"] = "resume"
        self._found: dict[str, Any] = {}
        self._run_id: int | None = None

    @classmethod
    def of(cls, config: Config) -> RunDirectory:
        """The directory of a run with these settings, whatever becomes of the process's working folder later."""
        replay = config.replay.directory
        return cls(
            Path(config.runs_dir).absolute() / config.name,
            None if replay is None else Path(replay).absolute(),
            config.replay.num_shards,
        )

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """An existing run's directory, by its path, or by its name where it is in `runs`.

        Raises:
            RunDirectoryError: there is none.
        """
        named = _RUNS_DIR / path
        is_name = len(Path(path).parts) == 1 and not Path(path).exists() and named.is_dir()
        path = local_path("run", named if is_name else path)
        if path.is_file():
            raise RunDirectoryError(f"{path}: expected the folder of a run or of a checkpoint, got a file")
        if not (path / CONFIG_FILE).is_file():
            raise RunDirectoryError(f"{path}: not a run directory: expected a {CONFIG_FILE} in it")
        return cls(path)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints live."""
        return self.path / "checkpoints"

    @property
    def reports(self) -> Path:
        """The reports as JSON lines."""
        return self.path / _REPORTS_FILE

    @property
    def output(self) -> Path:
        """What environments print, and tracebacks of their failures."""
        return self.path / _OUTPUT_FILE

    @property
    def film(self) -> Path:
        """The film of the run's end."""
        return self.path / "videos" / "final.gif"

    @property
    def metadata(self) -> dict[str, Any]:
        """Run id, versions, host, seed, the number of sessions so far, where the newest one kept run and replay, and
        where its control actor is (`ray`, None where there is none).
        """
        return _read_json(self.path / _METADATA_FILE)

    @property
    def session(self) -> int:
        """1 for a new run, one more for each resume."""
        return int(self._found.get("sessions", 0)) + 1 if self._mode == "resume" else 1

    @property
    def claim(self) -> Claim:
        """In whose name the shards of replay are opened."""
        run_id = self._run_id if self._run_id is not None else int(self.metadata["run_id"])
        return Claim(run_id, self._mode)

    def reserve(self, *, resume: bool = False, overwrite: bool = False) -> None:
        """Keep other processes out, and see that a run may have the directory; nothing in it is changed.

        Raises:
            RunDirectoryError: it is taken and neither `resume` nor `overwrite` was asked for, there is nothing to
                resume, it holds files of the user's own where runs write, another process writes it, or it cannot be
                written.
            DataError: replay holds what this run must not touch.
        """
        try:
            self._check(resume=resume, overwrite=overwrite)
            self._lock.acquire()
            # Whoever held the lock until now may have used the directory.
            self._check(resume=resume, overwrite=overwrite)
            self._found = self._read_ours() or {}
            self._mode = "resume" if resume else "overwrite" if overwrite else "new"
            if resume:
                self._check_copied()
            # Runs of a version without run ids get theirs when they are resumed.
            self._run_id = (self._found.get("run_id") if resume else None) or _draw_run_id()
            for number in range(self._num_shards):
                examine(shard_directory(self.replay, number), self.claim)
        except OSError as error:
            self.close()
            raise self._cannot_be_written(error) from error
        except BaseException:
            self.close()
            raise

    def begin(self, config: Config, ray: Mapping[str, str] | None = None) -> None:
        """The run is known to start: remove the one that it replaces, note the settings and count the session.

        ray: the address of its Ray and the name of its control actor, for other processes.

        Raises:
            RunDirectoryError: it cannot be written; if it never could, the earlier run is untouched.
        """
        kept = self._found if self._mode == "resume" else {}
        document = {
            **kept,
            **provenance(),
            "run_id": self.claim.run_id,
            "seed": config.seed,
            "sessions": self.session,
            "directory": str(self.path),
            "replay": str(self.replay),
            "ray": ray,
        }
        # The mark comes first: a directory with anything else of a run in it is known as one.
        contents = {_METADATA_FILE: json.dumps(document, indent=1).encode(), CONFIG_FILE: dump_yaml(config).encode()}
        staged: dict[str, Path] = {}
        try:
            for name, content in contents.items():
                staged[name] = stage(self.path / name, content)
            if self._mode != "resume" and self._found:
                self._remove_earlier()
            for name, temporary in staged.items():
                temporary.replace(self.path / name)
        except OSError as error:
            for temporary in staged.values():
                temporary.unlink(missing_ok=True)
            raise self._cannot_be_written(error) from error
        self._lock.keep()

    def close(self) -> None:
        """Let other processes write the directory; calling it twice is fine. A process that dies lets it go, too."""
        if self._lock.has_made_directory:
            # Of shards that were opened and closed, the last may have left it.
            with suppress(OSError):
                (self.path / "replay").rmdir()
        self._lock.release()

    def write_status(self, status: Mapping[str, Any]) -> None:
        """What `amago-ray status` shows.

        Raises:
            RunDirectoryError: it cannot be written.
        """
        path = self.path / _STATUS_FILE
        stamps = {"unix_time_s": time.time(), "host": platform.node(), "pid": os.getpid()}
        try:
            write_atomically(path, json.dumps({**status, **stamps}, indent=1).encode())
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be written: {error.strerror or error}") from error

    def read_status(self) -> dict[str, Any]:
        """The newest status, empty before the first; the state of a run whose process is gone is "died"."""
        status = _read_json(self.path / _STATUS_FILE)
        if status.get("state") in ("starting", "running") and not self._is_alive(status):
            status["state"] = "died"
        return status

    def _is_alive(self, status: Mapping[str, Any]) -> bool:
        if self._lock.is_held():
            return True
        is_elsewhere = status.get("host", platform.node()) != platform.node()
        return is_elsewhere and time.time() - float(status.get("unix_time_s", 0.0)) < _LONGEST_SILENCE_S

    def _cannot_be_written(self, error: OSError) -> RunDirectoryError:
        return RunDirectoryError(f"{self.path}: cannot be written: {error.strerror or error}")

    def _read_ours(self) -> dict[str, Any] | None:
        """The metadata of the run in the directory; None if it is not a run's."""
        try:
            found = _read_json(self.path / _METADATA_FILE)
        except RunDirectoryError:
            return None
        is_ours = isinstance(found, dict) and ("run_id" in found or {"versions", "sessions"} <= found.keys())
        return found if is_ours else None

    def _check(self, *, resume: bool, overwrite: bool) -> None:
        self._check_names()
        self._check_taken(resume=resume, overwrite=overwrite)

    def _check_names(self) -> None:
        """Refuse a directory where something of the user's has a name that runs write."""
        if self.path.is_file():
            raise RunDirectoryError(f"{self.path}: expected a folder, got a file: choose another name")
        names = [name for name in (*_FILES, *_FOLDERS) if os.path.lexists(self.path / name)]
        if self._read_ours() is None:
            if names and not (names == ["replay"] and _is_half_made(self.path / "replay")):
                raise RunDirectoryError(
                    f"{self.path}: expected a free folder or a run's, known by its {_METADATA_FILE}, "
                    f'got "{names[0]}" that no run has written: choose another name'
                )
            return
        for name in names:
            if (self.path / name).is_dir() != (name in _FOLDERS):
                expected = "folder" if name in _FOLDERS else "file"
                raise RunDirectoryError(f"{self.path / name}: expected a {expected} that a run has written")

    def _check_taken(self, *, resume: bool, overwrite: bool) -> None:
        # A run that failed before its first report took nothing.
        taken = (
            _has_content(self.reports)
            or Checkpoints(self.checkpoints, keep=1).exists()
            or any(find_segments(shard) for shard in find_shards(self.path / "replay"))
        )
        if resume and not taken:
            raise RunDirectoryError(f"{self.path}: nothing to resume: expected the directory of an earlier run")
        if taken and not resume and not overwrite:
            raise RunDirectoryError(
                f"{self.path}: taken by an earlier run: go on with --resume, replace it with --overwrite, "
                "or choose another --name"
            )

    def _check_copied(self) -> None:
        """Refuse a copy that would go on in the replay of the run that it was copied from: both would drop and cut off
        each other's episodes, which have equal ids.
        """
        original = RunDirectory(Path(self._found.get("directory", self.path)))
        if not original.path.is_dir() or original.path.samefile(self.path):
            return
        found = original._read_ours() or {}
        if found.get("run_id") != self._found.get("run_id") or "replay" not in found:
            return
        replay = Path(found["replay"])
        if replay.is_dir() and self.replay.is_dir() and replay.samefile(self.replay):
            raise RunDirectoryError(
                f"{self.path}: a copy of the run {original.path}, whose replay is {replay}: copy that too, and name "
                "the copy as replay.directory"
            )

    def _remove_earlier(self) -> None:
        """Remove what the earlier run has written, and nothing else that may be in the directory."""
        for name in _FOLDERS:
            if (self.path / name).is_symlink():
                (self.path / name).unlink()
        for shard in find_shards(self.path / "replay"):
            remove_shard(shard)
        for shard in find_shards(self.replay):
            if "run_id" in self._found and run_id_of(shard) == self._found["run_id"]:
                remove_shard(shard)
        remove_checkpoints(self.checkpoints)
        # The mark goes last, when that of the new run takes its place.
        for path in (*(self.path / name for name in _FILES if name != _METADATA_FILE), self.film):
            remove_file(path)
        for path in self.path.iterdir():
            if _OTHER_NAMES.fullmatch(path.name) and not path.name.endswith(f".{os.getpid()}.tmp"):
                remove_file(path)
        for name in _FOLDERS:
            with suppress(OSError):
                (self.path / name).rmdir()


def _draw_run_id() -> int:
    """A random number of 63 bits that no other run has.

    It always has 19 digits, so that the bytes that an episode takes do not depend on it.
    """
    lowest = 10**18
    return lowest + secrets.randbelow(2**63 - lowest)


def _is_half_made(replay: Path) -> bool:
    """Whether there is nothing but what a run that was killed while it started has left."""
    return (
        replay.is_dir()
        and not any(find_segments(shard) for shard in find_shards(replay))
        and (set(replay.iterdir()) == set(find_shards(replay)))
    )


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: expected JSON: {error}") from error
    return data
