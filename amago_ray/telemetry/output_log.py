"""`OutputLog`: what foreign code prints goes to a file instead of the terminal."""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Self, TextIO, cast

from amago_ray.errors import RunDirectoryError

_OURS = "amago_ray"
# Tracebacks of environments belong beside what they printed; of each, the console says one line.
_ENVIRONMENTS = "amago_ray.envs"
_STREAMS = (1, 2)


class OutputLog:
    """Within it, whatever the process prints is kept for a file, but for warnings of this package.

    That holds for Python and for what is below it, for threads and child processes. What comes before `write_to` has
    named the file waits for it; without one it is shown at the end. `terminal` leads to where standard output led
    before. `breakpoint()` ends it, so that a debugger can be seen.
    """

    def __init__(self) -> None:
        self.terminal: TextIO = sys.stdout
        self._open = ExitStack()
        self._log: TextIO | None = None
        self._is_named = False

    def __enter__(self) -> Self:
        """Begin to keep what is printed.

        Raises:
            RunDirectoryError: there is no room for it.
        """
        with ExitStack() as stack:
            try:
                file = stack.enter_context(tempfile.TemporaryFile())
                log = self._log = _Unclosed(file, encoding="utf-8", errors="backslashreplace", line_buffering=True)
            except OSError as error:
                raise RunDirectoryError(f"what environments print cannot be kept: {error.strerror or error}") from error
            self.terminal = _kept_apart(sys.stdout, 1, stack)
            errors = _kept_apart(sys.stderr, 2, stack)
            stack.callback(self._show)
            for number in _STREAMS:
                _lead_to(log.fileno(), number, stack)
            stack.enter_context(redirect_stdout(log))
            stack.enter_context(redirect_stderr(log))
            _handle(logging.getLogger(_ENVIRONMENTS), logging.StreamHandler(log), stack)
            _handle(logging.getLogger(_OURS), _WarningsElsewhere(errors), stack)
            self._hook = sys.breakpointhook
            stack.callback(setattr, sys, "breakpointhook", self._hook)
            sys.breakpointhook = self._break
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Let everything be printed as before."""
        self._open.close()

    def write_to(self, path: Path) -> None:
        """Append what was printed, and what will be, to this file; after the end it does nothing.

        Raises:
            RunDirectoryError: the file cannot be written.
        """
        if self._log is None or self._log.closed or self._is_named:
            return
        self._log.seek(0)
        try:
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                shutil.copyfileobj(self._log, file)
                file.flush()
                for number in (self._log.fileno(), *_STREAMS):
                    with suppress(OSError):
                        os.dup2(file.fileno(), number)
        except OSError as error:
            raise RunDirectoryError(f"{path}: cannot be written: {error.strerror or error}") from error
        self._is_named = True

    def _show(self) -> None:
        assert self._log is not None
        if not self._is_named:
            self._log.seek(0)
            with suppress(OSError, ValueError, AttributeError):
                self.terminal.write(self._log.read())
                self.terminal.flush()

    def _break(self, *args: Any, **kwargs: Any) -> Any:
        self._open.close()
        return self._hook(*args, **kwargs)


class _Unclosed(io.TextIOWrapper):
    """Stays open when foreign code closes it as its standard output."""

    def close(self) -> None:
        with suppress(OSError, ValueError):
            self.flush()


class _Guarded:
    """As `_Unclosed`, for a stream of any kind, which lives on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def unclosed(stream: TextIO) -> TextIO:
    """The stream, to be handed to foreign code, which cannot close it."""
    return cast(TextIO, _Guarded(stream))


class _WarningsElsewhere(logging.StreamHandler[TextIO]):
    """Shows warnings of this package that are not of environments."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING and not record.name.startswith(_ENVIRONMENTS)


def _kept_apart(stream: TextIO, number: int, stack: ExitStack) -> TextIO:
    """A stream to where `stream` leads now, also while its file descriptor, `number`, leads elsewhere."""
    with suppress(OSError, ValueError, AttributeError, io.UnsupportedOperation):
        stream.flush()
        if stream.fileno() == number:
            copy = os.fdopen(os.dup(number), "w", encoding=stream.encoding, errors=stream.errors, buffering=1)
            stack.callback(_close, copy)
            return copy
    return stream


def _close(stream: TextIO) -> None:
    """Close a stream; what it still holds is lost where it cannot be written."""
    with suppress(OSError):
        stream.close()


def _lead_to(target: int, number: int, stack: ExitStack) -> None:
    """Let the file descriptor `number` lead to `target`, where it is open at all."""
    with suppress(OSError):
        before = os.dup(number)
        os.dup2(target, number)
        stack.callback(os.close, before)
        stack.callback(os.dup2, before, number)


def _handle(logger: logging.Logger, handler: logging.Handler, stack: ExitStack) -> None:
    logger.addHandler(handler)
    stack.callback(logger.removeHandler, handler)
