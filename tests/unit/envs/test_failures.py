"""The book of failures: grouped by kind, bounded, patient up to a point."""

import logging

import pytest
from helpers.one_line import one_line
from helpers.peculiar_envs import Raises

from amago_ray.envs.failures import OTHER_KINDS, FailureBook, Retries, failure_kind, failure_message
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
