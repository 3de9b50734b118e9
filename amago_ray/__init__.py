"""amago_ray: distributed in-context reinforcement learning with AMAGO on Ray."""

from typing import TYPE_CHECKING

from amago_ray._lazy import importer

if TYPE_CHECKING:
    from amago_ray.acting.policy import Policy
    from amago_ray.api import evaluate, load_policy, record, scale, train
    from amago_ray.config import Config
    from amago_ray.config.load import load_config
    from amago_ray.errors import AmagoRayError
    from amago_ray.training.importing import import_checkpoint

__all__ = [
    "AmagoRayError",
    "Config",
    "Policy",
    "evaluate",
    "import_checkpoint",
    "load_config",
    "load_policy",
    "record",
    "scale",
    "train",
]

__getattr__ = importer(
    __name__,
    {
        "AmagoRayError": "errors",
        "Config": "config",
        "Policy": "acting.policy",
        "evaluate": "api",
        "import_checkpoint": "training.importing",
        "load_config": "config.load",
        "load_policy": "api",
        "record": "api",
        "scale": "api",
        "train": "api",
    },
)
