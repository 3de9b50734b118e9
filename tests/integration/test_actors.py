"""What `runtime` asks of Ray, against Ray itself."""

import math

import pytest
import ray

from amago_ray.runtime.protocol.actors import get, get_unless_lost, start_task


@pytest.mark.usefixtures("embedded_ray")
def test_a_value_is_waited_for_without_a_limit_where_that_is_infinite() -> None:
    assert get(ray.put(7), math.inf) == 7


@pytest.mark.usefixtures("embedded_ray")
def test_what_does_not_come_in_time_is_lost() -> None:
    value = ray.put(7)
    assert get_unless_lost(value, 60.0) == 7
    never = start_task(lambda: 0, num_cpus=1_000)
    assert get_unless_lost(never, 0.1) is None
    ray.cancel(never)
