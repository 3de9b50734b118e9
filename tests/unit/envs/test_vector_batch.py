"""Native vector environments of each reset mode: no transition crosses episodes, final observations are true."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from helpers.env_batch_contract import Collected, collect
from helpers.envs import CounterEnv, NativeCounterVector
from helpers.one_line import one_line

from amago_ray.envs.vector_batch import VectorBatch
from amago_ray.errors import EnvError

MODES = ["next_step", "same_step", "disabled"]


def counter() -> CounterEnv:
    return CounterEnv(shares_buffer=False)


def rows_of(episode: Collected) -> np.ndarray:
    return np.stack([row["observation"] for row in episode.observations])


@pytest.mark.parametrize("mode", MODES)
def test_a1_no_transition_crosses_episodes_of_a_native_vector_environment(mode: str) -> None:
    episodes = collect(VectorBatch(NativeCounterVector(5, mode), name="native"), 40)
    assert len(episodes) > 40
    for episode in episodes:
        rows, length = rows_of(episode), NativeCounterVector.lengths[episode.index % 3]
        assert rows[:, 0].tolist() == [episode.index] * (length + 1)
        assert len(set(rows[:, 1])) == 1, "rows of one episode only"
        assert rows[:, 2].tolist() == list(range(length + 1)), "from its first row to its true last one"
        assert episode.rewards == list(range(1, length + 1))
        assert episode.success == 1.0
    for index in range(5):
        numbers = [rows_of(episode)[0, 1] for episode in episodes if episode.index == index]
        assert numbers == list(range(1, len(numbers) + 1)), "no episode is lost"


@pytest.mark.parametrize("mode", MODES)
def test_a2_final_observations_of_gymnasiums_own_vector_environments(mode: str) -> None:
    vector = SyncVectorEnv([counter] * 3, autoreset_mode=AutoresetMode[mode.upper()])
    episodes = collect(VectorBatch(vector, name="sync"), 30)
    assert len(episodes) >= 18
    for episode in episodes:
        rows = rows_of(episode)
        assert rows[:, 1].tolist() == [0, 1, 2, 3, 4]
        assert (rows[:, 0] == np.float32(episode.seed)).all(), "every seed is heeded"
        assert episode.success == float(episode.actions[-1])


@pytest.mark.parametrize("mode", MODES)
def test_vector_environments_of_different_modes_live_side_by_side(mode: str) -> None:
    vector = SyncVectorEnv([counter] * 2, autoreset_mode=AutoresetMode[mode.upper()])
    SyncVectorEnv([counter] * 2, autoreset_mode=AutoresetMode.NEXT_STEP)
    for episode in collect(VectorBatch(vector, name="sync"), 12):
        assert rows_of(episode)[:, 1].tolist() == [0, 1, 2, 3, 4]


def test_next_step_marks_the_resetting_step_as_not_valid() -> None:
    batch = VectorBatch(NativeCounterVector(2, "next_step"), name="native")
    batch.reset(np.arange(2), np.arange(2))
    actions = np.zeros(2, np.int64)
    batch.step(actions)
    columns = batch.step(actions)
    assert columns.terminated.tolist() == [True, False]
    batch.reset(np.asarray([0]), np.asarray([1]))
    columns = batch.step(actions)
    assert columns.valid is not None
    assert columns.valid.tolist() == [False, True]
    assert columns.rewards.tolist() == [0, 3]
    assert not columns.terminated[0]
    first = batch.reset(np.asarray([0]), np.asarray([2])).leaves["observation"]
    assert first.tolist() == [[0, 2, 0]]
    columns = batch.step(actions)
    assert columns.observations.leaves["observation"][0].tolist() == [0, 2, 1]


def test_an_undeclared_mode_is_refused() -> None:
    with pytest.raises(EnvError) as error:
        VectorBatch(NativeCounterVector(2, None), name="silent")
    assert "autoreset_mode" in one_line(error)


def test_the_config_may_declare_the_mode() -> None:
    vector = NativeCounterVector(3, "same_step")
    vector.metadata = {}
    episodes = collect(VectorBatch(vector, name="native", autoreset_mode="same_step"), 10)
    assert rows_of(episodes[0])[:, 2].tolist() == [0, 1, 2]


def test_the_config_may_not_contradict_the_metadata() -> None:
    with pytest.raises(EnvError) as error:
        VectorBatch(NativeCounterVector(2, "same_step"), name="native", autoreset_mode="disabled")
    assert "expected same_step" in one_line(error)


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_a_running_episode_that_cannot_be_given_up_is_an_error(mode: str) -> None:
    batch = VectorBatch(NativeCounterVector(2, mode), name="native")
    batch.reset(np.arange(2), np.arange(2))
    batch.step(np.zeros(2, np.int64))
    with pytest.raises(EnvError) as error:
        batch.reset(np.asarray([0]), np.asarray([1]))
    assert "environment 0" in one_line(error)
    batch.reset(np.arange(2), np.arange(2))


def test_a2_a_lost_final_observation_is_an_error() -> None:
    class Forgetful(NativeCounterVector):
        def step(self, actions):
            *rest, infos = super().step(actions)
            infos.pop("final_obs", None)
            return *rest, infos

    batch = VectorBatch(Forgetful(1, "same_step"), name="forgetful")
    batch.reset(np.arange(1), np.arange(1))
    batch.step(np.zeros(1, np.int64))
    with pytest.raises(EnvError) as error:
        batch.step(np.zeros(1, np.int64))
    assert "final_obs" in one_line(error)


def test_goals_and_masks_of_vector_environments() -> None:
    vector = SyncVectorEnv([GoalCounter] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    batch = VectorBatch(vector, name="goals")
    assert (batch.spec.goal_dim, batch.spec.has_action_mask) == (1, True)
    for episode in collect(batch, 12):
        assert [goals.tolist() for goals in episode.achieved] == [[[t]] for t in range(4)]


class GoalCounter(gymnasium.Env):
    """Achieves its step count; ends after three steps."""

    def __init__(self) -> None:
        box = gymnasium.spaces.Box(0, 9, (1,), np.int32)
        mask = gymnasium.spaces.MultiBinary(2)
        self.observation_space = gymnasium.spaces.Dict(
            {"observation": box, "achieved_goal": box, "desired_goal": box, "action_mask": mask}
        )
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._time = 0
        return self._observation(), {}

    def step(self, action):
        self._time += 1
        return self._observation(), 0.0, self._time == 3, False, {}

    def _observation(self):
        time = np.asarray([self._time], np.int32)
        return {"observation": time, "achieved_goal": time, "desired_goal": time, "action_mask": np.ones(2, np.int8)}
