"""Makers of random episodes, and a slow, obvious player of goal rules to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
from hypothesis.extra import numpy as hnp

from amago_ray.data import (
    AchievedGoals,
    ActionSpec,
    EnvSpec,
    Episode,
    EpisodeId,
    GoalRule,
    ObservationSpec,
    PolicyVersion,
)
from amago_ray.data.arrow_codec import read_stream, to_episode
from amago_ray.replay.layout import find_segments

GRID = 4
"""Goals are cells of a grid of this size: small, so that random walks meet them."""


def goal_spec(num_goals: int = 2, rule: GoalRule | None = None, *, has_action_mask: bool = False) -> EnvSpec:
    """The spec of what `make_episode` makes."""
    return EnvSpec(
        name="grid",
        observations={
            "desired_goal": ObservationSpec("box", (num_goals, 2), "int32"),
            "observation": ObservationSpec("box", (3,), "float32"),
        },
        action=ActionSpec("discrete", (), (5,)),
        goal_dim=2,
        goal_dtype="int32",
        goal_rule=rule or GoalRule(),
        has_action_mask=has_action_mask,
    )


def make_episode(
    num_transitions: int = 6,
    *,
    counter: int = 0,
    num_goals: int = 2,
    goals_per_row: Sequence[int] = (1,),
    rule: GoalRule | None = None,
    seed: int = 0,
    run: int = 1,
    runner: int = 0,
    incarnation: int = 0,
    env_name: str = "grid",
    grid: int = GRID,
    has_action_mask: bool = False,
) -> Episode:
    """A random episode that obeys its rule: at most `num_transitions` long, cut where its instruction completes.

    Each row achieves a number of goals drawn from `goals_per_row`. It is terminated where the rule ends it, else
    truncated. The observation shows the row's index.
    """
    rule = rule or GoalRule()
    rng = np.random.default_rng((seed, counter))
    rows = [
        rng.integers(0, grid, (int(rng.choice(goals_per_row)), 2)).astype(np.int32) for _ in range(num_transitions + 1)
    ]
    instruction = rng.integers(0, grid, (num_goals, 2)).astype(np.int32)
    rewards, shown, end, terminated = play(rule, instruction, rows)
    observation = rng.random((end + 1, 3), np.float32)
    observation[:, 0] = np.arange(end + 1)
    return Episode(
        observations={"observation": observation, "desired_goal": shown},
        actions=rng.integers(0, 5, end),
        rewards=rewards,
        terminated=terminated,
        truncated=not terminated,
        episode_id=EpisodeId(run, runner, incarnation, counter),
        env_name=env_name,
        seed=int(rng.integers(2**62)),
        first_policy_version=PolicyVersion(0, counter),
        last_policy_version=PolicyVersion(1, counter + 1),
        achieved_goals=to_achieved(rows[: end + 1]),
        action_mask=rng.random((end + 1, 5)) < 0.8 if has_action_mask else None,
    )


def to_achieved(rows: Sequence[npt.NDArray[Any]]) -> AchievedGoals:
    """Ragged goals from a list of goals per row."""
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int32)
    return AchievedGoals(np.concatenate(rows), offsets)


def to_rows(achieved: AchievedGoals) -> list[npt.NDArray[Any]]:
    """The goals of each row."""
    return [achieved.values[a:b] for a, b in zip(achieved.offsets[:-1], achieved.offsets[1:], strict=True)]


def play(
    rule: GoalRule, instruction: npt.NDArray[Any], rows: Sequence[npt.NDArray[Any]]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any], int, bool]:
    """What an environment of this rule does, step by step: rewards, shown goals, row of the end, terminated."""
    shown = [instruction.copy()]
    rewards: list[float] = []
    active = 0
    for row in range(1, len(rows)):
        is_met = active < len(instruction) and any(_matches(rule, goal, instruction[active]) for goal in rows[row])
        rewards.append(rule.reward if is_met else rule.step_reward)
        goals = shown[-1].copy()
        if is_met and not rule.persistent:
            if rule.marker is not None:
                goals[active] = rule.marker
            active += 1
        shown.append(goals)
        if rule.terminates and not rule.persistent and active == len(instruction):
            return np.array(rewards, np.float32), np.array(shown), row, True
    return np.array(rewards, np.float32), np.array(shown), len(rows) - 1, False


def _matches(rule: GoalRule, goal: npt.NDArray[Any], desired: npt.NDArray[Any]) -> bool:
    if rule.match == "equal":
        return goal.tolist() == desired.tolist()
    return bool(np.linalg.norm(goal.astype(float) - desired.astype(float)) <= rule.tolerance)


def rules() -> st.SearchStrategy[GoalRule]:
    """Rules of instructions of several goals."""
    return st.builds(
        GoalRule,
        match=st.sampled_from(["equal", "within"]),
        tolerance=st.sampled_from([0.0, 1.0]),
        reward=st.sampled_from([1.0, 0.5]),
        step_reward=st.sampled_from([0.0, -0.25]),
        marker=st.sampled_from([-1.0, None]),
        terminates=st.booleans(),
    )


def goal_episodes(
    rule: st.SearchStrategy[GoalRule] | None = None, *, num_goals: st.SearchStrategy[int] | None = None
) -> st.SearchStrategy[tuple[GoalRule, Episode]]:
    """Episodes of up to 30 steps with 0 to 3 goals per step, and the rule that they obey."""

    def build(rule: GoalRule, seed: int, length: int, num_goals: int, goals_per_row: Sequence[int]) -> Any:
        episode = make_episode(length, num_goals=num_goals, goals_per_row=goals_per_row, rule=rule, seed=seed)
        return rule, episode

    return st.builds(
        build,
        rules() if rule is None else rule,
        st.integers(0, 2**32),
        st.integers(1, 30),
        st.integers(1, 4) if num_goals is None else num_goals,
        st.sampled_from([(1,), (0, 1), (0, 1, 2, 3), (0,)]),
    )


_DTYPES = ("float32", "float64", "float16", "int64", "int32", "int8", "uint8", "uint16", "bool")


@st.composite
def episodes(draw: Callable[..., Any]) -> Episode:
    """Episodes of every kind of space, with and without achieved goals and masks, from one transition on."""
    num_transitions = draw(st.integers(1, 9))
    num_rows = num_transitions + 1
    names = draw(st.lists(st.sampled_from(["z", "a", "nested/b", "observation", "ü"]), min_size=1, unique=True))
    observations = {
        name: _array(draw, num_rows, draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=3))) for name in names
    }
    actions = draw(
        st.sampled_from(
            [
                np.arange(num_transitions, dtype=np.int64) * 300,
                np.arange(num_transitions * 2, dtype=np.int64).reshape(-1, 2),
                np.ones((num_transitions, 3), np.int8),
                np.linspace(-1, 1, num_transitions * 4, dtype=np.float32).reshape(-1, 2, 2),
            ]
        )
    )
    achieved = None
    if draw(st.booleans()):
        counts = draw(st.lists(st.integers(0, 3), min_size=num_rows, max_size=num_rows))
        goal_dim = draw(st.integers(1, 3))
        dtype = draw(st.sampled_from(["int32", "float32", "int64"]))
        achieved = to_achieved([np.arange(count * goal_dim).reshape(count, goal_dim).astype(dtype) for count in counts])
    number = st.integers(-(2**63), 2**63 - 1)
    return Episode(
        observations=observations,
        actions=actions,
        rewards=np.linspace(-1, 1, num_transitions, dtype=np.float32),
        terminated=draw(st.booleans()),
        truncated=draw(st.booleans()),
        episode_id=EpisodeId(*(draw(number) for _ in range(4))),
        env_name=draw(st.text(max_size=8)),
        seed=draw(number),
        first_policy_version=PolicyVersion(draw(number), 0),
        last_policy_version=PolicyVersion(0, draw(number)),
        achieved_goals=achieved,
        action_mask=_array(draw, num_rows, (4,), "bool") if draw(st.booleans()) else None,
    )


def _array(
    draw: Callable[..., Any], num_rows: int, shape: tuple[int, ...], dtype: str | None = None
) -> npt.NDArray[Any]:
    dtype = dtype or draw(st.sampled_from(_DTYPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return (
        (rng.random((num_rows, *shape)) * 255).astype(dtype)
        if dtype != "bool"
        else rng.random((num_rows, *shape)) < 0.5
    )


def assert_equal_episodes(found: Episode, expected: Episode) -> None:
    """All columns and fields are equal, dtypes included."""
    assert sorted(found.observations) == sorted(expected.observations)
    pairs = [(found.observations[name], leaf) for name, leaf in expected.observations.items()]
    pairs += [(found.actions, expected.actions), (found.rewards, expected.rewards)]
    assert (found.achieved_goals is None) == (expected.achieved_goals is None)
    if found.achieved_goals is not None and expected.achieved_goals is not None:
        pairs.append((found.achieved_goals.values, expected.achieved_goals.values))
        pairs.append((found.achieved_goals.offsets, expected.achieved_goals.offsets))
    assert (found.action_mask is None) == (expected.action_mask is None)
    if found.action_mask is not None and expected.action_mask is not None:
        pairs.append((found.action_mask, expected.action_mask))
    for left, right in pairs:
        assert left.dtype == right.dtype
        assert left.shape == right.shape
        assert left.tobytes() == right.tobytes()
    for name in (
        "terminated",
        "truncated",
        "episode_id",
        "env_name",
        "seed",
        "first_policy_version",
        "last_policy_version",
    ):
        assert getattr(found, name) == getattr(expected, name)
        assert type(getattr(found, name)) is type(getattr(expected, name))


def stored_episodes(directory: Path) -> list[Episode]:
    """What the files of a shard's directory hold, oldest first."""
    episodes = []
    for path in find_segments(directory):
        schema, encoded = read_stream(path.read_bytes(), str(path))
        episodes += [to_episode(each, schema) for each in encoded]
    return episodes
