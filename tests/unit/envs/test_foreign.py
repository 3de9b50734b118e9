"""Foreign environments live in one thread, a context and a folder of their own, and leave the process as it was."""

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.one_line import one_line
from helpers.peculiar_envs import Database, Hangs, NeedsMainThread, SetsGlobals, Slow, Wanders

from amago_ray.envs.failures import Retries
from amago_ray.envs.foreign import run_foreign
from amago_ray.envs.gymnasium_batch import GymnasiumBatch
from amago_ray.errors import EnvError

AT_ONCE = Retries(first_pause_s=0.0)
ONE = np.zeros(1, np.int64)


@pytest.mark.parametrize("step_timeout_s", [None, 30.0])
def test_one_thread_makes_steps_renders_and_closes(step_timeout_s: float | None) -> None:
    Database.log.clear()
    batch = GymnasiumBatch(lambda: Database("rgb_array"), 2, name="db", step_timeout_s=step_timeout_s)
    batch.reset(np.arange(2), np.arange(2))
    assert not batch.step(np.zeros(2, np.int64)).failures
    assert batch.render(1).shape == (8, 9, 3)
    batch.close()
    assert {what for what, _ in Database.log} == {"made", "reset", "step", "render", "closed"}
    threads = {thread for _, thread in Database.log}
    assert threads == {threading.get_ident()}


def test_one_that_needs_the_main_thread_has_it_under_a_time_limit_too() -> None:
    batch = GymnasiumBatch(NeedsMainThread, 1, name="alarm", step_timeout_s=30.0)
    batch.reset(ONE, ONE)
    assert not batch.step(ONE).failures
    batch.close()


def test_one_that_hangs_again_and_again_is_isolated_and_leaves_no_thread() -> None:
    Hangs.free.clear()
    before = set(threading.enumerate())
    retries = Retries(max_failures=100, max_hangs=2, first_pause_s=0.0)
    batch = GymnasiumBatch(Hangs, 1, name="hangs", step_timeout_s=0.5, retries=retries)
    isolated = []
    for _ in range(8):
        batch.reset(ONE, ONE)
        batch.step(ONE)
        isolated += [failure.is_isolated for failure in batch.step(ONE).failures]
    assert isolated == [False, True]
    (watch,) = set(threading.enumerate()) - before
    batch.close()
    watch.join(60)
    assert not watch.is_alive()


def test_making_one_may_take_longer_than_a_step() -> None:
    batch = GymnasiumBatch(lambda: Slow(1.0), 1, name="slow", step_timeout_s=0.5)
    batch.close()


@pytest.mark.parametrize("step_timeout_s", [None, 30.0])
@pytest.mark.parametrize("in_step", [None, "deeper"])
def test_an_environment_has_a_working_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_timeout_s: float | None, in_step: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    numbers = iter(range(9))
    batch = GymnasiumBatch(
        lambda: Wanders(f"place_{next(numbers)}", in_step), 3, name="wanders", step_timeout_s=step_timeout_s
    )
    assert os.getcwd() == str(tmp_path)
    batch.reset(np.arange(3), np.arange(3))
    for _ in range(3):
        assert not batch.step(np.zeros(3, np.int64)).failures
        assert os.getcwd() == str(tmp_path)
    batch.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["place_0", "place_1", "place_2"]


def test_a_step_that_changes_the_folder_does_not_move_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leaves(Wanders):
        def step(self, action):
            os.chdir("/")
            return super(Wanders, self).step(action)

    monkeypatch.chdir(tmp_path)
    batch = GymnasiumBatch(lambda: Leaves("."), 2, name="leaves")
    batch.reset(np.arange(2), np.arange(2))
    assert not batch.step(np.zeros(2, np.int64)).failures
    assert os.getcwd() == str(tmp_path)


def test_what_an_environment_sets_for_the_process_is_its_own_affair() -> None:
    errors, handler = np.geterr(), signal.getsignal(signal.SIGTERM)
    batch = GymnasiumBatch(SetsGlobals, 2, name="sets")
    batch.reset(np.arange(2), np.arange(2))
    assert not batch.step(np.zeros(2, np.int64)).failures
    assert np.geterr() == errors
    assert signal.getsignal(signal.SIGTERM) is handler


def test_an_import_leaves_the_process_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def wander() -> int:
        os.chdir("elsewhere")
        np.seterr(all="raise")
        return 5

    errors = np.geterr()
    assert run_foreign(wander) == 5
    assert os.getcwd() == str(tmp_path)
    assert np.geterr() == errors


@pytest.mark.parametrize("step_timeout_s", [None, 30.0])
def test_exits_while_it_is_made_are_errors(step_timeout_s: float | None) -> None:
    with pytest.raises(EnvError) as error:
        GymnasiumBatch(lambda: sys.exit(3), 1, name="leaves", step_timeout_s=step_timeout_s)
    assert one_line(error) == "env 'leaves': cannot be made: SystemExit: 3"
