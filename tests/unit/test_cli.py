import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml

import amago_ray
from amago_ray.cli.app import main
from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.errors import AmagoRayError, ConfigError
from amago_ray.training.run_directory import RunDirectory

COMMANDS = ["train", "eval", "record", "import-checkpoint", "status", "config", "envs", "doctor"]


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


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ConfigError, match="lerner: unknown key"):
        main(["train", "quickstart", "lerner.batch_size=3", "--debug"])


def test_resume_and_overwrite_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "quickstart", "--resume", "--overwrite") == 2
    assert "exclude each other" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", str(tmp_path / "nothing")) == 2
    assert "nothing" in capsys.readouterr().err


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
    assert abs(datetime.fromisoformat(written) - datetime.now()) < timedelta(minutes=1)


def test_config_prints_every_setting_as_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "quickstart", "learner.batch_size=3") == 0

    resolved = yaml.safe_load(capsys.readouterr().out)
    assert resolved["learner"]["batch_size"] == 3
    assert resolved["learner"]["weight_decay"] == 1e-3


def test_config_lists_shipped_configs_and_explains_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config") == 0
    assert "quickstart" in capsys.readouterr().out
    assert run("config", "--fields") == 0
    assert "learner.batch_size = 24  (a positive integer)\n    B, sequences per update." in capsys.readouterr().out


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
