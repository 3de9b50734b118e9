"""Wrapped Gymnasium environments: true final observations, both ends, failures, hangs, infos."""

import asyncio
import logging
import signal

import gymnasium
import numpy as np
import pytest
import torch
from helpers.envs import CounterEnv, FragileEnv, MaskedEnv
from helpers.multi_goal_env import MultiGoalEnv
from helpers.one_line import one_line
from helpers.peculiar_envs import Peculiar, Raises

from amago_ray.data.goal_rule import GoalRule
from amago_ray.envs.env_batch import EnvFailure
from amago_ray.envs.failures import Retries
from amago_ray.envs.gymnasium_batch import GymnasiumBatch
from amago_ray.envs.returned import describe
from amago_ray.errors import EnvError, SpaceError
from amago_ray.testing.env_batch import collect
from amago_ray.training.interrupt import stop_on_interrupt


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


AT_ONCE = Retries(first_pause_s=0.0)


def test_an_environment_that_raises_is_made_anew_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    batch = GymnasiumBatch(FragileEnv, 3, name="fragile", retries=AT_ONCE)
    batch.reset(np.arange(3), np.asarray([2, 3, 4]))
    actions = np.zeros(3, np.int64)
    assert not batch.step(actions).failures
    with caplog.at_level(logging.ERROR):
        columns = batch.step(actions)
        assert [failure.index for failure in columns.failures] == [1]
        assert "the step broke" in columns.failures[0].message
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


def test_a_reset_that_raises_is_reported_by_the_next_step() -> None:
    batch = GymnasiumBatch(lambda: FragileEnv(fails="reset"), 2, name="fragile", retries=AT_ONCE)
    batch.reset(np.arange(2), np.asarray([2, 3]))
    columns = batch.step(np.zeros(2, np.int64))
    assert [failure.index for failure in columns.failures] == [1]
    assert "the reset broke" in columns.failures[0].message
    batch.reset(np.asarray([1]), np.asarray([4]))
    assert not batch.step(np.zeros(2, np.int64)).failures


@pytest.mark.parametrize("fails", ["step", "reset"])
def test_one_that_goes_on_failing_is_isolated_and_the_others_go_on(fails: str) -> None:
    retries = Retries(max_failures=3, first_pause_s=0.0)
    batch = GymnasiumBatch(lambda: FragileEnv(fails=fails), 2, name="fragile", retries=retries)
    batch.reset(np.arange(2), np.asarray([2, 3]))
    isolated = []
    for _ in range(12):
        columns = batch.step(np.zeros(2, np.int64))
        isolated += [failure.is_isolated for failure in columns.failures]
        assert columns.valid is None or columns.valid[0]
        over = columns.terminated | columns.truncated
        over[[failure.index for failure in columns.failures]] = True
        if columns.valid is not None:
            over |= ~columns.valid
        # Seeds stay odd for the second one, which fails by them, and even for the first.
        batch.reset(np.flatnonzero(over), 4 + np.flatnonzero(over))
    assert isolated == [False, False, True]
    assert columns.valid is not None
    assert columns.valid.tolist() == [True, False]


def test_an_episode_that_ends_makes_up_for_failures() -> None:
    retries = Retries(max_failures=2, first_pause_s=0.0)
    batch = GymnasiumBatch(FragileEnv, 1, name="fragile", retries=retries)
    for seed in [3, 2] * 4:
        batch.reset(np.arange(1), np.asarray([seed]))
        for _ in range(4):
            columns = batch.step(np.zeros(1, np.int64))
            assert not any(failure.is_isolated for failure in columns.failures)
            if columns.failures or columns.terminated[0]:
                break


def failures_of(make, num_steps: int = 4, **settings) -> list[EnvFailure]:
    """The failures of one environment within so many steps."""
    batch = GymnasiumBatch(make, 1, name="odd", retries=AT_ONCE, **settings)
    batch.reset(np.arange(1), np.arange(1))
    found: list[EnvFailure] = []
    for _ in range(num_steps):
        columns = batch.step(np.zeros(1, np.int64))
        found += columns.failures
        assert np.isfinite(columns.rewards).all()
        assert all(np.isfinite(leaf).all() for leaf in columns.observations.leaves.values())
        if columns.failures or columns.terminated[0] or columns.truncated[0]:
            batch.reset(np.arange(1), np.arange(1))
    batch.close()
    return found


