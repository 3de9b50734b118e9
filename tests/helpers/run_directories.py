"""Run directories without runs."""

from __future__ import annotations

from contextlib import closing

from amago_ray.config import Config
from amago_ray.training.run_directory import RunDirectory


def begun(config: Config, *, resume: bool = False, overwrite: bool = False) -> RunDirectory:
    """The directory of a session that began and is over."""
    directory = RunDirectory.of(config)
    with closing(directory):
        directory.reserve(resume=resume, overwrite=overwrite)
        directory.begin(config)
    return directory
