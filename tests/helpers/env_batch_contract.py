"""What every `EnvBatch` must do. Each check takes a `Case`; tests run all of `CHECKS` over all cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from amago_ray.data.goal_rule import GoalRule
from amago_ray.data.specs import ActionSpec
from amago_ray.envs.columns import split_goals
from amago_ray.envs.env_batch import EnvBatch, Observations


@dataclass(frozen=True)
class Case:
    """How to make a batch of E environments, and what may be expected of it.

    heeds_seeds: every reset begins the episode that its seed names. resets_running: a running episode can be given up.
    """

    make: Callable[[int], EnvBatch]
    heeds_seeds: bool = True
    resets_running: bool = True
    num_envs: int = 4
    num_steps: int = 60


@dataclass
class Collected:
    """One whole episode of environment `index`."""

    index: int
    seed: int
    observations: list[dict[str, np.ndarray]]
    achieved: list[np.ndarray]
    actions: list[np.ndarray] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    success: float | None = None


def draw_actions(spec: ActionSpec, num_envs: int, rng: np.random.Generator) -> np.ndarray:
    """Random actions in storage form."""
    if spec.kind == "box":
        return rng.uniform(-1, 1, (num_envs, *spec.shape)).astype(np.float32)
    if spec.kind == "multi_binary":
        return rng.integers(2, size=(num_envs, *spec.shape)).astype(np.int8)
    return rng.integers(spec.num_categories, size=(num_envs, len(spec.num_categories))).reshape(num_envs, *spec.shape)


def copy_rows(observations: Observations) -> tuple[list[dict[str, np.ndarray]], list[np.ndarray]]:
    """Observations and achieved goals, per environment, copied."""
    num_rows = len(next(iter(observations.leaves.values())))
    rows = [{name: column[i].copy() for name, column in observations.leaves.items()} for i in range(num_rows)]
    goals = split_goals(observations)
    return rows, [rows_i.copy() for rows_i in goals] if goals is not None else [np.zeros((0, 0))] * num_rows


def collect(batch: EnvBatch, num_steps: int, seed: int = 0) -> list[Collected]:
    """Whole episodes of random actions, collected as an env runner does; a fixed `seed` fixes all seeds and actions."""
    rng = np.random.default_rng(seed)
    running: dict[int, Collected] = {}
    finished: list[Collected] = []

    def begin(indices: np.ndarray) -> None:
        seeds = rng.integers(2**31, size=len(indices))
        rows, goals = copy_rows(batch.reset(indices, seeds))
        for place, index in enumerate(indices.tolist()):
            running[index] = Collected(index, int(seeds[place]), [rows[place]], [goals[place]])

    begin(np.arange(batch.num_envs))
    for _ in range(num_steps):
        actions = draw_actions(batch.spec.action, batch.num_envs, rng)
        columns = batch.step(actions)
        assert not columns.failures
        rows, goals = copy_rows(columns.observations)
        valid = np.ones(batch.num_envs, np.bool_) if columns.valid is None else columns.valid
        success = {event.index: event.value for event in columns.events if event.name == "success"}
        over = ~valid
        for index, episode in running.items():
            if not valid[index]:
                continue
            episode.observations.append(rows[index])
            episode.achieved.append(goals[index])
            episode.actions.append(actions[index].copy())
            episode.rewards.append(float(columns.rewards[index]))
            if columns.terminated[index] or columns.truncated[index]:
                episode.terminated, episode.truncated = bool(columns.terminated[index]), bool(columns.truncated[index])
                episode.success = success.get(index)
                finished.append(episode)
                over[index] = True
        if over.any():
            begin(np.flatnonzero(over))
    return finished


def check_columns_match_the_spec(case: Case) -> None:
    batch = case.make(case.num_envs)
    spec, num_envs = batch.spec, batch.num_envs
    assert num_envs == case.num_envs == len(batch.env_names)
    assert list(spec.observations) == sorted(spec.observations)
    assert not {"achieved_goal", "action_mask"} & set(spec.observations)

    def check(observations: Observations, num_rows: int) -> None:
        assert list(observations.leaves) == list(spec.observations)
        for name, leaf in spec.observations.items():
            column = observations.leaves[name]
            assert column.shape == (num_rows, *leaf.shape)
            assert column.dtype == leaf.dtype
        assert (observations.action_mask is not None) == spec.has_action_mask
        if observations.action_mask is not None:
            assert observations.action_mask.shape == (num_rows, spec.action.mask_size)
            assert observations.action_mask.dtype == np.bool_
            assert observations.action_mask.any(1).all()
        assert (observations.achieved_values is not None) == (spec.goal_dim > 0)
        if observations.achieved_values is not None:
            offsets = observations.achieved_offsets
            assert offsets is not None
            assert offsets.dtype == np.int32
            assert len(offsets) == num_rows + 1
            assert offsets[0] == 0
            assert (np.diff(offsets) >= 0).all()
            assert observations.achieved_values.shape == (offsets[-1], spec.goal_dim)
            assert observations.achieved_values.dtype == spec.goal_dtype

    check(batch.reset(np.arange(num_envs), np.arange(num_envs)), num_envs)
    if case.resets_running:
        check(batch.reset(np.asarray([2, 0]), np.asarray([5, 6])), 2)
    columns = batch.step(draw_actions(spec.action, num_envs, np.random.default_rng(0)))
    check(columns.observations, num_envs)
    assert columns.rewards.shape == columns.terminated.shape == columns.truncated.shape == (num_envs,)
    assert (columns.rewards.dtype, columns.terminated.dtype, columns.truncated.dtype) == (
        np.float32,
        np.bool_,
        np.bool_,
    )
    batch.close()
    batch.close()


def check_same_seeds_same_episodes(case: Case) -> None:
    first, second = (collect(case.make(case.num_envs), case.num_steps) for _ in range(2))
    assert first
    _assert_equal(first, second)


def check_an_episode_follows_from_its_seed_alone(case: Case) -> None:
    if not case.heeds_seeds:
        return
    batch = case.make(case.num_envs)
    num_envs = batch.num_envs
    twins = [index for index in range(num_envs) if batch.env_names[index] == batch.env_names[0]]
    batch.reset(np.arange(num_envs), np.arange(num_envs))
    actions = draw_actions(batch.spec.action, 1, np.random.default_rng(1)).repeat(num_envs, 0)
    for _ in range(3):
        batch.step(actions)
    rows, _ = copy_rows(batch.reset(np.arange(num_envs), np.full(num_envs, 123)))
    for name in rows[0]:
        assert all(np.array_equal(rows[twins[0]][name], rows[twin][name]) for twin in twins)
    columns = batch.step(actions)
    for column in (*columns.observations.leaves.values(), columns.rewards):
        assert (column[twins] == column[twins[0]]).all()


def check_seeds_differ(case: Case) -> None:
    if not case.heeds_seeds:
        return
    batch = case.make(case.num_envs)
    everything = np.arange(batch.num_envs)
    shown = [copy_rows(batch.reset(everything, everything + 10 * k))[0] for k in range(8)]
    assert any(not np.array_equal(rows[0][name], shown[0][0][name]) for rows in shown for name in rows[0])


def check_reset_touches_only_its_indices(case: Case) -> None:
    if not case.resets_running:
        return
    one, other = case.make(case.num_envs), case.make(case.num_envs)
    everything = np.arange(case.num_envs)
    rng = np.random.default_rng(3)
    for batch in (one, other):
        batch.reset(everything, everything + 40)
    actions = draw_actions(one.spec.action, case.num_envs, rng)
    one.step(actions)
    other.step(actions)
    one.reset(np.asarray([1]), np.asarray([99]))
    actions = draw_actions(one.spec.action, case.num_envs, rng)
    ours, theirs = one.step(actions), other.step(actions)
    untouched = everything[everything != 1]
    for name in ours.observations.leaves:
        assert np.array_equal(ours.observations.leaves[name][untouched], theirs.observations.leaves[name][untouched])
    assert np.array_equal(ours.rewards[untouched], theirs.rewards[untouched])
    assert np.array_equal(ours.terminated[untouched], theirs.terminated[untouched])


def check_episodes_end_within_the_horizon(case: Case) -> None:
    batch = case.make(case.num_envs)
    episodes = collect(batch, case.num_steps)
    assert {episode.index for episode in episodes} == set(range(case.num_envs))
    for episode in episodes:
        assert episode.terminated or episode.truncated
        assert len(episode.observations) == len(episode.rewards) + 1
        if batch.spec.horizon is not None:
            assert len(episode.rewards) <= batch.spec.horizon


def check_inputs_are_neither_kept_nor_changed(case: Case) -> None:
    batch, twin = case.make(case.num_envs), case.make(case.num_envs)
    indices, seeds = np.arange(case.num_envs), np.arange(case.num_envs) + 7
    twin.reset(indices, seeds)
    batch.reset(indices, seeds)
    assert indices.tolist() == list(range(case.num_envs))
    assert seeds.tolist() == [index + 7 for index in range(case.num_envs)]
    seeds[:] = 0
    rng = np.random.default_rng(5)
    first, second = (draw_actions(batch.spec.action, case.num_envs, rng) for _ in range(2))
    scratch = first.copy()
    batch.step(scratch)
    assert np.array_equal(scratch, first)
    scratch[:] = second
    ours = batch.step(scratch)
    twin.step(first)
    theirs = twin.step(second)
    for name in ours.observations.leaves:
        assert np.array_equal(ours.observations.leaves[name], theirs.observations.leaves[name])


def check_rewards_obey_the_goal_rule(case: Case) -> None:
    batch = case.make(case.num_envs)
    rule = batch.spec.goal_rule
    if rule is None:
        return
    episodes = collect(batch, case.num_steps)
    for episode in episodes:
        replay_rule(rule, episode)
    assert any(sum(episode.rewards) > 0 for episode in episodes), "no goal was reached: the check says nothing"


def replay_rule(rule: GoalRule, episode: Collected) -> None:
    """Assert that rewards, shown goals and end of an episode are those that its rule gives."""
    goals = episode.observations[0]["desired_goal"]
    active = 0
    for t, reward in enumerate(episode.rewards, start=1):
        hit = active < len(goals) and bool((episode.achieved[t] == goals[active]).all(-1).any())
        active += hit
        assert reward == (rule.reward if hit else rule.step_reward)
        shown = goals.copy()
        shown[:active] = rule.marker
        assert np.array_equal(episode.observations[t]["desired_goal"], shown)
        if active == len(goals):
            assert t == len(episode.rewards)
            assert episode.terminated
    assert episode.success in (None, float(active == len(goals)))


def _assert_equal(first: list[Collected], second: list[Collected]) -> None:
    assert len(first) == len(second)
    for mine, theirs in zip(first, second, strict=True):
        assert (mine.index, mine.seed, mine.rewards) == (theirs.index, theirs.seed, theirs.rewards)
        assert (mine.terminated, mine.truncated, mine.success) == (theirs.terminated, theirs.truncated, theirs.success)
        for row, other in zip(mine.observations, theirs.observations, strict=True):
            assert all(np.array_equal(row[name], other[name]) for name in row)


CHECKS: list[Callable[[Case], None]] = [
    check_columns_match_the_spec,
    check_same_seeds_same_episodes,
    check_an_episode_follows_from_its_seed_alone,
    check_seeds_differ,
    check_reset_touches_only_its_indices,
    check_episodes_end_within_the_horizon,
    check_inputs_are_neither_kept_nor_changed,
    check_rewards_obey_the_goal_rule,
]
