"""Calls that take too long are interrupted where they are, and told of where they cannot be."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from amago_ray.envs.foreign import ForeignEnv
from amago_ray.envs.hang_watch import HangWatch, HungError, hung_call

LONG_S = 60.0


@pytest.fixture
def watch() -> Iterator[HangWatch]:
    watch = HangWatch("env 'slow'", 0.2)
    yield watch
    watch.close()


def spin() -> None:
    while True:
        pass


def catch_everything() -> None:
    for _ in range(3):
        try:
            time.sleep(LONG_S)
        except Exception:
            continue


class Env:
    """Its step is a function."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def step(self, action: object) -> object:
        return self._function()


@pytest.mark.parametrize(
    "function",
    [spin, lambda: time.sleep(LONG_S), lambda: threading.Event().wait(LONG_S), catch_everything],
    ids=["python", "sleep", "lock", "catches"],
)
def test_a_call_that_hangs_is_interrupted(watch: HangWatch, function: Callable[[], object]) -> None:
    env = ForeignEnv(lambda: Env(function), watch)
    began = time.monotonic()
    env.build()
    for call in (lambda: env.step(0), lambda: env.call(lambda env: env.step(0))):
        with pytest.raises(HungError, match=r"^no answer within 0\.2 s$"):
            call()
    assert time.monotonic() - began < LONG_S
    assert hung_call() is None


def test_calls_in_time_go_on_whatever_they_add_up_to(watch: HangWatch) -> None:
    env = ForeignEnv(lambda: Env(lambda: time.sleep(0.01)), watch)
    env.build()
    began = time.monotonic()
    while time.monotonic() - began < 0.6:
        env.step(0)


def test_what_cannot_be_interrupted_is_told(watch: HangWatch) -> None:
    """As in native code: the call is in another thread, which no signal reaches."""
    free = threading.Event()

    def hang() -> None:
        watch.call += 1
        watch.is_inside = True
        free.wait(LONG_S)
        watch.is_inside = False

    thread = threading.Thread(target=hang)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
    try:
        thread.start()
        deadline = time.monotonic() + LONG_S
        while hung_call() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert str(hung_call()).startswith("env 'slow' has taken ")
        free.set()
        thread.join()
        while hung_call() is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def test_the_signal_is_left_as_it_was() -> None:
    code = """if True:
        import signal
        from amago_ray.envs.hang_watch import HangWatch
        own = lambda number, frame: None
        signal.signal(signal.SIGURG, own)
        watches = [HangWatch("env", 30.0) for _ in range(2)]
        assert signal.getsignal(signal.SIGURG) is not own
        for watch in (*watches, watches[0]):
            watch.close()
        assert signal.getsignal(signal.SIGURG) is own
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LONG_S)


def test_a_watch_that_is_forgotten_ends() -> None:
    before = set(threading.enumerate())
    HangWatch("env", 0.2)
    for thread in set(threading.enumerate()) - before:
        thread.join(LONG_S)
        assert not thread.is_alive()
