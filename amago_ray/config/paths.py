"""Folders and files that a user names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from amago_ray.errors import ConfigError

# One slash, as `pathlib` makes one of two.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(where: str, path: str | os.PathLike[str]) -> Path:
    """The absolute path that an argument means now, with `~` as a shell reads it; `where` is the argument's name.

    Raises:
        ConfigError: it is the address of something that is not mounted here, or names the home of nobody.
    """
    text = os.fspath(path)
    if _SCHEME.match(text):
        raise ConfigError(f'{where}: expected a path on a mounted file system, got "{text}"')
    if "\0" in text:
        raise ConfigError(f"{where}: expected a path, got {text!r}")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f'{where}: expected a path, got "{text}": there is no such home') from error


def shown(text: object) -> str:
    """A path, or a message with paths, as a user would write it here: those below the working folder relative to it."""
    folder = os.path.join(re.escape(os.getcwd()), "")
    return str(text) if folder == "/" else re.sub(rf"(?<![^\s\"'(=]){folder}", "", str(text))
