"""From settings to batches, and what a user reads where that fails."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.one_line import one_line

from amago_ray.config.env import EnvConfig
from amago_ray.envs.limits import LimitedEnvBatch
from amago_ray.envs.make import make_env_batch, make_spec
from amago_ray.envs.maze_runner import MazeRunner
from amago_ray.envs.mixture import allot
from amago_ray.errors import ConfigError, EnvError
from amago_ray.testing.env_batch import collect


def refused(*configs: EnvConfig, num_envs: int = 2) -> str:
    with pytest.raises(EnvError) as error:
        make_env_batch(configs, num_envs)
    return one_line(error)


def test_built_in_ids_go_straight_to_the_kernel() -> None:
    batch = make_env_batch(
        [EnvConfig(id="amago_ray/MazeRunner-v0", name="maze", kwargs={"render_mode": "rgb_array"})], 3
    )
    assert isinstance(batch, MazeRunner)
    assert list(batch.env_names) == ["maze"] * 3


def test_unknown_ids_suggest_close_ones() -> None:
    assert "did you mean CartPole-v1" in refused(EnvConfig(id="CartPol-v1"))
    assert "amago_ray/MazeRunner-v0" in refused(EnvConfig(id="amago_ray/MazeRuner-v0"))
    assert "amago-ray envs" in refused(EnvConfig(id="zzzzzz"))


def test_a_module_that_cannot_be_imported_gives_the_cause() -> None:
    message = refused(EnvConfig(id="no_such_module:Env-v0"))
    assert 'cannot import "no_such_module": ModuleNotFoundError' in message


def test_an_attribute_that_is_not_there_suggests_close_ones() -> None:
    assert "did you mean CounterEnv" in refused(EnvConfig(id="helpers.envs:CounterEn"))


def test_wrong_settings_of_an_environment_give_the_cause() -> None:
    assert "unexpected keyword argument 'sizes'" in refused(EnvConfig(id="CartPole-v1", kwargs={"sizes": 3}))
    assert "unexpected keyword argument 'sizes'" in refused(EnvConfig(id="amago_ray/TMaze-v0", kwargs={"sizes": 3}))
    assert "odd" in refused(EnvConfig(id="amago_ray/MazeRunner-v0", kwargs={"size": 12}))


def test_a_factory_that_makes_something_else_is_refused() -> None:
    assert "expected a gymnasium.Env" in refused(
        EnvConfig(id="helpers.envs:NativeCounterVector", kwargs={"num_envs": 1})
    )


def test_module_attr_and_module_id() -> None:
    by_attr = make_env_batch([EnvConfig(id="helpers.envs:CounterEnv", kwargs={"length": 2})], 2)
    assert {len(episode.rewards) for episode in collect(by_attr, 8)} == {2}
    spec = make_spec([EnvConfig(id="amago_ray.envs.registry:amago_ray/TMaze-v0", kwargs={"length": 7})])
    assert spec.horizon == 8


def test_horizon_comes_from_kernel_registration_or_config() -> None:
    assert make_spec([EnvConfig(id="amago_ray/TMaze-v0")]).horizon == 21
    assert make_spec([EnvConfig(id="CartPole-v1")]).horizon == 500
    assert make_spec([EnvConfig(id="CartPole-v1", max_episode_steps=9)]).horizon == 9
    assert make_spec([EnvConfig(id="amago_ray/TMaze-v0", max_episode_steps=9)]).horizon == 9
    assert make_spec([EnvConfig(id="helpers.envs:CounterEnv")]).horizon is None
    assert make_spec([EnvConfig(id="helpers.envs:CounterEnv", max_episode_steps=9)]).horizon == 9


@pytest.mark.parametrize("as_termination", [False, True])
@pytest.mark.parametrize("env_id", ["amago_ray/MazeRunner-v0", "helpers.envs:MaskedEnv"])
def test_a3_time_limits_truncate_unless_told_otherwise(env_id: str, as_termination: bool) -> None:
    batch = make_env_batch([EnvConfig(id=env_id, max_episode_steps=3, truncation_is_termination=as_termination)], 2)
    episodes = collect(batch, 9)
    assert len(episodes) == 6
    for episode in episodes:
        assert len(episode.rewards) == 3
        assert (episode.terminated, episode.truncated) == (as_termination, not as_termination)


def test_a_limit_does_not_turn_a_termination_into_a_truncation() -> None:
    batch = make_env_batch([EnvConfig(id="amago_ray/TMaze-v0", kwargs={"length": 2}, max_episode_steps=3)], 2)
    assert isinstance(batch, LimitedEnvBatch)
    assert all(episode.terminated and not episode.truncated for episode in collect(batch, 9))


def test_mixture_allots_shares_and_names() -> None:
    configs = [
        EnvConfig(id="amago_ray/MazeRunner-v0", kwargs={"size": 7}, name="small", share=3),
        EnvConfig(id="amago_ray/MazeRunner-v0", name="large"),
    ]
    batch = make_env_batch(configs, 8)
    assert list(batch.env_names) == ["small"] * 6 + ["large"] * 2
    assert batch.spec.name == "amago_ray/MazeRunner-v0"
    assert make_spec(configs).observations == batch.spec.observations
    columns = batch.reset(np.asarray([7, 0]), np.asarray([1, 1])).leaves["observation"]
    assert np.array_equal(columns[:, 0], np.array([9 / 11, 5 / 7], np.float32))
    assert batch.render(0).shape != batch.render(7).shape
    columns = batch.step(np.full(8, 4)).observations.leaves["observation"]
    assert (columns[:, 6] == np.float32(1 / 250)).all()


def test_mixture_of_different_spaces_is_refused_with_the_leaf() -> None:
    message = refused(
        EnvConfig(id="amago_ray/MazeRunner-v0"), EnvConfig(id="amago_ray/MazeRunner-v0", kwargs={"num_goals": 2})
    )
    assert "desired_goal" in message
    assert "action: expected" in refused(
        EnvConfig(id="amago_ray/TMaze-v0"), EnvConfig(id="amago_ray/HiddenVelocityPendulum-v0")
    )


def test_mixture_with_too_few_environments_is_refused() -> None:
    assert "at least one" in refused(EnvConfig(id="CartPole-v1"), EnvConfig(id="CartPole-v1"), num_envs=1)


@pytest.mark.parametrize(
    ("shares", "num_envs", "counts"),
    [
        ([1, 1], 2, [1, 1]),
        ([1, 1], 5, [3, 2]),
        ([9, 1], 10, [9, 1]),
        ([1000, 1], 4, [3, 1]),
        ([0.5, 0.25, 0.25], 8, [4, 2, 2]),
    ],
)
def test_shares(shares: list[float], num_envs: int, counts: list[int]) -> None:
    assert allot(shares, num_envs) == counts


def test_a_vector_entry_point_is_made_with_num_envs() -> None:
    batch = make_env_batch([EnvConfig(id="CartPole-v1", vector_entry_point=True)], 5)
    assert batch.num_envs == 5
    assert batch.spec.observations["observation"].shape == (4,)


@pytest.mark.parametrize(("setting", "value"), [("step_timeout_s", 3.0), ("vector_entry_point", True)])
def test_what_does_not_apply_to_a_built_in_environment_is_refused(setting: str, value: float | bool) -> None:
    config = EnvConfig(id="amago_ray/TMaze-v0", **{setting: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"^env 'amago_ray/TMaze-v0': {setting}: expected ") as error:
        make_env_batch([config], 2)
    assert one_line(error)


def test_environments_load_neither_torch_nor_ray() -> None:
    code = (
        "import sys, amago_ray.envs as envs\n"
        "from amago_ray.config.env import EnvConfig\n"
        "envs.make_env_batch([EnvConfig(id='amago_ray/MazeRunner-v0')], 2)\n"
        "envs.make_env_batch([EnvConfig(id='CartPole-v1')], 2)\n"
        "assert not {'torch', 'ray', 'numba'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("imports", ["import gymnasium, amago_ray.envs", "import amago_ray.envs, gymnasium"])
def test_importing_the_package_registers_its_environments(imports: str) -> None:
    code = f"{imports}; assert gymnasium.make('amago_ray/TMaze-v0', length=3).unwrapped.horizon == 4"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("helpers.peculiar_envs:nothing", "expected a gymnasium.Env, got None"),
        ("helpers.peculiar_envs:instance", "expected a class or a function that makes one, got "),
        ("helpers.peculiar_envs:number", "expected a class or a function that makes one, got 5"),
        ("helpers.peculiar_envs:Outer.Iner", "did you mean Outer?"),
        ("helpers.peculiar_envs:leaves", "cannot be made: SystemExit: 3"),
        ("helpers.peculiar_envs:", "has no class or function ''"),
        (":Peculiar", 'cannot import ""'),
        ("__main__:Mine", "has no class or function 'Mine'"),
        ("helpers.peculiar_envs.Peculiar", "did you mean helpers.peculiar_envs:Peculiar"),
        ("cartpole-v1", "did you mean CartPole-v1"),
        ("CartPole", "did you mean CartPole-v"),
    ],
)
def test_what_an_id_may_not_name(env_id: str, message: str) -> None:
    assert refused(EnvConfig(id=env_id)).startswith(f"env '{env_id}': ")
    assert message in refused(EnvConfig(id=env_id))


def test_a_nested_class() -> None:
    assert make_spec([EnvConfig(id="helpers.peculiar_envs:Outer.Inner")]).horizon is None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit(7)", "SystemExit: 7"),
        ("raise OSError('no\\nlicence')", "OSError: no licence"),
        ("1 +", "SyntaxError"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
    ],
)
def test_modules_that_cannot_be_imported(
    code: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module_of_envs.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert f'cannot import "broken_module_of_envs": {message}' in refused(EnvConfig(id="broken_module_of_envs:Env"))


def test_a_time_limit_among_the_kwargs_of_an_id_is_ours() -> None:
    for env_id in ("CartPole-v1", "amago_ray/TMaze-v0", "amago_ray.envs.registry:amago_ray/TMaze-v0"):
        assert make_spec([EnvConfig(id=env_id, kwargs={"max_episode_steps": 9})]).horizon == 9
        assert make_spec([EnvConfig(id=env_id, kwargs={"max_episode_steps": 9}, max_episode_steps=9)]).horizon == 9
        assert "expected the 8 of env.max_episode_steps, got 9" in refused(
            EnvConfig(id=env_id, kwargs={"max_episode_steps": 9}, max_episode_steps=8)
        )
        assert "max_episode_steps: expected a positive integer, got '9'" in refused(
            EnvConfig(id=env_id, kwargs={"max_episode_steps": "9"})
        )


def test_a_class_of_the_users_own_takes_all_its_kwargs() -> None:
    spec = make_spec([EnvConfig(id="helpers.peculiar_envs:Declares", kwargs={"max_episode_steps": 5, "id": 3})])
    assert spec.horizon is None


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"vectorization_mode": "sync"}, "vectorization_mode: expected vector_entry_point, got 'sync'"),
        ({"num_envs": 3}, "num_envs: expected to be left out, as it is set elsewhere, got 3"),
        ({"id": "CartPole-v0"}, "id: expected to be left out"),
    ],
)
def test_kwargs_that_are_set_elsewhere(kwargs: dict[str, Any], message: str) -> None:
    assert message in refused(EnvConfig(id="CartPole-v1", vector_entry_point=True, kwargs=kwargs))
    if "id" in kwargs:
        assert message in refused(EnvConfig(id="CartPole-v1", kwargs=kwargs))


def test_the_vectorization_mode_that_is_meant_may_be_said() -> None:
    kwargs = {"vectorization_mode": "vector_entry_point"}
    assert make_env_batch([EnvConfig(id="CartPole-v1", vector_entry_point=True, kwargs=kwargs)], 2).num_envs == 2


def test_a_vector_environment_of_another_size_is_refused() -> None:
    config = EnvConfig(id="helpers.peculiar_envs:three", vector_entry_point=True)
    assert make_env_batch([config], 3).num_envs == 3
    assert "num_envs: expected the 2 that were asked for, got 3" in refused(config)


@pytest.mark.parametrize(
    ("env_id", "kwargs", "is_vector", "message"),
    [
        ("helpers.peculiar_envs:Peculiar", {"reward": "1.0x"}, False, "step: reward: expected a number, got '1.0x'"),
        ("helpers.peculiar_envs:Peculiar", {"step": [0, 0.0, False, {}]}, False, "step: expected (observation, reward"),
        ("helpers.peculiar_envs:Peculiar", {"reset": [0.1, 0.2]}, False, "reset: info: expected a dict, got 0.2"),
        (
            "helpers.peculiar_envs:PeculiarVector",
            {"rewards": None},
            True,
            "step: rewards: expected 1 entries, got None",
        ),
    ],
)
def test_what_can_never_work_is_said_before_training(
    env_id: str, kwargs: dict[str, Any], is_vector: bool, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EnvError) as error:
        make_spec([EnvConfig(id=env_id, kwargs=kwargs, vector_entry_point=is_vector)])
    assert one_line(error).startswith(f"env '{env_id}': {message}")
    assert not caplog.records, "one line, no traceback"


def test_one_that_fails_now_and_then_may_start() -> None:
    """Its first step raises under seed 0 only."""
    assert make_spec([EnvConfig(id="helpers.peculiar_envs:FailsUnderSeed0")]).horizon is None


def test_the_first_step_takes_an_action_that_the_mask_allows() -> None:
    assert make_spec([EnvConfig(id="helpers.peculiar_envs:OnlyTwo")]).has_action_mask
