"""Parts of a run that need room on a disk which has none, anywhere but in the process of the command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gymnasium.envs.classic_control import CartPoleEnv
from helpers.custom_parts import Discounted, Sigmoid
from helpers.worker_env import DRIVER


def write_scratch() -> None:
    if os.environ.get(DRIVER) != str(os.getpid()):
        Path("/dev/full").write_text("scratch")


class Env(CartPoleEnv):
    def __init__(self) -> None:
        write_scratch()
        super().__init__()


class Relabeler(Discounted):
    """Made by replay shards."""

    def __init__(self, *args: Any) -> None:
        write_scratch()
        super().__init__(*args)


class Filter(Sigmoid):
    """Made by learners."""

    def __init__(self, *args: Any) -> None:
        write_scratch()
        super().__init__(*args)
