import sys
from pathlib import Path

import pytest
from measuring import protocol
from measuring.protocol import Side, SideError, run_watched

SCRIPT = """
import contextlib, sys
sys.path.insert(0, {folder!r})
from measuring.protocol import serve

@contextlib.contextmanager
def set_up():
    print("noise of a library")
    {set_up}
    yield {{"threads": 2}}, measure

def measure(seconds):
    print("more noise")
    if seconds < 0:
        raise ValueError("seconds: expected more than 0\\nand so on")
    return {{"value": 10 * seconds}}

serve(set_up)
"""


def command(set_up="pass"):
    return [sys.executable, "-c", SCRIPT.format(folder=str(Path(protocol.__file__).parents[1]), set_up=set_up)]


def test_a_side_answers_whenever_asked_and_its_noise_goes_to_the_log(tmp_path):
    side = Side(command(), log=tmp_path / "log", timeout_s=30)
    try:
        assert side.facts == {"threads": 2}
        assert [side.measure(seconds, timeout_s=30)["value"] for seconds in (1.0, 2.5)] == [10, 25]
        assert side.measure(1.0, timeout_s=30).keys() >= {"value", "elapsed_s", "tree_cpu_s", "other_cpu_s"}
    finally:
        side.close()
    assert "more noise" in (tmp_path / "log").read_text()


def test_a_side_that_fails_says_why_in_one_line(tmp_path):
    with pytest.raises(SideError, match=r"^ImportError: no flash$"):
        Side(command("raise ImportError('no flash')"), log=tmp_path / "log", timeout_s=30)
    side = Side(command(), log=tmp_path / "log", timeout_s=30)
    with pytest.raises(SideError, match=r"^ValueError: seconds: expected more than 0$"):
        side.measure(-1.0, timeout_s=30)
    side.close()


def test_a_side_that_dies_is_noticed(tmp_path):
    with pytest.raises(SideError, match="ended"):
        Side(command("import os; os._exit(3)"), log=tmp_path / "log", timeout_s=30)


def test_a_side_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "CLOSING_S", 0.2)
    with pytest.raises(SideError, match="not done after"):
        Side(command("import time; time.sleep(60)"), log=tmp_path / "log", timeout_s=0.5)


def test_a_program_is_run_to_its_end(tmp_path):
    output, load = run_watched([sys.executable, "-c", "print('done')"], log=tmp_path / "log", timeout_s=30)
    assert output == "done\n"
    assert load["elapsed_s"] > 0


def test_a_program_that_takes_too_long_is_interrupted(tmp_path):
    with pytest.raises(SideError, match="not done after"):
        run_watched([sys.executable, "-c", "import time; time.sleep(60)"], log=tmp_path / "log", timeout_s=0.5)


def test_a_program_that_fails_is_named_by_its_last_line(tmp_path):
    with pytest.raises(SideError, match=r"^ended with 1: ValueError: wrong$"):
        run_watched([sys.executable, "-c", "raise ValueError('wrong')"], log=tmp_path / "log", timeout_s=30)
