"""Built-in environments are ordinary Gymnasium environments, the same as their kernels."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from amago_ray.envs.registry import BUILT_INS, list_envs

SMALL = {
    "amago_ray/MazeRunner-v0": {"size": 7, "num_goals": 2, "episode_length": 40},
    "amago_ray/DarkKeyDoor-v0": {"size": 4, "trial_length": 30, "attempt_length": 8},
    "amago_ray/TMaze-v0": {"length": 6},
    "amago_ray/HiddenVelocityPendulum-v0": {"episode_length": 20},
    "amago_ray/RepeatPrevious-v0": {"k": 2},
}


@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")  # torques are in N m
@pytest.mark.parametrize("env_id", BUILT_INS)
def test_passes_gymnasiums_checker(env_id: str) -> None:
    env = gymnasium.make(env_id, render_mode="rgb_array")
    check_env(env.unwrapped)
    env.reset(seed=0)
    picture = env.render()
    assert isinstance(picture, np.ndarray)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) >= 3


@pytest.mark.parametrize("env_id", BUILT_INS)
def test_equals_its_kernel(env_id: str) -> None:
    env = gymnasium.make(env_id, **SMALL[env_id])
    kernel = BUILT_INS[env_id].load()(1, **SMALL[env_id])
    env.action_space.seed(0)
    first, _ = env.reset(seed=11)
    observations = kernel.reset(np.zeros(1, np.int64), np.asarray([11]))
    ended = False
    while not ended:
        shown = first if isinstance(first, dict) else {"observation": first}
        assert set(shown) - {"achieved_goal"} == set(kernel.spec.observations)
        for name, column in observations.leaves.items():
            assert np.array_equal(shown[name], column[0])
        action = env.action_space.sample()
        stored = np.asarray([action / 2]) if kernel.spec.action.kind == "box" else np.asarray([action])
        first, reward, terminated, truncated, info = env.step(action)
        columns = kernel.step(stored)
        observations = columns.observations
        assert (reward, terminated, truncated) == (columns.rewards[0], columns.terminated[0], columns.truncated[0])
        assert {"is_success" if e.name == "success" else e.name: e.value for e in columns.events} == info
        ended = terminated or truncated
    assert env.unwrapped.goal_rule == kernel.spec.goal_rule


def test_episodes_without_a_seed_go_on_from_the_last_one() -> None:
    env = gymnasium.make("amago_ray/MazeRunner-v0", **SMALL["amago_ray/MazeRunner-v0"])
    runs = []
    for _ in range(2):
        env.reset(seed=5)
        runs.append([env.reset()[0]["desired_goal"].tolist() for _ in range(4)])
    assert runs[0] == runs[1]
    assert len({str(goals) for goals in runs[0]}) > 1


def test_no_built_in_environment_has_a_time_limit_wrapper() -> None:
    for entry in list_envs():
        assert gymnasium.spec(entry.id).max_episode_steps is None


def test_list_names_every_setting_with_its_default() -> None:
    assert [entry.id for entry in list_envs()] == sorted(BUILT_INS)
    for entry in list_envs():
        defaults = entry.load().__init__.__kwdefaults__
        assert entry.kwargs == defaults
        assert entry.description
