"""The book of failures: grouped by kind, bounded, patient up to a point."""

import logging
import signal
import time

import pytest
from helpers.one_line import one_line
from helpers.peculiar_envs import Raises

from amago_ray.envs.failures import OTHER_KINDS, FailureBook, Retries, failure_kind, failure_message, is_interrupt
from amago_ray.envs.hang_watch import HungError
from amago_ray.errors import EnvError


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_kind_is_class_and_line_whatever_the_text(caplog: pytest.LogCaptureFixture) -> None:
    book = FailureBook("odd", 2, Retries(max_failures=1000, first_pause_s=0.0))
    with caplog.at_level(logging.ERROR):
        for number in range(100):
            book.add(0, "step", raised(RuntimeError(f"lost frame {number}")))
            (failure,) = book.report()
            assert failure.message == f"env 'odd': step: RuntimeError: lost frame {number}"
            assert failure.kind.startswith("env 'odd': RuntimeError at ")
            assert book.reset(0)
    assert len(caplog.records) == 1
    assert "lost frame 0" in caplog.text
    assert "Traceback" in caplog.text


def test_the_number_of_kinds_is_bounded() -> None:
    book = FailureBook("odd", 1, Retries(max_failures=1000, first_pause_s=0.0))
    kinds = set()
    for number in range(500):
        # Each of another class.
        book.add(0, "step", raised(type(f"Error{number}", (Exception,), {})("broken")))
        kinds.add(book.report()[0].kind)
        book.reset(0)
    assert OTHER_KINDS in kinds
    assert len(kinds) == 65


def test_a_failure_that_is_not_made_good_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    book = FailureBook("odd", 1, Retries())
    book.add(0, "step", raised(RuntimeError("broken")))
    assert not caplog.records


def test_messages_are_one_line_of_bounded_length_whatever_the_error() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    assert failure_message(ValueError("two\nlines"), "reset") == "reset: ValueError: two lines"
    assert failure_message(SystemExit(), "step") == "step: SystemExit"
    assert failure_message(MuteError(), "step") == "step: MuteError"
    # What says nothing else says where.
    assert failure_message(raised(AssertionError()), "step").startswith(f"step: AssertionError at {__file__}:")
    assert len(failure_message(ValueError("x" * 10_000), "step")) < 400
    assert failure_message(EnvError("observation 'a': wrong"), "step") == "step: observation 'a': wrong"


def test_the_line_is_that_which_raised() -> None:
    env = Raises()
    env.reset()
    env.step(0)
    with pytest.raises(RuntimeError) as error:
        env.step(0)
    assert failure_kind(error.value).rpartition(":")[0].endswith("peculiar_envs.py")
    assert failure_kind(RuntimeError("never raised")) == "RuntimeError"


def test_hanging_again_and_again_isolates() -> None:
    book = FailureBook("odd", 2, Retries(max_hangs=3))
    for _ in range(2):
        book.add(1, "step", raised(HungError("hung")))
        assert book.usable is None
    book.stepped(1, ended=True)
    for _ in range(2):
        book.add(1, "step", raised(HungError("hung")))
        assert book.usable is None
    book.add(1, "step", raised(HungError("hung")))
    assert book.usable is not None
    assert book.usable.tolist() == [True, False]
    assert book.report()[0].is_isolated


def test_failures_make_one_line() -> None:
    book = FailureBook("odd", 1, Retries())
    book.add(0, "step", raised(RuntimeError("lost [/dev/ttyUSB0] of\n[bold] arm [0]")))
    with pytest.raises(EnvError) as error:
        raise EnvError(book.report()[0].message)
    assert one_line(error) == "env 'odd': step: RuntimeError: lost [/dev/ttyUSB0] of [bold] arm [0]"


def test_pauses_double_with_each_failure_in_a_row_and_of_several_the_longest_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses_s: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses_s.append)
    book = FailureBook("odd", 3, Retries(max_failures=5, first_pause_s=0.25, max_pause_s=1.5))
    for _ in range(4):
        book.add(1, "step", RuntimeError("broken"))
        book.pause([1])
    assert pauses_s == [0.25, 0.5, 1.0, 1.5]
    book.add(0, "step", RuntimeError("broken"))
    book.pause([0, 1, 2])
    book.pause([0, 2])
    book.pause([2])
    assert pauses_s[4:] == [1.5, 0.25]
    book.stepped(1, ended=False)
    book.add(1, "step", RuntimeError("broken"))
    assert book.isolated.tolist() == [False, True, False], "a good step alone is no episode"
    book.pause([0, 1])
    assert pauses_s[6:] == [0.25], "nobody waits for one that is isolated"


def test_an_episode_that_ends_makes_failures_good() -> None:
    book = FailureBook("odd", 1, Retries(max_failures=2))
    for _ in range(3):
        book.add(0, "step", RuntimeError("broken"))
        assert not book.report()[0].is_isolated
        book.reset(0)
        book.stepped(0, ended=True)


@pytest.mark.parametrize("error", [RuntimeError(), SystemExit()])
def test_only_a_keyboard_interrupt_is_taken_for_ctrl_c(error: BaseException) -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not is_interrupt(error)
    assert is_interrupt(KeyboardInterrupt())
