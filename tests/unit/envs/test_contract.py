"""Every environment, built-in or wrapped, keeps the contract of `EnvBatch`."""

from collections.abc import Callable
from typing import Any

import gymnasium
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from amago_ray.config.env import EnvConfig
from amago_ray.envs.env_batch import EnvBatch
from amago_ray.envs.make import make_env_batch
from amago_ray.testing.env_batch import CHECKS, Case


def from_configs(*configs: EnvConfig) -> Callable[[int], EnvBatch]:
    return lambda num_envs: make_env_batch(configs, num_envs)


def one(id: str, **settings: Any) -> Callable[[int], EnvBatch]:
    return from_configs(EnvConfig(id=id, **settings))


def sync_cartpole(num_envs: int, mode: str) -> SyncVectorEnv:
    return SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * num_envs, autoreset_mode=AutoresetMode[mode.upper()])


def native(mode: str) -> Callable[[int], EnvBatch]:
    return one("helpers.envs:NativeCounterVector", kwargs={"mode": mode}, vector_entry_point=True)


def sync(mode: str) -> Callable[[int], EnvBatch]:
    from amago_ray.envs.vector_batch import VectorBatch

    return lambda num_envs: VectorBatch(lambda: sync_cartpole(num_envs, mode), name="sync")


MAZE = EnvConfig(id="amago_ray/MazeRunner-v0", kwargs={"size": 7, "num_goals": 2, "episode_length": 50})
CASES = {
    "maze_runner": Case(from_configs(MAZE), num_steps=400),
    "maze_runner_permuted": Case(
        one("amago_ray/MazeRunner-v0", kwargs={"size": 7, "permute_actions": True, "episode_length": 60}),
        num_steps=400,
    ),
    "maze_runner_masked": Case(
        one("amago_ray/MazeRunner-v0", kwargs={"size": 7, "mask_walls": True, "episode_length": 60}), num_steps=400
    ),
    "gymnasium_maze_runner_masked": Case(
        one(
            "amago_ray.envs.registry:amago_ray/MazeRunner-v0",
            kwargs={"size": 7, "mask_walls": True, "episode_length": 60},
        ),
        num_steps=300,
    ),
    "dark_key_door": Case(one("amago_ray/DarkKeyDoor-v0", kwargs={"size": 4, "trial_length": 20, "attempt_length": 6})),
    "t_maze": Case(one("amago_ray/TMaze-v0", kwargs={"length": 6})),
    "repeat_previous": Case(one("amago_ray/RepeatPrevious-v0", kwargs={"k": 3}), num_steps=120),
    "pendulum": Case(one("amago_ray/HiddenVelocityPendulum-v0", kwargs={"episode_length": 25})),
    "gymnasium_cartpole": Case(one("CartPole-v1"), num_steps=200),
    "gymnasium_pendulum": Case(one("Pendulum-v1", max_episode_steps=25)),
    "gymnasium_maze_runner": Case(
        one("amago_ray.envs.registry:amago_ray/MazeRunner-v0", kwargs={"size": 7, "episode_length": 60}), num_steps=300
    ),
    "multi_goal": Case(one("helpers.multi_goal_env:MultiGoalEnv"), num_steps=200),
    "masked": Case(one("helpers.envs:MaskedEnv", max_episode_steps=9)),
    "masked_by_info": Case(one("helpers.envs:MaskedEnv", kwargs={"mask_in_info": True}, max_episode_steps=9)),
    "limited": Case(
        from_configs(EnvConfig(id="amago_ray/DarkKeyDoor-v0", max_episode_steps=7, truncation_is_termination=True))
    ),
    "mixture_of_kernels": Case(
        from_configs(MAZE, EnvConfig(id=MAZE.id, kwargs={**MAZE.kwargs, "size": 9}, name="wide")), num_steps=400
    ),
    "mixture_of_all_kinds": Case(
        from_configs(
            EnvConfig(id="CartPole-v1"),
            EnvConfig(id="CartPole-v1", vector_entry_point=True, name="native"),
        ),
        heeds_seeds=False,
        resets_running=False,
        num_steps=200,
    ),
    "native_next_step": Case(native("next_step"), heeds_seeds=False, resets_running=False),
    "native_same_step": Case(native("same_step"), heeds_seeds=False, resets_running=False),
    "native_disabled": Case(native("disabled"), heeds_seeds=False),
    "native_cartpole": Case(
        one("CartPole-v1", vector_entry_point=True), heeds_seeds=False, resets_running=False, num_steps=200
    ),
    "sync_next_step": Case(sync("next_step"), num_steps=200),
    "sync_same_step": Case(sync("same_step"), num_steps=200),
    "sync_disabled": Case(sync("disabled"), num_steps=200),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_contract(case: Case, check: Callable[[Case], None]) -> None:
    check(case)
