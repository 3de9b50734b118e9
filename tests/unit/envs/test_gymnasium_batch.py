"""Wrapped Gymnasium environments: true final observations, both ends, failures, hangs, infos."""

import logging

import gymnasium
import numpy as np
import pytest
from helpers.env_batch_contract import collect
from helpers.envs import CounterEnv, FragileEnv, MaskedEnv
from helpers.multi_goal_env import MultiGoalEnv
from helpers.one_line import one_line

from amago_ray.data.goal_rule import GoalRule
from amago_ray.envs import gymnasium_batch
from amago_ray.envs.gymnasium_batch import GymnasiumBatch
from amago_ray.errors import EnvError, SpaceError


def test_a2_the_final_observation_is_true_and_buffers_do_not_alias() -> None:
    for episode in collect(GymnasiumBatch(CounterEnv, 3, name="counter"), 20):
        rows = np.stack([row["observation"] for row in episode.observations])
        assert rows[:, 1].tolist() == [0, 1, 2, 3, 4]
        assert (rows[:, 0] == np.float32(episode.seed)).all()


def test_a1_an_ended_environment_is_not_reset_by_itself() -> None:
    batch = GymnasiumBatch(lambda: CounterEnv(length=1), 2, name="counter")
    batch.reset(np.arange(2), np.asarray([5, 6]))
    columns = batch.step(np.zeros(2, np.int64))
    assert columns.terminated.all()
    assert columns.observations.leaves["observation"].tolist() == [[5, 1], [6, 1]]
    assert batch.reset(np.asarray([1]), np.asarray([9])).leaves["observation"].tolist() == [[9, 0]]


@pytest.mark.parametrize("truncates", [False, True])
def test_a3_truncation_is_not_termination(truncates: bool) -> None:
    episodes = collect(GymnasiumBatch(lambda: CounterEnv(truncates=truncates), 2, name="counter"), 10)
    assert episodes
    assert all((episode.terminated, episode.truncated) == (not truncates, truncates) for episode in episodes)


def test_success_is_reported_when_the_episode_ends() -> None:
    for episode in collect(GymnasiumBatch(CounterEnv, 2, name="counter"), 20):
        assert episode.success == float(episode.actions[-1])


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gymnasium_batch, "_FIRST_BACKOFF_S", 0.0)


@pytest.mark.usefixtures("no_backoff")
def test_an_environment_that_raises_is_made_anew_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    batch = GymnasiumBatch(FragileEnv, 3, name="fragile")
    batch.reset(np.arange(3), np.asarray([2, 3, 4]))
    actions = np.zeros(3, np.int64)
    assert not batch.step(actions).failures
    with caplog.at_level(logging.ERROR):
        columns = batch.step(actions)
        assert [failure.index for failure in columns.failures] == [1]
        assert "the step broke" in columns.failures[0].error
        assert "Traceback" in columns.failures[0].error
        assert columns.observations.leaves["observation"][[0, 2]].tolist() == [[2, 2], [4, 2]]
        assert columns.rewards.tolist() == [1, 0, 1]
        assert not columns.terminated.any()
        batch.reset(np.asarray([1]), np.asarray([5]))
        batch.step(actions)
        assert batch.step(actions).failures
    assert len(caplog.records) == 1, "logged once per kind"
    assert "the step broke" in caplog.text
    assert batch.reset(np.asarray([1]), np.asarray([8])).leaves["observation"].tolist() == [[8, 0]]
    assert not batch.step(actions).failures


@pytest.mark.usefixtures("no_backoff")
def test_a_reset_that_raises_is_reported_by_the_next_step() -> None:
    batch = GymnasiumBatch(lambda: FragileEnv(fails="reset"), 2, name="fragile")
    batch.reset(np.arange(2), np.asarray([2, 3]))
    columns = batch.step(np.zeros(2, np.int64))
    assert [failure.index for failure in columns.failures] == [1]
    assert "the reset broke" in columns.failures[0].error
    batch.reset(np.asarray([1]), np.asarray([4]))
    assert not batch.step(np.zeros(2, np.int64)).failures


