"""Environments: the `EnvBatch` protocol, the built-in ones, and everything of Gymnasium wrapped into it.

After importing this package, `gymnasium.make("amago_ray/MazeRunner-v0")` and its like work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amago_ray._lazy import importer
from amago_ray.envs.registry import list_envs, register_envs

if TYPE_CHECKING:
    from amago_ray.envs.env_batch import EnvBatch, EnvEvent, EnvFailure, Observations, StepColumns
    from amago_ray.envs.make import make_env_batch, make_spec


__all__ = [
    "EnvBatch",
    "EnvEvent",
    "EnvFailure",
    "Observations",
    "StepColumns",
    "list_envs",
    "make_env_batch",
    "make_spec",
    "register_envs",
]

# The one thing done at import, as users of Gymnasium expect of a package of environments.
register_envs()

__getattr__ = importer(
    __name__,
    {
        "EnvBatch": "env_batch",
        "EnvEvent": "env_batch",
        "EnvFailure": "env_batch",
        "Observations": "env_batch",
        "StepColumns": "env_batch",
        "make_env_batch": "make",
        "make_spec": "make",
    },
)
