"""Who may write in a shard's directory."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from uuid import uuid4

from amago_ray.data.files import missing_folders
from amago_ray.errors import DamagedError, DataError, ReplacedError
from amago_ray.replay.layout import FULL, OWNER_FILE, find_segments, find_unfinished, remove_shard
from amago_ray.replay.owner_file import Owner, known_owner, overwrite, read_owner


@dataclass(frozen=True)
class Claim:
    """In whose name a run opens its shards' directories, and what becomes of another run's files there.

    mode: "new" refuses them, "overwrite" removes them, "resume" expects the run's own, or those of a version that knew
    no run ids.
    """

    run_id: int
    mode: Literal["new", "resume", "overwrite"]


NO_RUN = Claim(0, "new")
"""For a shard that belongs to no run."""


class DirectoryOwner:
    """Fences a directory: the newest claim of the highest incarnation writes, an older copy that lives on may not.

    Restarted processes claim with a higher incarnation. Of claims with the same one, the later takes over. A run that
    cannot start costs nothing and leaves nothing: another run's files are removed only by `begin`, and a directory that
    was made for a claim goes again when it is closed before that.
    """

    def __init__(self, directory: Path, claim: Claim, *, shard: int, incarnation: int) -> None:
        """Claim `directory`, which is created where missing.

        Raises:
            ReplacedError: it belongs to a newer incarnation.
            DataError: it belongs to another shard or to another run, or is not a shard's.
        """
        self._directory = directory
        self._path = directory / OWNER_FILE
        self._claim = claim
        self._shard = shard
        self._incarnation = incarnation
        self._token = uuid4().hex
        self._descriptor: int | None = None
        self._stamp = (0, 0)
        self._is_fresh = False
        self._made: list[Path] = []
        self.epoch = incarnation
        """The incarnation that began these files, whichever goes on with them: what names them wherever they are."""
        self._replaces = examine(directory, claim)
        if not self._replaces:
            self._write()

    @property
    def replaces(self) -> bool:
        """Whether the directory still holds another run's files, which `begin` removes."""
        return self._replaces

    def begin(self) -> None:
        """From here on the directory is this run's alone.

        Raises:
            DataError: it cannot be written, or another run has begun to use it.
        """
        self._is_fresh = False
        if not self._replaces:
            return
        if examine(self._directory, self._claim):
            try:
                remove_shard(self._directory)
            except OSError as error:
                raise DataError(f"{self._directory}: cannot be emptied ({error.strerror})") from error
        self._write()
        self._replaces = False

    def check(self) -> None:
        """Make sure that the directory is still ours; cheap while nobody else claimed it.

        Raises:
            ReplacedError: another process has claimed it.
            DataError: the directory is gone.
        """
        try:
            stamp = self._read_stamp()
        except OSError as error:
            raise DataError(f"{self._directory}: cannot append ({error.strerror})") from error
        if stamp == self._stamp:
            return
        try:
            owner = read_owner(self._path)
        except DamagedError:
            if self._descriptor is None or os.fstat(self._descriptor).st_ino != stamp[0]:
                raise
            # Nobody has put another file in its place: ours is damaged.
            self._write(is_ours=True)
            return
        if owner is not None:
            self._refuse_newer(owner)
            if owner.token != self._token:
                raise ReplacedError(f"{self._directory}: claimed by another process of incarnation {self._incarnation}")
        self._stamp = stamp

    def close(self) -> None:
        """Let other runs have the directory, if they are told to overwrite it."""
        if self._is_fresh:
            self._is_fresh = False
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
                for path in self._made:
                    path.rmdir()
        self._let_go()

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, *, is_ours: bool = False) -> None:
        """Put our file in place of what is there; `is_ours`: whatever that says, it was ours."""
        temporary = self._directory / f"{OWNER_FILE}.{self._token}.tmp"
        try:
            ours = Owner(self._shard, self._incarnation, self._token, self._claim.run_id, self.epoch)
            owner = ours if is_ours else known_owner(self._directory, self._claim.run_id)
            self._is_fresh = owner is None and not self._replaces
            self._made = missing_folders(self._directory)
            self._directory.mkdir(parents=True, exist_ok=True)
            if owner is not None and not self._replaces:
                self._refuse_newer(owner)
                if owner.shard not in (self._shard, None):
                    raise DataError(
                        f"{self._directory}: expected the files of shard {self._shard}, got shard {owner.shard}"
                    )
                self.epoch = owner.epoch
            content = replace(ours, epoch=self.epoch).to_bytes()
            self._let_go()
            # Held while this process lives: by it other runs see that the directory is in use.
            try:
                temporary.write_bytes(content)
                self._descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
                _try_lock(self._descriptor, fcntl.LOCK_SH)
                os.replace(temporary, self._path)
            except OSError as error:
                if error.errno not in FULL or owner is None or self._replaces:
                    raise
                temporary.unlink(missing_ok=True)
                self._let_go()
                self._descriptor = overwrite(self._path, content)
                _try_lock(self._descriptor, fcntl.LOCK_SH)
            self._stamp = self._read_stamp()
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            self.close()
            raise DataError(f"{self._directory}: cannot write there ({error.strerror})") from error

    def _refuse_newer(self, owner: Owner) -> None:
        if owner.incarnation > self._incarnation:
            raise ReplacedError(
                f"{self._directory}: belongs to incarnation {owner.incarnation} of this shard, "
                f"got the older incarnation {self._incarnation}"
            )

    def _read_stamp(self) -> tuple[int, int]:
        # Opened, not only looked at: network file systems answer `stat` from a cache, and ask the server at `open`.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return status.st_ino, status.st_mtime_ns


