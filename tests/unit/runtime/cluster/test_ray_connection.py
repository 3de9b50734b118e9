"""Starting Ray: what can be told before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.one_line import one_line

from amago_ray.config import Config
from amago_ray.config.env import EnvConfig
from amago_ray.errors import TrainingError
from amago_ray.runtime.cluster.ray_connection import ray_connection

BASE = Config(env=EnvConfig(id="some-env"))


@pytest.mark.parametrize(
    "config",
    [
        replace(BASE, cluster=replace(BASE.cluster, num_cpus=2**31)),
        replace(BASE, learner=replace(BASE.learner, num_cpus_per_learner=1e12)),
    ],
    ids=["given", "reserved"],
)
def test_more_cpus_than_ray_can_count_are_refused_before_it_is_started(config: Config) -> None:
    with pytest.raises(TrainingError, match="at most 2,147,483,647 CPUs") as error, ray_connection(config):
        pytest.fail("Ray was started")
    one_line(error)
