"""Standard streams that take any text, whatever the shell connected them to."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import TextIO


def prepare_streams() -> None:
    """Let every character be written; a stream that is closed swallows what it is given.

    A closed descriptor would be taken by the next file that is opened, and that file by whatever prints to it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def flush_streams() -> str | None:
    """Write what the streams still hold; returns why stdout cannot be written, if so.

    What cannot be written is dropped, as the interpreter would fail on it again when it ends. A reader that went away,
    as `head` does, is no failure.
    """
    _flush(sys.stderr)
    error = _flush(sys.stdout)
    if isinstance(error, OSError) and error.errno != errno.EPIPE:
        return f"the output cannot be written: {error.strerror or error}"
    return None


def _flush(stream: TextIO) -> OSError | ValueError | None:
    try:
        stream.flush()
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def is_output_failure(error: OSError) -> bool:
    """Whether this is what printing to a full or broken stdout raises."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)