def examine(directory: Path, claim: Claim) -> bool:
    """Whether a shard's directory holds another run's files, which `claim` allows to remove; nothing is changed.

    Raises:
        DataError: they may not be removed, or the directory holds files that no shard has written.
    """
    try:
        owner = known_owner(directory, claim.run_id)
        if owner is None:
            if directory.is_dir() and set(directory.iterdir()) - set(find_unfinished(directory)):
                raise DataError(f"{directory}: expected a replay shard's folder, got one without {OWNER_FILE}")
            return False
        if owner.run_id == claim.run_id or (owner.run_id is None and claim.mode == "resume"):
            return False
        if claim.mode == "resume":
            raise DataError(f"{directory}: expected replay of run id {claim.run_id}, got that of {_name(owner)}")
        if claim.mode == "new" and find_segments(directory):
            raise DataError(
                f"{directory}: holds episodes of another run: replace them with --overwrite, or choose another "
                "replay.directory"
            )
        if _is_in_use(directory / OWNER_FILE):
            raise DataError(f"{directory}: in use by {_name(owner)}, which is running")
    except OSError as error:
        raise DataError(f"{directory}: cannot be read ({error.strerror})") from error
    return True


def run_id_of(directory: Path) -> int | None:
    """The run whose shard writes in `directory`; None where it has none, or no id.

    Raises:
        DataError: its owner file cannot be read.
    """
    owner = read_owner(directory / OWNER_FILE)
    return None if owner is None else owner.run_id


def epoch_of(directory: Path) -> int:
    """The incarnation that began the files of a shard in `directory`.

    Raises:
        DataError: its owner file is missing or cannot be read.
    """
    owner = read_owner(directory / OWNER_FILE)
    if owner is None:
        raise DataError(f"{directory}: expected a replay shard's folder, got one without {OWNER_FILE}")
    return owner.epoch


def _name(owner: Owner) -> str:
    return "another run" if owner.run_id is None else f"run id {owner.run_id}"


def _is_in_use(path: Path) -> bool:
    """Whether a living process holds the owner file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return not _try_lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    """Lock a file unless another process holds it; file systems without locks count as free."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
