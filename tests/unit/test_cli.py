import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from helpers.run_directories import begun

import amago_ray
from amago_ray.cli.app import main
from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.errors import AmagoRayError, ConfigError
from amago_ray.training.run_directory import RunDirectory

COMMANDS = ["train", "eval", "record", "import-checkpoint", "status", "scale", "config", "envs", "doctor"]


def run(*arguments: str) -> int:
    """The exit code of a command line in this process."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0)


def test_help_names_every_command_without_loading_torch_or_ray() -> None:
    code = """
import sys
from amago_ray.cli import main
try:
    main(["--help"])
except SystemExit:
    print(sorted({"torch", "ray", "gymnasium", "pydantic"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == 0

    shown = capsys.readouterr().out
    assert f"amago-ray {command}" in shown
    assert "--debug" in shown


def test_a_users_error_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "quickstart", "lerner.batch_size=3") == 2

    captured = capsys.readouterr()
    assert captured.err == 'error: command line: lerner: unknown key; did you mean "learner"?\n'
    assert captured.out == ""


def test_a_message_of_several_lines_is_joined_to_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AmagoRayError("first\n  second")

    monkeypatch.setattr("amago_ray.config.load.load_config", fail)

    assert run("config", "quickstart") == 2
    assert capsys.readouterr().err == "error: first second\n"


def test_what_a_part_of_ones_own_raises_is_one_line_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_part.py").write_text(
        "class Part:\n"
        "    def __init__(self, config, spec, num_envs):\n        pass\n"
        "    def begin(self, indices, rng):\n        pass\n"
        "    def apply(self, *arguments):\n        raise KeyError('lost')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    code = run(
        "train", "quickstart", "--local", "exploration.kind=broken_part:Part", "evaluation.num_episodes=0",
        "stop={env_steps: 50}", "report.loggers=[jsonl]",
    )  # fmt: skip

    assert code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: KeyError: 'lost' (")
    assert "broken_part.py:7; --debug shows the way there)" in error


def test_ctrl_c_is_one_line_and_the_exit_code_of_a_shell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("amago_ray.config.load.load_config", interrupted)

    assert run("config", "quickstart") == 130
    assert capsys.readouterr().err == "stopped by the user\n"


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ConfigError, match="lerner: unknown key"):
        main(["train", "quickstart", "lerner.batch_size=3", "--debug"])


def test_resume_and_overwrite_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "quickstart", "--resume", "--overwrite") == 2
    assert "exclude each other" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", str(tmp_path / "nothing")) == 2
    assert "nothing" in capsys.readouterr().err


def test_status_of_a_run_that_was_killed_before_it_said_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = begun(Config(env=EnvConfig(id="some-env"), name="mine", runs_dir=str(tmp_path)))
    assert run("status", str(directory.path)) == 0
    assert "nothing reported yet" in capsys.readouterr().out


def test_status_shows_processes_and_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(env=EnvConfig(id="some-env"), name="mine", runs_dir=str(tmp_path))
    directory = RunDirectory.of(config)
    directory.reserve()
    directory.begin(config)
    runner = {"name": "env runner 0", "host": "10.0.0.7", "age_s": 3.0, "doing": "stepping environments", "busy_s": 2.0}
    pending = {"name": "learner", "host": "", "age_s": 40.0, "doing": "being made", "busy_s": 0.0}
    told = [{"unix_time_s": 0.0, "text": "the learner died and is started again"}]
    directory.write_status({"state": "running", "processes": [pending, runner], "warnings": told})
    assert run("status", str(directory.path)) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "nodes: 10.0.0.7 (1), no node yet (1)" in lines
    assert any(
        re.fullmatch(r"env runner 0 10\.0\.0\.7 \d+ s ago stepping environments for 2 s", line) for line in lines
    )
    assert "learner none yet being made" in lines
    assert any(line.endswith("the learner died and is started again") for line in lines)
    # Nobody gives pulses any more.
    directory.write_status({"state": "ended", "processes": [runner], "warnings": told})
    assert run("status", str(directory.path)) == 0
    assert "env runner 0" not in capsys.readouterr().out
    directory.close()


