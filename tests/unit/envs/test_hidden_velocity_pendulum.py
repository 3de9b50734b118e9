"""HiddenVelocityPendulum: Gymnasium's Pendulum-v1, less the velocity."""

import gymnasium
import numpy as np
from helpers.numeric import assert_rounded

from amago_ray.config.env import EnvConfig
from amago_ray.envs.hidden_velocity_pendulum import HiddenVelocityPendulum
from amago_ray.envs.make import make_env_batch


def test_equals_gymnasium_step_by_step() -> None:
    env = HiddenVelocityPendulum(3)
    peers = [gymnasium.make("Pendulum-v1") for _ in range(3)]
    rows = env.reset(np.arange(3), np.asarray([7, 8, 9])).leaves["observation"]
    theirs = [peer.reset(seed=seed)[0] for peer, seed in zip(peers, (7, 8, 9), strict=True)]
    assert_rounded(rows, np.stack(theirs)[:, :2], roundings=1)
    rng = np.random.default_rng(0)
    for t in range(1, 201):
        actions = rng.uniform(-1, 1, (3, 1)).astype(np.float32)
        columns = env.step(actions)
        # In float64 as the state is: how far rounding grows in 200 steps cannot be told.
        results = [peer.step(2 * action.astype(np.float64)) for peer, action in zip(peers, actions, strict=True)]
        assert_rounded(columns.observations.leaves["observation"], np.stack([r[0][:2] for r in results]), roundings=2)
        assert_rounded(columns.rewards, [r[1] for r in results], roundings=2)
        assert (columns.truncated == [r[3] for r in results]).all()
        assert (columns.truncated == (t == 200)).all()
        assert not columns.terminated.any()


def test_a3_a_config_may_treat_the_limit_as_the_end_of_the_task() -> None:
    config = EnvConfig(
        id="amago_ray/HiddenVelocityPendulum-v0", kwargs={"episode_length": 3}, truncation_is_termination=True
    )
    batch = make_env_batch([config], 2)
    batch.reset(np.arange(2), np.arange(2))
    for t in range(1, 4):
        columns = batch.step(np.zeros((2, 1), np.float32))
        assert (columns.terminated == (t == 3)).all()
        assert not columns.truncated.any()


def test_picture_turns_with_the_rod() -> None:
    env = HiddenVelocityPendulum(1000)
    cosines = env.reset(np.arange(1000), np.arange(1000)).leaves["observation"][:, 0]
    upright, hanging = env.render(int(cosines.argmax())), env.render(int(cosines.argmin()))
    background = upright[0, 0]
    assert (upright[60, 128] != background).any()
    assert (hanging[60, 128] == background).all()
    assert (hanging[196, 128] != background).any()