@pytest.mark.parametrize(
    "entries",
    [
        {"reward": np.array([1.0])},
        {"reward": True},
        {"terminated": np.array([False]), "truncated": np.array(True)},
        {"terminated": 0, "truncated": 1},
        {"info": None, "reset_info": None},
        {"info": {"is_success": None, "attempt_return": None}},
        {"info": {"is_success": np.array([True]), "attempt_return": [2]}},
        {"info": {"episode": {"r": 1.0}, "f": print, "n": None, "a": np.zeros(3)}},
        {"observation": [0.1, 0.2]},
        {"observation": torch.zeros(2)},
        {"observation": np.zeros(2, np.float64)},
        {"observation": np.array([1]), "observation_space": gymnasium.spaces.Discrete(3), "shown": 1},
    ],
    ids=str,
)
def test_what_has_a_plain_meaning_is_read(entries: dict) -> None:
    assert failures_of(lambda: Peculiar(**entries)) == []


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"reward": "1.0x"}, "step: reward: expected a number, got '1.0x'"),
        ({"reward": np.float64("nan")}, "step: reward: expected a finite number of float32, got np.float64(nan)"),
        ({"reward": 1e39}, "step: reward: expected a finite number of float32, got 1e+39"),
        ({"terminated": None}, "step: terminated: expected True or False, got None"),
        ({"truncated": "no"}, "step: truncated: expected True or False, got 'no'"),
        ({"info": ["success"]}, "step: info: expected a dict, got ['success']"),
        ({"info": {"attempt_return": "high"}}, "step: info['attempt_return']: expected a number, got 'high'"),
        ({"step": (np.zeros(2), 0.0, False, {})}, "step: expected (observation, reward, terminated, truncated, info) "),
        ({"step": None}, "step: expected (observation, reward, terminated, truncated, info) as in Gymnasium, got None"),
        ({"observation": None}, "step: observation"),
        ({"observation": "words"}, "step: observation"),
        ({"observation": np.array([np.nan, 0], np.float32)}, "step: observation 'observation': expected finite"),
        ({"observation": np.array([0, np.inf], np.float32)}, "step: observation 'observation': expected finite"),
        ({"observation": np.zeros(3, np.float32)}, "step: observation 'observation': expected shape [2], got [3]"),
    ],
    ids=str,
)
def test_nonsense_is_a_failure_that_names_environment_and_entry(entries: dict, message: str) -> None:
    (failure, *_) = failures_of(lambda: Peculiar(since=2, **entries))
    assert failure.message.startswith(f"env 'odd': {message}")
    assert "\n" not in failure.message


def test_a_success_of_no_meaning_is_a_failure_of_the_step_that_ends() -> None:
    failures = failures_of(lambda: Peculiar(info={"success": {"agent": True}}))
    assert [failure.message for failure in failures] == [
        "env 'odd': step: info['success']: expected a number, got {'agent': True}"
    ]


def test_a_category_that_there_is_not_is_a_failure() -> None:
    space = gymnasium.spaces.Discrete(3, start=5)
    (failure, *_) = failures_of(lambda: Peculiar(since=2, observation=8, observation_space=space, shown=5))
    assert "observation 'observation': expected whole numbers from 5 to 7, got 8" in failure.message


def test_a_key_that_is_missing_is_a_failure() -> None:
    space = gymnasium.spaces.Dict({key: gymnasium.spaces.Discrete(2) for key in "ab"})
    entries = {"observation_space": space, "shown": {"a": 0, "b": 0}, "observation": {"a": 0}}
    assert "step: observation" in failures_of(lambda: Peculiar(**entries))[0].message


@pytest.mark.parametrize("mask", [[0, 0, 0], [1, 1], 5], ids=str)
def test_a_mask_of_no_use_is_a_failure(mask) -> None:
    class Masked(MaskedEnv):
        def step(self, action: int):
            observation, *rest, _ = super().step(action)
            return observation, *rest, {"action_mask": mask}

    failures = failures_of(lambda: Masked(mask_in_info=True), 1)
    assert "action_mask: expected " in failures[0].message


