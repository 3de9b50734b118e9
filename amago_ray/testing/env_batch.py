"""What every `EnvBatch` must do. Each check takes a `Case`; `check_env_batch` runs all of `CHECKS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from amago_ray.data.goal_rule import GoalRule
from amago_ray.data.specs import ACHIEVED_GOAL, ACTION_MASK, DESIRED_GOAL, ActionSpec, EnvSpec
from amago_ray.envs.columns import split_goals
from amago_ray.envs.env_batch import EnvBatch, Observations, StepColumns

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """How to make a batch of E environments, and what may be expected of it.

    heeds_seeds: every reset begins the episode that its seed names. resets_running: a running episode can be given up.
    num_envs: at least 3. num_steps: enough for every environment to end an episode, and to meet a goal if it has some.
    """

    make: Callable[[int], EnvBatch]
    heeds_seeds: bool = True
    resets_running: bool = True
    num_envs: int = 4
    num_steps: int = 60


def check_env_batch(
    make: Callable[[int], EnvBatch],
    *,
    heeds_seeds: bool = True,
    resets_running: bool = True,
    num_envs: int = 4,
    num_steps: int = 60,
) -> None:
    """Run all checks on the batches that `make(num_envs)` gives; see `Case` for what may be expected of them.

    Raises:
        AssertionError: one does not hold.
    """
    case = Case(make, heeds_seeds, resets_running, num_envs, num_steps)
    for check in CHECKS:
        check(case)


@dataclass
class Collected:
    """One whole episode of environment `index`."""

    index: int
    seed: int
    observations: list[dict[str, Array]]
    achieved: list[Array]
    actions: list[Array] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    success: float | None = None


def draw_actions(spec: ActionSpec, num_envs: int, rng: np.random.Generator) -> Array:
    """Random actions in storage form."""
    if spec.kind == "box":
        return rng.uniform(-1, 1, (num_envs, *spec.shape)).astype(np.float32)
    if spec.kind == "multi_binary":
        return rng.integers(2, size=(num_envs, *spec.shape)).astype(np.int8)
    return rng.integers(spec.num_categories, size=(num_envs, len(spec.num_categories))).reshape(num_envs, *spec.shape)


def collect(batch: EnvBatch, num_steps: int, seed: int = 0) -> list[Collected]:
    """Whole episodes of random actions, collected as an env runner does; a fixed `seed` fixes all seeds and actions."""
    rng = np.random.default_rng(seed)
    running: dict[int, Collected] = {}
    finished: list[Collected] = []

    def begin(indices: npt.NDArray[np.int64]) -> None:
        seeds = rng.integers(2**31, size=len(indices))
        rows, goals = _copy_rows(batch.reset(indices, seeds))
        for place, index in enumerate(indices.tolist()):
            running[index] = Collected(index, int(seeds[place]), [rows[place]], [goals[place]])

    begin(np.arange(batch.num_envs))
    for _ in range(num_steps):
        actions = draw_actions(batch.spec.action, batch.num_envs, rng)
        columns = batch.step(actions)
        assert not columns.failures, f"environment {columns.failures[0].index} failed: {columns.failures[0].message}"
        rows, goals = _copy_rows(columns.observations)
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
    """Reset and step return what the spec says, row for row; closing twice is fine."""
    batch = case.make(case.num_envs)
    spec, num_envs = batch.spec, batch.num_envs
    assert num_envs == case.num_envs, f"expected {case.num_envs} environments, got num_envs {num_envs}"
    assert len(batch.env_names) == num_envs, f"env_names: expected {num_envs} names, got {len(batch.env_names)}"
    assert list(spec.observations) == sorted(spec.observations), "spec.observations: expected leaves sorted by name"
    unread = {ACHIEVED_GOAL, ACTION_MASK} & set(spec.observations)
    assert not unread, f"spec.observations: expected what the policy reads, got {unread}"
    _check_observations(batch.reset(np.arange(num_envs), np.arange(num_envs)), spec, num_envs)
    if case.resets_running:
        _check_observations(batch.reset(np.asarray([2, 0]), np.asarray([5, 6])), spec, 2)
    columns = batch.step(draw_actions(spec.action, num_envs, np.random.default_rng(0)))
    _check_observations(columns.observations, spec, num_envs)
    for name, dtype in (("rewards", np.float32), ("terminated", np.bool_), ("truncated", np.bool_)):
        _check_column(name, getattr(columns, name), (num_envs,), dtype)
    batch.close()
    batch.close()


def check_same_seeds_same_episodes(case: Case) -> None:
    """Two batches that are given the same seeds and actions return the same episodes."""
    first, second = (collect(case.make(case.num_envs), case.num_steps) for _ in range(2))
    assert first, f"no episode ended in {case.num_steps} steps: the check says nothing"
    assert len(first) == len(second), f"equal seeds and actions: {len(first)} episodes ended, then {len(second)}"
    for mine, theirs in zip(first, second, strict=True):
        where = f"environment {mine.index}, seed {mine.seed}: with equal actions"
        for name in ("index", "seed", "rewards", "terminated", "truncated", "success"):
            one, other = getattr(mine, name), getattr(theirs, name)
            assert one == other, f"{where} {name} are {one}, then {other}"
        for row, again in zip(mine.observations, theirs.observations, strict=True):
            for name in row:
                assert np.array_equal(row[name], again[name]), f"{where} observation '{name}' differs"


def check_an_episode_follows_from_its_seed_alone(case: Case) -> None:
    """Environments of one name that are given one seed and one action are alike, whatever was before."""
    if not case.heeds_seeds:
        return
    batch = case.make(case.num_envs)
    num_envs = batch.num_envs
    twins = [index for index in range(num_envs) if batch.env_names[index] == batch.env_names[0]]
    batch.reset(np.arange(num_envs), np.arange(num_envs))
    actions = draw_actions(batch.spec.action, 1, np.random.default_rng(1)).repeat(num_envs, 0)
    for _ in range(3):
        batch.step(actions)
    _assert_twins(batch.reset(np.arange(num_envs), np.full(num_envs, 123)).leaves, twins)
    columns = batch.step(actions)
    _assert_twins({**columns.observations.leaves, "reward": columns.rewards}, twins)


def check_seeds_differ(case: Case) -> None:
    """Seeds are heeded: not all of eight worlds are the same."""
    if not case.heeds_seeds:
        return
    batch = case.make(case.num_envs)
    everything = np.arange(batch.num_envs)
    shown = [_copy_rows(batch.reset(everything, everything + 10 * k))[0] for k in range(8)]
    differ = any(not np.array_equal(rows[0][name], shown[0][0][name]) for rows in shown for name in rows[0])
    assert differ, "eight seeds began with the same observation"


def check_reset_touches_only_its_indices(case: Case) -> None:
    """A reset of one environment leaves the others' episodes as they were."""
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
    ours, theirs = _columns(one.step(actions)), _columns(other.step(actions))
    untouched = everything[everything != 1]
    for name in ours:
        assert np.array_equal(ours[name][untouched], theirs[name][untouched]), (
            f"the reset of one environment changed '{name}' of others"
        )


