"""What is printed goes to a file, whoever prints it; the console and warnings of this package do not."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.one_line import one_line

from amago_ray.errors import RunDirectoryError
from amago_ray.telemetry.output_log import OutputLog

SCRIPT = """
import logging, os, subprocess, sys, threading
from pathlib import Path
from amago_ray.telemetry.output_log import OutputLog
print("before")
with OutputLog() as output:
    print("python [/bold] größe")
    print("python error", file=sys.stderr)
    os.write(1, b"below\\n")
    os.write(2, b"below error\\n")
    output.write_to(Path("environment.log"))
    subprocess.run([sys.executable, "-c", "print('child')"])
    thread = threading.Thread(target=print, args=("thread",))
    thread.start()
    thread.join()
    logging.getLogger("amago_ray.envs.failures").error("traceback")
    logging.getLogger("amago_ray.replay.store").warning("damaged")
    logging.getLogger("of_the_environment").warning("its warning")
    print("table", file=output.terminal)
print("after")
print("after error", file=sys.stderr)
"""


def test_a_process_with_everything_that_prints(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"},
    )
    assert done.stdout.splitlines() == ["before", "table", "after"]
    assert done.stderr.splitlines() == ["damaged", "after error"]
    assert sorted((tmp_path / "environment.log").read_text(encoding="utf-8").splitlines()) == sorted(
        ["python [/bold] größe", "python error", "below", "below error", "child", "thread", "traceback", "its warning"]
    )


def test_streams_that_are_no_files_stay_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "environment.log"
    log.write_text("of the session before\n")
    with OutputLog() as output:
        print("of the environment")
        output.write_to(log)
        print("again")
        print("table", file=output.terminal)
    print("after")
    assert capsys.readouterr().out == "table\nafter\n"
    assert log.read_text() == "of the session before\nof the environment\nagain\n"


def test_what_has_no_file_is_shown_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with OutputLog():
        print("of the environment")
        assert capsys.readouterr().out == ""
    assert capsys.readouterr().out == "of the environment\n"


def test_an_environment_that_closes_its_standard_output_takes_nothing_along(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with OutputLog() as output:
        print("before")
        sys.stdout.close()
        sys.stderr.close()
        print("between")
        output.write_to(tmp_path / "environment.log")
        sys.stdout.close()
        print("after", file=sys.stderr)
        print("table", file=output.terminal)
    assert capsys.readouterr().out == "table\n"
    assert (tmp_path / "environment.log").read_text() == "before\nbetween\nafter\n"


def test_a_breakpoint_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "breakpointhook", lambda: print("(Pdb)"))
    with OutputLog() as output:
        breakpoint()
        print("seen")
        output.write_to(tmp_path / "environment.log")
    assert capsys.readouterr().out == "(Pdb)\nseen\n"


def test_everything_is_as_before_afterwards() -> None:
    def shared() -> list[object]:
        handlers = [list(logging.getLogger(name).handlers) for name in ("amago_ray", "amago_ray.envs")]
        return [*handlers, sys.stdout, sys.stderr, sys.breakpointhook]

    before = shared()
    with OutputLog():
        assert all(now != then for now, then in zip(shared(), before, strict=True))
    assert shared() == before


def test_a_file_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with OutputLog() as output:
        print("of the environment")
        with pytest.raises(RunDirectoryError) as error:
            output.write_to(tmp_path / "none" / "environment.log")
        assert "environment.log: cannot be written: No such file" in one_line(error)
    assert capsys.readouterr().out == "of the environment\n"
