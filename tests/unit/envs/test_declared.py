"""What environments declare: spaces of Gymnasium, and a horizon that is a number of steps."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
from helpers.one_line import one_line
from helpers.peculiar_envs import Declares, NoSpaces, Peculiar, PeculiarVector, SpaceMethod

from amago_ray.envs.gymnasium_batch import GymnasiumBatch
from amago_ray.envs.returned import describe
from amago_ray.envs.vector_batch import VectorBatch
from amago_ray.errors import EnvError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (NoSpaces, "observation_space: expected a space of Gymnasium, got none: it must be there when"),
        (lambda: Declares(action_space=None), "action_space: expected a space of Gymnasium, got none: it must be"),
        (SpaceMethod, "action_space: expected a space of Gymnasium, got a method"),
        (lambda: Declares(observation_space=[2, 3]), "observation_space: expected a space of Gymnasium, got [2, 3]"),
        (lambda: Declares(observation_space=gymnasium.spaces.Dict({})), "observation_space: expected something to see"),
    ],
)
def test_spaces_that_are_none(make: Any, message: str) -> None:
    with pytest.raises(EnvError) as error:
        GymnasiumBatch(make, 2, name="odd")
    assert one_line(error).startswith(f"env 'odd': {message}")


def test_spaces_of_vector_environments() -> None:
    def make(**attributes: Any) -> PeculiarVector:
        env = PeculiarVector()
        for name, value in attributes.items():
            setattr(env, name, value)
        return env

    for name in ("single_observation_space", "single_action_space"):
        with pytest.raises(EnvError) as error:
            VectorBatch(lambda name=name: make(**{name: None}), name="odd")
        assert one_line(error).startswith(f"env 'odd': {name}: expected a space of Gymnasium, got none")
    with pytest.raises(EnvError) as error:
        VectorBatch(lambda: make(horizon=0), name="odd")
    assert one_line(error) == "env 'odd': horizon: expected a positive integer, got 0"


@pytest.mark.parametrize("horizon", [0, -3, 2.5, "100", True, math.nan, -math.inf, [3], lambda: 3], ids=describe)
def test_a_horizon_that_is_no_number_of_steps(horizon: Any) -> None:
    with pytest.raises(EnvError) as error:
        GymnasiumBatch(lambda: Declares(horizon=horizon), 1, name="odd")
    assert one_line(error).startswith("env 'odd': horizon: expected a positive integer, got ")


@pytest.mark.parametrize(
    ("horizon", "read"), [(None, None), (math.inf, None), (7, 7), (np.int32(7), 7), (7.0, 7)], ids=describe
)
def test_horizons(horizon: Any, read: int | None) -> None:
    assert GymnasiumBatch(lambda: Declares(horizon=horizon), 1, name="odd").spec.horizon == read


def test_the_shortest_limit_counts() -> None:
    def make() -> gymnasium.Env:
        return gymnasium.wrappers.TimeLimit(gymnasium.wrappers.TimeLimit(Declares(horizon=9), 5), 7)

    assert GymnasiumBatch(make, 1, name="odd").spec.horizon == 5
    assert GymnasiumBatch(Peculiar, 1, name="odd").spec.horizon is None