def check_episodes_end_within_the_horizon(case: Case) -> None:
    """Every environment ends episodes, none later than the spec says, each with the rows that it must have."""
    batch = case.make(case.num_envs)
    episodes = collect(batch, case.num_steps)
    without = set(range(case.num_envs)) - {episode.index for episode in episodes}
    assert not without, f"environments {sorted(without)} ended no episode in {case.num_steps} steps"
    horizon = batch.spec.horizon
    for episode in episodes:
        length = len(episode.rewards)
        assert horizon is None or length <= horizon, f"spec.horizon: expected at most {horizon} steps, got {length}"


def check_inputs_are_neither_kept_nor_changed(case: Case) -> None:
    """Indices, seeds and actions may be reused by the caller, and come back as they were."""
    batch, twin = case.make(case.num_envs), case.make(case.num_envs)
    indices, seeds = np.arange(case.num_envs), np.arange(case.num_envs) + 7
    twin.reset(indices.copy(), seeds.copy())
    batch.reset(indices, seeds)
    assert indices.tolist() == list(range(case.num_envs)), "reset changed the indices that it was given"
    assert seeds.tolist() == [index + 7 for index in range(case.num_envs)], "reset changed the seeds that it was given"
    seeds[:] = 0
    rng = np.random.default_rng(5)
    first, second = (draw_actions(batch.spec.action, case.num_envs, rng) for _ in range(2))
    scratch = first.copy()
    batch.step(scratch)
    assert np.array_equal(scratch, first), "step changed the actions that it was given"
    scratch[:] = second
    ours = _columns(batch.step(scratch))
    twin.step(first)
    theirs = _columns(twin.step(second))
    for name in ours:
        assert np.array_equal(ours[name], theirs[name]), f"'{name}' follows from arrays that the caller has changed"


