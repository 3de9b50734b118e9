import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from amago_ray.cli.app import app
from amago_ray.config.env import EnvConfig
from amago_ray.config.load import load_config

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_environment_is_short_and_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from amago_ray.envs.make import make_env_batch

    (source,) = [block for block in blocks("python") if "gym.Env" in block]
    (tmp_path / "corridor.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    code_lines = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith('"""')]
    assert len(code_lines) <= 15

    batch = make_env_batch([EnvConfig(id="corridor:Corridor")], 2)
    shown = batch.reset(np.arange(2), np.array([1, 2])).leaves["observation"][:, 0].copy()
    for _ in range(10):
        columns = batch.step((shown > 0).astype(np.int64))
    batch.close()

    assert columns.rewards.tolist() == [1.0, 1.0]
    assert columns.terminated.tolist() == [True, True]
    assert [(event.name, event.value) for event in columns.events] == [("success", 1.0), ("success", 1.0)]


def test_every_command_that_is_shown_exists_and_its_settings_are_legal() -> None:
    known = {
        command.name or command.callback.__name__.replace("_", "-")
        for command in app.registered_commands
        if command.callback
    }
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("amago-ray")]
    assert len(lines) >= 7
    for line in lines:
        command, *arguments = shlex.split(line, comments=True)[1:]
        assert command in known
        # A run's own config exists once the run does.
        if command in ("train", "config") and arguments and not arguments[0].startswith(("-", "runs/")):
            overrides = [argument for argument in arguments[1:] if "=" in argument]
            assert load_config(arguments[0], overrides)


def test_every_place_that_is_named_exists() -> None:
    for target in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_command_line_finds_modules_in_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from amago_ray.cli.app import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with pytest.raises(SystemExit):
        main(["--help"])
    assert sys.path[0] == str(tmp_path)
