"""Native vector environments of each reset mode: no transition crosses episodes, final observations are true."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from helpers.envs import CounterEnv, MaskedEnv, NativeCounterVector
from helpers.one_line import one_line
from helpers.peculiar_envs import Hangs, PeculiarVector

from amago_ray.envs.env_batch import EnvFailure, StepColumns
from amago_ray.envs.failures import Retries
from amago_ray.envs.vector_batch import VectorBatch
from amago_ray.errors import EnvError
from amago_ray.testing.env_batch import Collected, collect

MODES = ["next_step", "same_step", "disabled"]


def counter() -> CounterEnv:
    return CounterEnv(shares_buffer=False)


def rows_of(episode: Collected) -> np.ndarray:
    return np.stack([row["observation"] for row in episode.observations])


@pytest.mark.parametrize("mode", MODES)
def test_a1_no_transition_crosses_episodes_of_a_native_vector_environment(mode: str) -> None:
    episodes = collect(VectorBatch(lambda: NativeCounterVector(5, mode), name="native"), 40)
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
        # The first reset was to read the spec.
        assert numbers == list(range(2, len(numbers) + 2)), "no episode is lost"


@pytest.mark.parametrize("mode", MODES)
def test_a2_final_observations_of_gymnasiums_own_vector_environments(mode: str) -> None:
    vector = SyncVectorEnv([counter] * 3, autoreset_mode=AutoresetMode[mode.upper()])
    episodes = collect(VectorBatch(lambda: vector, name="sync"), 30)
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
    for episode in collect(VectorBatch(lambda: vector, name="sync"), 12):
        assert rows_of(episode)[:, 1].tolist() == [0, 1, 2, 3, 4]


def test_next_step_marks_the_resetting_step_as_not_valid() -> None:
    batch = VectorBatch(lambda: NativeCounterVector(2, "next_step"), name="native")
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
    assert first.tolist() == [[0, 3, 0]]
    columns = batch.step(actions)
    assert columns.observations.leaves["observation"][0].tolist() == [0, 3, 1]


def test_an_undeclared_mode_is_refused() -> None:
    with pytest.raises(EnvError) as error:
        VectorBatch(lambda: NativeCounterVector(2, None), name="silent")
    assert "autoreset_mode" in one_line(error)


def test_the_config_may_declare_the_mode() -> None:
    vector = NativeCounterVector(3, "same_step")
    vector.metadata = {}
    episodes = collect(VectorBatch(lambda: vector, name="native", autoreset_mode="same_step"), 10)
    assert rows_of(episodes[0])[:, 2].tolist() == [0, 1, 2]


def test_the_config_may_not_contradict_the_metadata() -> None:
    with pytest.raises(EnvError) as error:
        VectorBatch(lambda: NativeCounterVector(2, "same_step"), name="native", autoreset_mode="disabled")
    assert "expected same_step" in one_line(error)


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_a_running_episode_that_cannot_be_given_up_is_an_error(mode: str) -> None:
    batch = VectorBatch(lambda: NativeCounterVector(2, mode), name="native")
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

    batch = VectorBatch(lambda: Forgetful(1, "same_step"), name="forgetful")
    batch.reset(np.arange(1), np.arange(1))
    batch.step(np.zeros(1, np.int64))
    (failure,) = batch.step(np.zeros(1, np.int64)).failures
    assert "final_obs" in failure.message


@pytest.mark.parametrize("mask_in_info", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_the_mask_belongs_to_the_observation_beside_it(mode: str, mask_in_info: bool) -> None:
    envs = [lambda: TimeLimit(MaskedEnv(mask_in_info), 3)] * 3
    vector = SyncVectorEnv(envs, autoreset_mode=AutoresetMode[mode.upper()])
    batch = VectorBatch(lambda: vector, name="masked")
    assert batch.spec.has_action_mask
    shown, num_ended = batch.reset(np.arange(3), np.arange(3)), 0
    for _ in range(25):
        assert shown.action_mask is not None
        for clock, mask in zip(shown.leaves["clock"], shown.action_mask, strict=True):
            assert mask.tolist() == [action != clock for action in range(3)]
        columns = batch.step(shown.action_mask.argmax(1))
        assert not columns.failures
        shown = columns.observations
        if columns.truncated.any():
            num_ended += 1
            shown = batch.reset(np.arange(3), np.arange(3))
    assert num_ended


def test_goals_and_masks_of_vector_environments() -> None:
    vector = SyncVectorEnv([GoalCounter] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    batch = VectorBatch(lambda: vector, name="goals")
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


AT_ONCE = Retries(first_pause_s=0.0)


def play(make, num_steps: int, retries: Retries = AT_ONCE) -> tuple[list[EnvFailure], list[int], list[StepColumns]]:
    """Failures, whose episodes ended, and all columns of so many steps, reset as an env runner does."""
    batch = VectorBatch(make, name="odd", retries=retries)
    everything = np.arange(batch.num_envs)
    batch.reset(everything, everything)
    failures: list[EnvFailure] = []
    ended: list[int] = []
    columns = []
    for _ in range(num_steps):
        step = batch.step(np.zeros(batch.num_envs, np.int64))
        assert step.valid is not None
        assert np.isfinite(step.rewards).all()
        failures += step.failures
        over = step.terminated | step.truncated
        ended += np.flatnonzero(over & step.valid).tolist()
        over |= ~step.valid
        over[[failure.index for failure in step.failures]] = True
        if over.any():
            batch.reset(np.flatnonzero(over), np.flatnonzero(over))
        columns.append(step)
    batch.close()
    return failures, ended, columns


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "entries",
    [
        {"rewards": lambda env: np.ones((env.num_envs, 1), np.float64)},
        {"rewards": lambda env: np.array([1, np.float32(1), np.array([1])], object)},
        {"rewards": [1, 1.0, True]},
        {"terminated": lambda env: (env.time >= 3).astype(np.int64)},
        {"truncated": [0, 0.0, np.False_]},
        {"infos": None},
        {"infos": {"is_success": np.array([None, True, 1.0], object)}},
        {"infos": {"success": np.ones(3), "_success": np.array([1, 0, 1])}},
        {"infos": {"attempt_return": [None, 1, None], "episode": {"r": np.zeros(3)}}},
    ],
)
def test_what_has_a_plain_meaning_is_read(mode: str, entries: dict) -> None:
    failures, ended, _ = play(lambda: PeculiarVector(mode=mode, **entries), 9)
    assert failures == []
    assert {0, 1, 2} == set(ended)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"rewards": (1, np.nan)}, "step: rewards: expected a finite number of float32, got "),
        ({"rewards": (1, "1.0x")}, "step: rewards: expected a number, got '1.0x'"),
        ({"terminated": (1, None)}, "step: terminated: expected True or False, got None"),
        ({"truncated": (1, 2)}, "step: truncated: expected True or False, got "),
        ({"observations": (1, np.nan)}, "step: observation 'observation': expected finite numbers, got nan"),
        ({"infos": {"attempt_return": [None, "high", None]}}, "step: infos['attempt_return']: expected a number"),
    ],
    ids=str,
)
def test_nonsense_of_one_environment_is_its_failure_alone(mode: str, entries: dict, message: str) -> None:
    """In the second step; its next episode is a good one again, and the others notice nothing."""
    failures, ended, columns = play(lambda: PeculiarVector(mode=mode, at=2, **entries), 12)
    assert [failure.index for failure in failures] == [1]
    assert failures[0].message.startswith(f"env 'odd': {message}")
    plain = play(lambda: PeculiarVector(mode=mode), 12)[1]
    assert [index for index in ended if index != 1] == [index for index in plain if index != 1]
    assert plain.count(1) - 2 <= ended.count(1) < plain.count(1)
    for step in columns:
        assert np.isfinite(step.observations.leaves["observation"]).all()


@pytest.mark.parametrize("mode", MODES)
def test_one_that_goes_on_failing_is_isolated_and_the_others_go_on(mode: str) -> None:
    retries = Retries(max_failures=3, first_pause_s=0.0)
    failures, ended, columns = play(lambda: PeculiarVector(mode=mode, rewards=(1, np.nan)), 40, retries)
    assert [failure.is_isolated for failure in failures] == [False, False, True]
    assert {failure.index for failure in failures} == {1}
    assert columns[-1].valid is not None
    assert not columns[-1].valid[1]
    assert set(ended) == {0, 2}
    assert len(ended) >= 18


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"rewards": RuntimeError("no [licence]")}, "step: RuntimeError: no [licence]"),
        ({"rewards": SystemExit(3)}, "step: SystemExit: 3"),
        ({"rewards": [1.0, 2.0]}, "step: rewards: expected 3 entries, got [1.0, 2.0]"),
        ({"rewards": None}, "step: rewards: expected 3 entries, got None"),
        ({"observations": np.zeros((3, 5))}, "step: observation 'observation': expected shape [3, 2], got [3, 5]"),
        ({"observations": np.zeros((2, 2))}, "step: observation 'observation': expected shape [3, 2], got [2, 2]"),
        ({"observations": np.zeros((4, 2))}, "step: observation 'observation': expected shape [3, 2], got [4, 2]"),
        ({"observations": "words"}, "step: observation 'observation': expected numbers, got str"),
        ({"infos": [1]}, "step: info: expected a dict, got [1]"),
    ],
    ids=str,
)
def test_what_concerns_all_makes_the_whole_environment_anew(mode: str, entries: dict, message: str) -> None:
    # Each new one fails in its second step, before the first episodes would have ended.
    failures, ended, _ = play(lambda: PeculiarVector(mode=mode, at=2, **entries), 6)
    assert [failure.index for failure in failures] == [0, 1, 2] * 3
    assert all(failure.message.startswith(f"env 'odd': {message}") for failure in failures)
    assert len({failure.kind for failure in failures}) == 1
    assert ended == []


def test_a_vector_environment_that_always_fails_is_isolated_as_a_whole() -> None:
    retries = Retries(max_failures=3, first_pause_s=0.0)
    failures, _, columns = play(lambda: PeculiarVector(rewards=RuntimeError("broken")), 9, retries)
    assert len(failures) == 9
    assert [failure.is_isolated for failure in failures] == [False] * 6 + [True] * 3
    assert columns[-1].valid is not None
    assert not columns[-1].valid.any()


def test_final_infos_as_dicts_of_each_environment() -> None:
    def final(env: PeculiarVector) -> dict:
        return {"final_info": np.array([{"is_success": index == 1} if over else None for index, over in over_of(env)])}

    def over_of(env: PeculiarVector) -> list[tuple[int, bool]]:
        return list(enumerate((env.time >= 3).tolist()))

    _, ended, columns = play(lambda: PeculiarVector(mode="same_step", infos=final), 3)
    assert ended == [0, 1, 2]
    assert [(event.index, event.value) for event in columns[-1].events] == [(0, 0.0), (1, 1.0), (2, 0.0)]


def test_a_vector_environment_that_hangs_is_noticed() -> None:
    def hang(env: PeculiarVector) -> np.ndarray:
        Hangs.free.wait(60)
        return np.zeros(3)

    Hangs.free.clear()
    batch = VectorBatch(lambda: PeculiarVector(at=2, rewards=hang), name="odd", step_timeout_s=0.5, retries=AT_ONCE)
    batch.reset(np.arange(3), np.arange(3))
    actions = np.zeros(3, np.int64)
    batch.step(actions)
    try:
        failures = batch.step(actions).failures
        assert [failure.message for failure in failures] == ["env 'odd': step: HungError: no answer within 0.5 s"] * 3
        batch.reset(np.arange(3), np.arange(3))
        assert not batch.step(actions).failures
    finally:
        Hangs.free.set()
    batch.close()
