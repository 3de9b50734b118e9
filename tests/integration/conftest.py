import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from helpers.small_run import SmallRun
from helpers.worker_env import DRIVER

from amago_ray.runtime.cluster.ray_connection import NAMESPACE


@pytest.fixture
def small_run(tmp_path: Path) -> SmallRun:
    """A run that has not begun."""
    return SmallRun(tmp_path)


@pytest.fixture(scope="module")
def embedded_ray() -> Iterator[None]:
    """One Ray for all runs of a module that are trained in this process."""
    os.environ[DRIVER] = str(os.getpid())
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()
    del os.environ[DRIVER]
