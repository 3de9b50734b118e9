"""Running episodes: copied in, kept until they end, copied out."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from helpers.scripted import make_spec
from hypothesis import given, settings

from amago_ray.acting.columns import EpisodeColumns, EvaluationColumns
from amago_ray.data.episode import Episode, EpisodeId, PolicyVersion, validate_episode
from amago_ray.data.specs import ActionSpec
from amago_ray.envs.env_batch import Observations

ALL = np.arange(3)


def shown(columns: EpisodeColumns, number: int) -> Observations:
    """Every environment shows (index, number, number), and no goals."""
    rows = np.stack([ALL, np.full(3, number), np.full(3, number)], 1).astype(np.float32)
    return Observations({"observation": rows})


def take(columns: EpisodeColumns, index: int, *, terminated: bool = True) -> Episode:
    episode = columns.episode(
        index,
        terminated=terminated,
        truncated=not terminated,
        episode_id=EpisodeId(1, 2, 3, 4),
        env_name="scripted",
        seed=5,
        first_policy_version=PolicyVersion(0, 1),
        last_policy_version=PolicyVersion(0, 2),
    )
    validate_episode(episode)
    return episode


def test_an_episode_has_one_row_more_than_transitions_past_every_chunk() -> None:
    columns = EpisodeColumns(make_spec(), 3)
    columns.start(ALL, shown(columns, 0))
    for t in range(600):
        columns.append((ALL + t) % 5, np.full(3, t, np.float32), shown(columns, t + 1))
        # Environment 1 begins anew again and again, which must not disturb the others.
        if t % 7 == 6:
            columns.start(np.array([1]), Observations({"observation": np.full((1, 3), -t, np.float32)}))
    for index in (0, 2):
        episode = take(columns, index)
        assert len(episode) == 600
        assert episode.observations["observation"][:, 1].tolist() == list(range(601))
        assert (episode.observations["observation"][:, 0] == index).all()
        assert episode.actions.tolist() == [(index + t) % 5 for t in range(600)]
        assert episode.rewards.tolist() == list(range(600))
    restarted = take(columns, 1, terminated=False)
    assert restarted.truncated
    assert not restarted.terminated
    assert restarted.observations["observation"][:, 1].tolist() == [-594, 596, 597, 598, 599, 600]


def test_a2_reused_buffers_and_later_steps_leave_rows_alone() -> None:
    """Row T is the true final observation, even if the environment returns one buffer for ever.

    Source: docs/algorithm.md §14.2.
    """
    columns = EpisodeColumns(make_spec(has_action_mask=True), 3)
    buffer, mask, rewards = np.zeros((3, 3), np.float32), np.zeros((3, 5), np.bool_), np.zeros(3, np.float32)
    actions = np.zeros(3, np.int64)
    observations = Observations({"observation": buffer}, mask)
    mask[:, 0] = True
    columns.start(ALL, observations)
    for t in range(4):
        buffer[:] = t + 1
        mask[:] = np.arange(5) == t + 1
        rewards[:] = t
        actions[:] = t
        columns.append(actions, rewards, observations)
    episode = take(columns, 0)
    buffer[:] = mask[:] = rewards[:] = actions[:] = 0
    columns.start(ALL, observations)
    assert episode.observations["observation"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert episode.rewards.tolist() == [0, 1, 2, 3]
    assert episode.actions.tolist() == [0, 1, 2, 3]
    assert episode.action_mask is not None
    assert episode.action_mask.argmax(1).tolist() == [0, 1, 2, 3, 4]


def test_a_mask_that_is_missing_allows_everything() -> None:
    columns = EpisodeColumns(make_spec(has_action_mask=True), 3)
    columns.start(ALL, Observations({"observation": np.zeros((3, 3), np.float32)}, np.zeros((3, 5), np.bool_)))
    columns.start(ALL, shown(columns, 0))
    columns.append(np.zeros(3, np.int64), np.zeros(3, np.float32), shown(columns, 1))
    mask = take(columns, 0).action_mask
    assert mask is not None
    assert mask.all()


@pytest.mark.parametrize(
    ("action", "value"),
    [
        (ActionSpec("discrete", (), (1000,)), np.array(999)),
        (ActionSpec("multi_discrete", (2,), (3, 300)), np.array([2, 299])),
        (ActionSpec("multi_binary", (3,)), np.array([1, 0, 1])),
        (ActionSpec("box", (2, 2), (), (-1.0,) * 4, (1.0,) * 4), np.full((2, 2), 0.25)),
    ],
    ids=lambda value: value.kind if isinstance(value, ActionSpec) else "",
)
def test_a9_actions_are_stored_in_the_dtype_of_their_spec(action: ActionSpec, value: np.ndarray) -> None:
    """docs/algorithm.md §14.9: a discrete action past 255 does not wrap."""
    columns = EpisodeColumns(make_spec(action), 3)
    columns.start(ALL, shown(columns, 0))
    columns.append(np.stack([value] * 3), np.zeros(3, np.float32), shown(columns, 1))
    stored = take(columns, 2).actions
    assert stored.dtype == action.dtype
    assert stored.shape == (1, *action.shape)
    assert np.array_equal(stored[0], value)


@settings(max_examples=30)
@given(st.data())
def test_ragged_goals_of_none_to_three_per_row_are_kept_by_environment(data: st.DataObject) -> None:
    """Any number of goals in any row, with environments that begin anew at different times, over several chunks."""
    columns = EpisodeColumns(make_spec(goal_dim=2), 3)
    counts = st.lists(st.integers(0, 3), min_size=3, max_size=3)
    expected: list[list[np.ndarray]] = [[], [], []]
    number = 0

    def observe(indices: np.ndarray) -> Observations:
        nonlocal number
        per_env = [np.arange(2 * n).reshape(n, 2) + 10 * (number := number + 1) for n in data.draw(counts)]
        chosen = [per_env[i] for i in indices]
        for i in indices:
            expected[i].append(per_env[i])
        offsets = np.cumsum([0, *(len(each) for each in chosen)]).astype(np.int32)
        rows = np.zeros((len(indices), 3), np.float32)
        return Observations({"observation": rows}, None, np.concatenate(chosen).astype(np.int32), offsets)

    columns.start(ALL, observe(ALL))
    for t in range(data.draw(st.sampled_from([1, 5, 12, 63, 64, 65, 130]))):
        columns.append(np.zeros(3, np.int64), np.zeros(3, np.float32), observe(ALL))
        again = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=3, max_size=3)))
        if len(again) and t % 3 == 0:
            for i in again:
                expected[i].clear()
            columns.start(again, observe(again))
    for index in (i for i in range(3) if len(expected[i]) > 1):
        goals = take(columns, index).achieved_goals
        assert goals is not None
        assert goals.values.dtype == np.int32
        assert goals.offsets.dtype == np.int32
        rows = [goals.values[a:b] for a, b in zip(goals.offsets[:-1], goals.offsets[1:], strict=True)]
        assert [row.tolist() for row in rows] == [row.tolist() for row in expected[index]]


@settings(max_examples=30)
@given(st.data())
def test_the_context_is_the_end_of_the_episode_with_what_led_to_each_row(data: st.DataObject) -> None:
    columns = EpisodeColumns(make_spec(), 3)
    columns.start(ALL, shown(columns, 0))
    length = data.draw(st.sampled_from([1, 2, 63, 64, 65, 128, 200]))
    for t in range(length):
        columns.append((ALL + t) % 5, np.full(3, t + 1, np.float32), shown(columns, t + 1))
    count = data.draw(st.integers(1, length))
    rows, prev_action, prev_reward = columns.context(2, count)
    first = length - count
    assert rows["observation"][:, 1].tolist() == list(range(first, length))
    assert prev_reward.tolist() == [float(row) for row in range(first, length)]
    assert prev_action.tolist() == [0 if row == 0 else (2 + row - 1) % 5 for row in range(first, length)]
    assert prev_action.dtype == np.int64


def test_evaluation_shows_the_same_and_keeps_the_rewards() -> None:
    spec = make_spec(has_action_mask=True)
    kept, evaluated = EpisodeColumns(spec, 3), EvaluationColumns(spec, 3)
    for columns in (kept, evaluated):
        columns.start(ALL, Observations({"observation": np.ones((3, 3), np.float32)}, np.eye(5, dtype=np.bool_)[:3]))
        for t in range(150):
            columns.append(ALL, np.full(3, t / 7, np.float32), shown(columns, t))
            if t == 70:
                columns.start(np.array([1]), Observations({"observation": np.full((1, 3), -1, np.float32)}))
    assert np.array_equal(kept.observations["observation"], evaluated.observations["observation"])
    assert kept.action_mask is not None
    assert evaluated.action_mask is not None
    assert np.array_equal(kept.action_mask, evaluated.action_mask)
    for index in ALL.tolist():
        assert evaluated.rewards(index).tobytes() == take(kept, index).rewards.tobytes()