def check_rewards_obey_the_goal_rule(case: Case) -> None:
    """Rewards, shown goals and ends are those of the spec's goal rule; some goal is reached."""
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
    goals = episode.observations[0][DESIRED_GOAL]
    active = 0
    for t, reward in enumerate(episode.rewards, start=1):
        where = f"environment {episode.index}, seed {episode.seed}, step {t}"
        hit = active < len(goals) and bool((episode.achieved[t] == goals[active]).all(-1).any())
        active += hit
        paid = rule.reward if hit else rule.step_reward
        assert reward == paid, f"{where}: expected reward {paid} by the goal rule, got {reward}"
        shown = goals.copy()
        shown[:active] = rule.marker
        found = episode.observations[t][DESIRED_GOAL]
        assert np.array_equal(found, shown), f"{where}: expected goals {shown.tolist()}, got {found.tolist()}"
        if active == len(goals):
            ends = t == len(episode.rewards) and episode.terminated
            assert ends, f"{where}: expected the episode to terminate with its last goal"
    met = float(active == len(goals))
    assert episode.success in (None, met), f"{where}: expected success {met}, got {episode.success}"


def _check_observations(observations: Observations, spec: EnvSpec, num_rows: int) -> None:
    expected, found = list(spec.observations), list(observations.leaves)
    assert found == expected, f"observations: expected leaves {expected} in this order, got {found}"
    for name, leaf in spec.observations.items():
        _check_column(f"observation '{name}'", observations.leaves[name], (num_rows, *leaf.shape), leaf.dtype)
    mask = observations.action_mask
    assert (mask is not None) == spec.has_action_mask, f"action_mask: expected one, or none, as the spec says: {mask}"
    if mask is not None:
        _check_column("action_mask", mask, (num_rows, spec.action.mask_size), np.bool_)
        assert mask.any(1).all(), "action_mask: expected an allowed action in every row"
    values, offsets = observations.achieved_values, observations.achieved_offsets
    has_goals = spec.goal_dim > 0
    assert (values is not None) == (offsets is not None) == has_goals, "achieved goals: expected as spec.goal_dim says"
    if values is not None and offsets is not None:
        _check_column("achieved_offsets", offsets, (num_rows + 1,), np.int32)
        assert offsets[0] == 0, f"achieved_offsets: expected to begin with 0, got {offsets[0]}"
        assert (np.diff(offsets) >= 0).all(), "achieved_offsets: expected offsets that never fall"
        _check_column("achieved_values", values, (int(offsets[-1]), spec.goal_dim), spec.goal_dtype)


def _check_column(name: str, column: Array, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
    expected = f"{np.dtype(dtype).name}{list(shape)}"
    found = f"{column.dtype.name}{list(column.shape)}"
    assert found == expected, f"{name}: expected {expected}, got {found}"


def _assert_twins(columns: Mapping[str, Array], twins: list[int]) -> None:
    for name, column in columns.items():
        alike = all(np.array_equal(column[twins[0]], column[twin]) for twin in twins)
        assert alike, f"'{name}' differs between environments of one seed: an episode must follow from its seed alone"


def _columns(columns: StepColumns) -> dict[str, Array]:
    leaves = {name: leaf.copy() for name, leaf in columns.observations.leaves.items()}
    return {**leaves, "rewards": columns.rewards.copy(), "terminated": columns.terminated.copy()}


def _copy_rows(observations: Observations) -> tuple[list[dict[str, Array]], list[Array]]:
    """Observations and achieved goals, per environment, copied."""
    num_rows = len(next(iter(observations.leaves.values())))
    rows = [{name: column[i].copy() for name, column in observations.leaves.items()} for i in range(num_rows)]
    goals = split_goals(observations)
    return rows, [each.copy() for each in goals] if goals is not None else [np.zeros((0, 0))] * num_rows


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_columns_match_the_spec,
    check_same_seeds_same_episodes,
    check_inputs_are_neither_kept_nor_changed,
    check_an_episode_follows_from_its_seed_alone,
    check_seeds_differ,
    check_reset_touches_only_its_indices,
    check_episodes_end_within_the_horizon,
    check_rewards_obey_the_goal_rule,
)
