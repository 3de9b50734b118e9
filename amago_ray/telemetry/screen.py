"""Text on a console as it is: no markup, no emoji codes, no control characters, in whatever encoding there is."""

from __future__ import annotations

import errno
import sys
from typing import IO, Any, cast

from rich.console import Console, RenderableType


def printable(text: str) -> str:
    """The text with control characters, which a terminal would obey, written as escapes; lines and tabs stay."""
    return "".join(each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)


class _Console(Console):
    """Where a reader goes away, rich's own console ends the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "its reader is gone")


def make_console(stream: IO[str] | None = None) -> Console:
    """A console on `stream`, by default stdout, that shows any text; a stdout that is closed swallows it."""
    return _Console(file=cast(IO[str], _Encoded(stream or sys.stdout)), markup=False, emoji=False, highlight=False)


class Screen:
    """A console that ends no run: the first failure to write switches it off.

    failure: what switched it off; None while it is on.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or make_console()
        self.failure: OSError | ValueError | None = None

    def line(self, text: str) -> None:
        """Print one line, which is broken by the terminal alone."""
        self.show(printable(text), soft_wrap=True, highlight=False, markup=False, emoji=False)

    def show(self, content: RenderableType, **how: Any) -> None:
        """Print anything that rich can show."""
        if self.failure is not None:
            return
        try:
            self.console.print(content, **how)
        except (OSError, ValueError) as error:
            # Also ValueError: a stream that was closed.
            self.failure = error


class _Encoded:
    """A text stream of which no character is refused: what its encoding lacks is shown as a question mark."""

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        if self._stream is not None:
            self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise OSError("stdout is closed")
        return self._stream.fileno()
