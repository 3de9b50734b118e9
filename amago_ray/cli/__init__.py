"""The command line `amago-ray`: `app` holds the commands, `doctor` looks at the machine."""

from amago_ray.cli.app import main

__all__ = ["main"]
