"""The checks of `EnvBatch` find what is broken. What they pass stands in `envs/test_contract.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from amago_ray.config.env import EnvConfig
from amago_ray.envs.env_batch import EnvBatch, Observations, StepColumns
from amago_ray.envs.make import make_env_batch
from amago_ray.testing import check_env_batch

MAZE = EnvConfig(id="amago_ray/MazeRunner-v0", kwargs={"size": 7, "episode_length": 30})


class Broken:
    """A batch of mazes, passed on by a subclass in which something is not as it must be."""

    def __init__(self, num_envs: int) -> None:
        self.inner = make_env_batch([MAZE], num_envs)
        self.spec, self.num_envs, self.env_names = self.inner.spec, num_envs, self.inner.env_names

    def reset(self, indices: np.ndarray, seeds: np.ndarray) -> Observations:
        return self.inner.reset(indices, seeds)

    def step(self, actions: np.ndarray) -> StepColumns:
        return self.inner.step(actions)

    def render(self, index: int) -> np.ndarray:
        return self.inner.render(index)

    def close(self) -> None:
        self.inner.close()


class OtherDtype(Broken):
    def step(self, actions: np.ndarray) -> StepColumns:
        columns = super().step(actions)
        return replace(columns, rewards=columns.rewards.astype(np.float64))


class OwnSeeds(Broken):
    def reset(self, indices: np.ndarray, seeds: np.ndarray) -> Observations:
        return super().reset(indices, np.random.default_rng().integers(2**31, size=len(seeds)))


class OneSeed(Broken):
    def reset(self, indices: np.ndarray, seeds: np.ndarray) -> Observations:
        return super().reset(indices, np.zeros_like(seeds))


class SeedByPlace(Broken):
    def reset(self, indices: np.ndarray, seeds: np.ndarray) -> Observations:
        return super().reset(indices, seeds + indices)


class ResetsAll(Broken):
    def reset(self, indices: np.ndarray, seeds: np.ndarray) -> Observations:
        first = super().reset(indices, seeds)
        others = np.setdiff1d(np.arange(self.num_envs), indices)
        kept = {name: column.copy() for name, column in first.leaves.items()}
        goals, offsets = first.achieved_values.copy(), first.achieved_offsets.copy()
        super().reset(others, others + int(seeds[0]))
        return Observations(kept, None, goals, offsets)


class TooLong(Broken):
    def __init__(self, num_envs: int) -> None:
        super().__init__(num_envs)
        self.spec = replace(self.spec, horizon=10)


class ChangesActions(Broken):
    def step(self, actions: np.ndarray) -> StepColumns:
        columns = super().step(actions)
        actions[:] = 0
        return columns


class KeepsSeeds(Broken):
    def reset(self, indices: np.ndarray, seeds: np.ndarray) -> Observations:
        self.seeds = seeds
        return super().reset(indices, seeds)

    def step(self, actions: np.ndarray) -> StepColumns:
        columns = super().step(actions)
        return replace(columns, rewards=(self.seeds[0] % 5 + columns.rewards).astype(np.float32))


class PaysDouble(Broken):
    def step(self, actions: np.ndarray) -> StepColumns:
        columns = super().step(actions)
        return replace(columns, rewards=2 * columns.rewards)


def test_what_keeps_the_contract_passes() -> None:
    check_env_batch(Broken, num_steps=400)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (OtherDtype, r"rewards: expected float32\[4\], got float64\[4\]"),
        (OwnSeeds, "with equal actions|episodes ended"),
        (SeedByPlace, "differs between environments of one seed"),
        (OneSeed, "eight seeds began with the same observation"),
        (ResetsAll, "the reset of one environment changed '.*' of others"),
        (TooLong, "spec.horizon: expected at most 10 steps, got"),
        (ChangesActions, "step changed the actions that it was given"),
        (KeepsSeeds, "'rewards' follows from arrays that the caller has changed"),
        (PaysDouble, "expected reward .* by the goal rule"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_what_breaks_it_is_said(make: Callable[[int], EnvBatch], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_env_batch(make, num_steps=400)


def test_what_an_environment_cannot_do_is_not_asked_of_it() -> None:
    limits: dict[str, Any] = {"heeds_seeds": False, "num_steps": 400}
    check_env_batch(OneSeed, **limits)
