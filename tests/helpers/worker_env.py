"""An environment that can be made in the process of the command, but in no other one."""

from __future__ import annotations

import os

from gymnasium.envs.classic_control import CartPoleEnv

DRIVER = "AMAGO_RAY_TEST_DRIVER"


class Licensed(CartPoleEnv):
    """Has a licence for the process whose id is in the environment variable `DRIVER`."""

    def __init__(self) -> None:
        if os.environ.get(DRIVER) != str(os.getpid()):
            raise OSError("no licence for this process")
        super().__init__()
