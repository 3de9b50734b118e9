"""Paths that a user names, and how they are shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.one_line import one_line

from amago_ray.config.paths import local_path, shown
from amago_ray.errors import ConfigError


def test_paths_become_absolute_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert local_path("out", "runs/x") == tmp_path / "runs" / "x"
    assert local_path("out", Path("~/runs")) == tmp_path / "home" / "runs"
    assert local_path("out", "/x/~/y") == Path("/x/~/y")
    assert local_path("out", "a:b") == tmp_path / "a:b"


@pytest.mark.parametrize("path", ["s3://b/x", "gs://b", "file:///tmp/x", "hf+http://x", "~nobody_of_this_name", "a\0b"])
def test_what_is_no_path_here_is_one_line(path: str) -> None:
    with pytest.raises(ConfigError, match=r"^out: expected a path") as error:
        local_path("out", path)
    one_line(error)


def test_paths_below_the_working_folder_are_shown_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "with (signs)"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert shown(folder / "runs" / "x") == "runs/x"
    assert shown(f'{folder}/a: expected "{folder}/b", not {tmp_path}/c') == f'a: expected "b", not {tmp_path}/c'
    assert shown(f"/mnt{folder}/a") == f"/mnt{folder}/a"
    assert shown(folder) == str(folder)
    monkeypatch.chdir("/")
    assert shown("/tmp/x") == "/tmp/x"
