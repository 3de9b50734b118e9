"""Signals ask once, and insist the second time."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from amago_ray.envs.foreign import kept_signal_handlers
from amago_ray.training.interrupt import stop_on_interrupt

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers_are_restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ALL}
    yield
    assert {number: signal.getsignal(number) for number in ALL} == before


@pytest.mark.parametrize("second", ALL)
@pytest.mark.parametrize("first", ALL)
def test_the_first_asks_and_the_second_ends_at_once(first: signal.Signals, second: signal.Signals) -> None:
    asked: list[str] = []
    with stop_on_interrupt() as on_interrupt:
        on_interrupt(asked.append)
        signal.raise_signal(first)
        assert asked == ["stopped by the user"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(second)
    assert asked == ["stopped by the user"]


@pytest.mark.parametrize("number", ALL)
def test_the_second_ends_at_once_also_where_the_first_came_while_handlers_were_kept(number: signal.Signals) -> None:
    asked: list[str] = []
    with stop_on_interrupt() as on_interrupt:
        on_interrupt(asked.append)
        with kept_signal_handlers():
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert asked == ["stopped by the user"]


@pytest.mark.parametrize("number", ALL)
def test_before_there_is_anything_to_ask_the_first_ends_at_once(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), stop_on_interrupt():
        signal.raise_signal(number)


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    own = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    asked: list[str] = []
    try:
        with stop_on_interrupt() as on_interrupt:
            on_interrupt(asked.append)
            signal.raise_signal(signal.SIGHUP)
            assert asked == []
    finally:
        signal.signal(signal.SIGHUP, own)