@pytest.mark.parametrize("result", [np.zeros(2), (np.zeros(2), 0.0), np.zeros(2, np.float32), None], ids=describe)
def test_the_old_reset_is_refused_when_the_batch_is_made(result) -> None:
    with pytest.raises(EnvError) as error:
        GymnasiumBatch(lambda: Peculiar(reset=result), 1, name="odd")
    assert one_line(error).startswith("env 'odd': reset: ")


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, MemoryError, RecursionError, asyncio.CancelledError])
def test_whatever_it_raises_is_a_failure_of_one_kind(error: type[BaseException]) -> None:
    failures = failures_of(lambda: Raises(error), 8)
    assert len(failures) == 4
    assert len({failure.kind for failure in failures}) == 1
    assert len({failure.message for failure in failures}) == 4
    assert failures[0].message.startswith(f"env 'odd': step: {error.__name__}: lost [/dev/tty")


def test_a_keyboard_interrupt_is_the_users_only_where_ctrl_c_raises_one() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, lambda *_: None)
        assert "KeyboardInterrupt" in failures_of(lambda: Raises(KeyboardInterrupt), 2)[0].message
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(KeyboardInterrupt):
            failures_of(lambda: Raises(KeyboardInterrupt), 2)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_is_made_is_no_failure_of_it(number: signal.Signals) -> None:
    def make() -> FragileEnv:
        signal.raise_signal(number)
        return FragileEnv()

    with pytest.raises(KeyboardInterrupt), stop_on_interrupt():
        GymnasiumBatch(make, 1, name="slow")


def test_a_hung_step_is_noticed() -> None:
    batch = GymnasiumBatch(lambda: FragileEnv(hangs_s=3.0), 2, name="hanging", step_timeout_s=0.2, retries=AT_ONCE)
    batch.reset(np.arange(2), np.asarray([2, 3]))
    batch.step(np.zeros(2, np.int64))
    columns = batch.step(np.zeros(2, np.int64))
    assert [failure.index for failure in columns.failures] == [1]
    assert "no answer within 0.2 s" in columns.failures[0].message
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
    assert "expected shape [2], got [1]" in batch.step(np.zeros(1, np.int64)).failures[0].message


def test_an_unsupported_space_is_named() -> None:
    class Speaking(CounterEnv):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = gymnasium.spaces.Text(4)

    with pytest.raises(SpaceError) as error:
        GymnasiumBatch(Speaking, 1, name="speaking")
    assert one_line(error).startswith("env 'speaking': observation 'observation': unsupported space Text(")


@pytest.mark.parametrize("mask", [(np.ones(2), [1, 0, 1]), [1, 1, 1, 0, 1]], ids=["parts", "whole"])
def test_a_mask_may_be_one_for_each_dimension_of_the_action(mask) -> None:
    class Joint(MaskedEnv):
        def __init__(self) -> None:
            super().__init__(mask_in_info=True)
            self.action_space = gymnasium.spaces.MultiDiscrete([2, 3])

        def _result(self):
            return {"clock": 0}, {"action_mask": mask}

    batch = GymnasiumBatch(Joint, 1, name="joint")
    shown = batch.reset(np.arange(1), np.arange(1))
    assert shown.action_mask is not None
    assert shown.action_mask.tolist() == [[True, True, True, False, True]]


def test_a_mask_that_does_not_fit_names_the_environment() -> None:
    class Masked(MaskedEnv):
        def _result(self):
            return {"clock": 0}, {"action_mask": np.ones(5)}

    with pytest.raises(SpaceError) as error:
        GymnasiumBatch(lambda: Masked(mask_in_info=True), 1, name="masked")
    assert one_line(error) == "env 'masked': action_mask: expected 3 entries for Discrete(3), got 5"


def test_render_without_pictures_says_what_to_do() -> None:
    with pytest.raises(EnvError) as error:
        GymnasiumBatch(CounterEnv, 1, name="counter").render(0)
    assert "rgb_array" in one_line(error)