def test_status_says_how_far_a_run_is_and_since_when(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(env=EnvConfig(id="some-env"), name="mine", runs_dir=str(tmp_path))
    directory = RunDirectory.of(config)
    directory.reserve()
    directory.begin(config)
    directory.write_status({"state": "running", "metrics": {"env_steps": 1234.0}})
    for state in ("running", "died"):
        assert run("status", str(directory.path)) == 0
        shown = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
        assert shown["state"] == state
        assert shown["metrics/env_steps"] == "1,234"
        assert shown["pid"] == str(os.getpid())
        # As when the process that trains dies.
        directory.close()
    directory.write_status({})
    assert run("status", str(directory.path)) == 0
    written = capsys.readouterr().out.split("written")[1].strip()
    at, _, age = written.partition(" (")
    assert abs(datetime.fromisoformat(at) - datetime.now()) < timedelta(minutes=1)
    assert age.endswith("s ago)")


def test_only_a_run_over_ray_that_goes_on_is_scaled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(env=EnvConfig(id="some-env"), name="mine", runs_dir=str(tmp_path))
    directory = RunDirectory.of(config)
    directory.reserve()
    directory.begin(config)
    directory.write_status({"state": "running"})
    for state in ("a run over Ray, got one in a single process (--local)", "a run that goes on, got one that has died"):
        assert run("scale", str(directory.path), "--env-runners", "2") == 2
        assert capsys.readouterr().err == f"error: {directory.path}: expected {state}\n"
        directory.close()


def test_a_run_is_found_by_its_name_in_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begun(Config(env=EnvConfig(id="some-env"), name="mine"))
    assert run("status", "mine") == 0
    assert "nothing reported yet" in capsys.readouterr().out
    (tmp_path / "mine").mkdir()
    assert run("status", "mine") == 2, "a folder of that name comes first"


def test_config_prints_every_setting_as_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "quickstart", "learner.batch_size=3") == 0

    resolved = yaml.safe_load(capsys.readouterr().out)
    assert resolved["learner"]["batch_size"] == 3
    assert resolved["learner"]["weight_decay"] == 1e-3


def test_config_lists_shipped_configs_and_explains_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config") == 0
    assert "quickstart" in capsys.readouterr().out
    assert run("config", "--fields") == 0
    assert (
        "learner.batch_size = 24  (a positive integer)\n    B, sequences per batch of each learner"
        in capsys.readouterr().out
    )


def test_envs_lists_the_built_in_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("envs") == 0

    shown = capsys.readouterr().out
    for name in ("MazeRunner", "DarkKeyDoor", "TMaze", "HiddenVelocityPendulum"):
        assert f"amago_ray/{name}-v0" in shown


def test_doctor_looks_at_everything_and_fails_without_a_place_to_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")

    assert run("doctor", "--runs-dir", str(tmp_path / "runs")) == 0
    shown = capsys.readouterr().out
    for check in ("python", "packages", "cpu", "gpu", "attention", "ray", "write", "disk"):
        assert check in shown
    assert run("doctor", "--runs-dir", str(blocked)) == 1
    assert "fails" in capsys.readouterr().out


def test_the_package_offers_its_names_without_loading_torch_or_ray() -> None:
    code = """
import sys
import amago_ray
amago_ray.load_config("quickstart")
print(sorted({"torch", "ray"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="nonsense"):
        amago_ray.__getattr__("nonsense")


# --- streams --------------------------------------------------------------------------------------------------------


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of shell in which `amago-ray` is the command line."""
    command = f'amago-ray() {{ {sys.executable} -m amago_ray.cli "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("amago-ray config quickstart >&-", 0),
        ("amago-ray config quickstart >&- 2>&- <&-", 0),
        ("amago-ray config quickstart > /dev/full", 2),
        ("amago-ray envs > /dev/full", 2),
        ("amago-ray --help > /dev/full", 2),
        ("amago-ray nonsense 2>&-", 2),
        ("amago-ray config nonsense 2> /dev/full", 2),
    ],
)
def test_streams_that_fail_are_one_line_or_none(line: str, code: int, unbuffered: str) -> None:
    done = shell(line, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == code
    full = "error: the output cannot be written: No space left on device\n"
    assert done.stderr == (full if line.endswith(" > /dev/full") else "")


def test_a_reader_that_goes_away_is_met_with_silence() -> None:
    done = shell("amago-ray config --fields | head -1")
    assert done.stdout.startswith("env = ")
    assert done.stderr == ""


def test_text_is_text_in_errors_tables_and_usage(tmp_path: Path) -> None:
    strange = "größe[/bold][red] :warning:"
    config = Config(env=EnvConfig(id="some-env"), name=strange, runs_dir=str(tmp_path))
    directory = begun(config)
    directory.write_status({"state": "failed", "reason": "lost [/dev/ttyUSB0] of [bold] arm [0]\x1b[31m"})
    done = shell(f"amago-ray status '{directory.path}'")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == str(directory.path)
    assert "reason   lost [/dev/ttyUSB0] of [bold] arm [0]\\x1b[31m" in done.stdout
    done = shell(f"amago-ray status '{tmp_path}/{strange}/x'", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert f"{tmp_path}/gr??e[/bold][red] :warning:/x: not a run directory" in done.stderr
    assert "[/x][bold]" in shell("amago-ray '[/x][bold]'").stderr


@pytest.mark.parametrize("columns", ["20", "80"])
def test_help_fits_narrow_and_plain_terminals(columns: str) -> None:
    done = shell("amago-ray train --help", COLUMNS=columns, LC_ALL="C", PYTHONIOENCODING="ascii", TERM="dumb")
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= int(columns)
