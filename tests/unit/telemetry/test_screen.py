"""Text is text, whatever is in it and wherever it is shown."""

from __future__ import annotations

import errno
import io
import os
from typing import IO

import pytest

from amago_ray.telemetry.screen import Screen, make_console, printable

STRANGE = "lost [/dev/ttyUSB0] of [bold] arm [0] :warning: größe → 50%"


class Broken(io.StringIO):
    """A stream that fails as asked."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.num_tries = 0

    def write(self, text: str) -> int:
        self.num_tries += 1
        raise self.error


def test_neither_markup_nor_emoji_codes_are_read() -> None:
    out = io.StringIO()
    Screen(make_console(out)).line(STRANGE)
    assert out.getvalue() == STRANGE + "\n"


def test_what_an_encoding_lacks_is_a_question_mark() -> None:
    content = io.BytesIO()
    out = io.TextIOWrapper(content, encoding="ascii")
    screen = Screen(make_console(out))
    screen.line("größe → \udcff [0]")
    out.flush()
    assert content.getvalue() == b"gr??e ? \\udcff [0]\n"
    assert screen.failure is None


def test_control_characters_are_shown_not_obeyed() -> None:
    assert printable("a\x1b[31mb\x07\r\n\tc\x9b") == "a\\x1b[31mb\\x07\\r\n\tc\\x9b"
    out = io.StringIO()
    Screen(make_console(out)).line("\x1b[2Jgone")
    assert out.getvalue() == "\\x1b[2Jgone\n"


def broken_pipe() -> IO[str]:
    """The end of a pipe whose reader went away."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("closed file")])
def test_a_console_that_fails_is_switched_off(error: Exception) -> None:
    out = Broken(error)
    screen = Screen(make_console(out))
    screen.line("one")
    assert screen.failure is error
    screen.line("two")
    assert out.num_tries == 1


def test_a_reader_that_goes_away_ends_nothing() -> None:
    out = broken_pipe()
    screen = Screen(make_console(out))
    screen.line("one")
    assert isinstance(screen.failure, BrokenPipeError)
    with pytest.raises(BrokenPipeError):
        out.close()


def test_a_closed_stdout_swallows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    screen = Screen(make_console())
    screen.line("one")
    assert screen.failure is None