@pytest.mark.usefixtures("no_backoff")
def test_failing_again_and_again_ends_with_one_line() -> None:
    batch = GymnasiumBatch(lambda: FragileEnv(fails="reset"), 1, name="fragile")
    for _ in range(7):
        batch.reset(np.asarray([0]), np.asarray([3]))
    with pytest.raises(EnvError) as error:
        batch.reset(np.asarray([0]), np.asarray([3]))
    assert "the reset broke" in one_line(error)
    assert "8 times in a row" in one_line(error)


@pytest.mark.usefixtures("no_backoff")
def test_a_hung_step_is_noticed() -> None:
    batch = GymnasiumBatch(lambda: FragileEnv(hangs_s=3.0), 2, name="hanging", step_timeout_s=0.2)
    batch.reset(np.arange(2), np.asarray([2, 3]))
    batch.step(np.zeros(2, np.int64))
    columns = batch.step(np.zeros(2, np.int64))
    assert [failure.index for failure in columns.failures] == [1]
    assert "no answer within 0.2 s" in columns.failures[0].error
    assert batch.reset(np.asarray([1]), np.asarray([4])).leaves["observation"].tolist() == [[4, 0]]
    assert not batch.step(np.zeros(2, np.int64)).failures
    batch.close()


def test_an_environment_that_cannot_be_made_says_why() -> None:
    def broken() -> gymnasium.Env:
        raise OSError("no\nlicence")

    with pytest.raises(EnvError) as error:
        GymnasiumBatch(broken, 2, name="broken")
    assert one_line(error) == "env 'broken': cannot be made: OSError: no licence"


@pytest.mark.parametrize("mask_in_info", [False, True])
def test_a11_the_mask_belongs_to_the_observation_beside_it(mask_in_info: bool) -> None:
    batch = GymnasiumBatch(lambda: MaskedEnv(mask_in_info), 3, name="masked")
    assert batch.spec.has_action_mask
    observations = batch.reset(np.arange(3), np.arange(3))
    for _ in range(5):
        assert observations.action_mask is not None
        for clock, mask in zip(observations.leaves["clock"], observations.action_mask, strict=True):
            assert mask.tolist() == [action != clock for action in range(3)]
        observations = batch.step(observations.action_mask.argmax(1)).observations


def test_several_achieved_goals_per_step_override_the_observation() -> None:
    batch = GymnasiumBatch(MultiGoalEnv, 2, name="multi")
    assert batch.spec.goal_rule == GoalRule()
    assert batch.spec.horizon == 30
    counts = set()
    for episode in collect(batch, 120):
        for row, goals in zip(episode.observations, episode.achieved, strict=True):
            cell = round(float(row["observation"][0]) * 8)
            assert goals.tolist() == [[j, cell] for j in range(cell % 4)]
            counts.add(len(goals))
    assert counts == {0, 1, 2, 3}


def test_a_marker_that_is_no_goal_value_is_refused() -> None:
    class Halves(MultiGoalEnv):
        def __init__(self) -> None:
            super().__init__()
            self.goal_rule = GoalRule(marker=-0.5)

    with pytest.raises(EnvError) as error:
        GymnasiumBatch(Halves, 1, name="halves")
    assert "marker -0.5" in one_line(error)


def test_an_observation_of_another_shape_is_a_failure() -> None:
    class Wrong(CounterEnv):
        def step(self, action: int):
            return np.zeros(1, np.float32), 0.0, False, False, {}

    batch = GymnasiumBatch(Wrong, 1, name="wrong")
    batch.reset(np.arange(1), np.arange(1))
    assert "expected shape [2], found [1]" in batch.step(np.zeros(1, np.int64)).failures[0].error


def test_an_unsupported_space_is_named() -> None:
    class Speaking(CounterEnv):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gymnasium.spaces.Text(4)

    with pytest.raises(SpaceError) as error:
        GymnasiumBatch(Speaking, 1, name="speaking")
    assert "Text" in one_line(error)


def test_render_without_pictures_says_what_to_do() -> None:
    with pytest.raises(EnvError) as error:
        GymnasiumBatch(CounterEnv, 1, name="counter").render(0)
    assert "rgb_array" in one_line(error)
