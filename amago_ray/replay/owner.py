"""Who may write in a shard's directory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from amago_ray.errors import DataError

_FILE_NAME = "owner.json"


class DirectoryOwner:
    """Fences a directory: the newest claim of the highest incarnation writes, an older copy that lives on may not.

    Restarted processes claim with a higher incarnation. Of claims with the same one, the later takes over.
    """

    def __init__(self, directory: Path, *, shard: int, incarnation: int) -> None:
        """Claim `directory`, which is created where missing.

        Raises:
            DataError: it belongs to a newer incarnation, or to another shard.
        """
        self._path = directory / _FILE_NAME
        self._incarnation = incarnation
        self._token = uuid4().hex
        try:
            directory.mkdir(parents=True, exist_ok=True)
            owner = self._read()
            if owner is not None:
                self._refuse_newer(owner)
                if owner["shard"] != shard:
                    raise DataError(f"{directory}: expected the files of shard {shard}, found shard {owner['shard']}")
            temporary = directory / f"{_FILE_NAME}.{self._token}.tmp"
            temporary.write_text(json.dumps({"shard": shard, "incarnation": incarnation, "token": self._token}))
            os.replace(temporary, self._path)
            self._stamp = self._read_stamp()
        except OSError as error:
            raise DataError(f"{directory}: cannot write there ({error.strerror})") from error

    def check(self) -> None:
        """Make sure that the directory is still ours; cheap while nobody else claimed it.

        Raises:
            DataError: another process has claimed it, or the directory is gone.
        """
        try:
            stamp = self._read_stamp()
        except OSError as error:
            raise DataError(f"{self._path.parent}: cannot append ({error.strerror})") from error
        if stamp == self._stamp:
            return
        owner = self._read()
        if owner is not None:
            self._refuse_newer(owner)
            if owner["token"] != self._token:
                raise DataError(f"{self._path.parent}: claimed by another process of incarnation {self._incarnation}")
        self._stamp = stamp

    def _refuse_newer(self, owner: dict[str, Any]) -> None:
        if owner["incarnation"] > self._incarnation:
            raise DataError(
                f"{self._path.parent}: belongs to incarnation {owner['incarnation']} of this shard, "
                f"found the older incarnation {self._incarnation}"
            )

    def _read(self) -> dict[str, Any] | None:
        try:
            owner = json.loads(self._path.read_text())
            return {key: owner[key] for key in ("shard", "incarnation", "token")}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self._path}: expected a shard's owner file ({error})") from error

    def _read_stamp(self) -> tuple[int, int]:
        status = os.stat(self._path)
        return status.st_ino, status.st_mtime_ns
