"""Instruction relabeling against recorded runs of the original, with its draws injected.

Further recordings are those of the directory named by AMAGO_RAY_PARITY_DIR.
"""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from amago_ray.config.relabel import InstructionRelabelConfig
from amago_ray.data import AchievedGoals, Episode, EpisodeId, GoalRule, PolicyVersion
from amago_ray.data.packing import EpisodeSlice, pack_sequences
from amago_ray.relabel.instruction import InstructionRelabeler, RelabelChoice

DATA = Path(__file__).parent / "data"
OTHERS = Path(os.environ.get("AMAGO_RAY_PARITY_DIR") or DATA)
CASES = [path for place in dict.fromkeys([DATA, OTHERS]) for path in sorted(place.glob("hindsight_[0-9]*.npz"))]
RUNS = [
    pytest.param(case, tag, id=f"{case.stem}-{tag}")
    for case in CASES
    for tag in json.loads(case.with_suffix(".json").read_text())["runs"]
]
RULE = GoalRule()


@cache
def load(case):
    with np.load(case) as file:
        return {name: file[name] for name in file.files}


def to_episode(arrays):
    achieved = arrays["in/obs/achieved"][:, 0]
    columns = (arrays["in/obs/obs"], arrays["in/obs/goals"], achieved)
    for column in columns:
        column.flags.writeable = False
    return Episode(
        observations={"observation": columns[0], "desired_goal": columns[1]},
        actions=arrays["in/actions"].argmax(-1),
        rewards=arrays["in/rews"][:, 0],
        terminated=bool(arrays["in/dones"][-1, 0]),
        truncated=False,
        episode_id=EpisodeId(0, 0, 0, 0),
        env_name="maze",
        seed=0,
        first_policy_version=PolicyVersion(0, 0),
        last_policy_version=PolicyVersion(0, 0),
        achieved_goals=AchievedGoals(achieved, np.arange(len(achieved) + 1, dtype=np.int32)),
    )


def relabel(arrays, tag):
    """The episode, relabeled with the recorded draws of a run."""
    episode = to_episode(arrays)
    strategy = tag.removesuffix("_partial")
    relabeler = InstructionRelabeler(InstructionRelabelConfig(strategy=strategy), RULE)
    entries = arrays.get(f"{tag}/choices/sampled_timesteps", np.empty(0, np.int64))
    choice = RelabelChoice(entries, relabeler.completed_rows(episode))
    return episode, relabeler, relabeler.apply(episode, choice)


def test_there_are_twelve_cases_of_four_runs():
    assert len([case for case in CASES if case.parent == DATA]) == 12
    assert len(RUNS) == 4 * len(CASES)


@pytest.mark.parametrize(("case", "tag"), RUNS)
def test_outputs_are_bitwise_those_of_the_original(case, tag):
    arrays = load(case)
    episode, _, relabeled = relabel(arrays, tag)
    batch = pack_sequences([EpisodeSlice(relabeled, 0, len(relabeled))])
    one_hot = np.eye(5, dtype=np.float32)
    previous = one_hot[batch.prev_action]
    previous[0] = 0
    terminated = np.zeros(len(relabeled), np.bool_)
    terminated[-1] = relabeled.terminated
    found = {
        "obs/obs": batch.observations["observation"],
        "obs/goals": batch.observations["desired_goal"],
        "rl2s": np.concatenate([batch.prev_reward[:, None], previous], axis=1),
        "time_idxs": batch.time_index[:, None],
        "rews": batch.reward[:, None],
        "dones": terminated[:, None],
        "actions": one_hot[batch.action],
    }
    np.testing.assert_array_equal(batch.terminated, terminated)
    for name, values in found.items():
        expected = arrays[f"{tag}/out/{name}"]
        assert values.dtype == expected.dtype, name
        assert values.shape == expected.shape, name
        assert values.tobytes() == expected.tobytes(), name
    if json.loads(case.with_suffix(".json").read_text())["runs"][tag]["unchanged"]:
        assert relabeled is episode


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_stored_rewards_follow_from_the_rule(case):
    arrays = load(case)
    episode = to_episode(arrays)
    relabeler = InstructionRelabeler(InstructionRelabelConfig(), RULE)
    rows = relabeler.completed_rows(episode)
    assert len(rows) == int(arrays["num_completed"])
    np.testing.assert_array_equal(np.flatnonzero(episode.rewards) + 1, rows)


def test_a_goal_met_at_the_start_does_not_reward_the_last_step():
    arrays = load(DATA / "hindsight_edge_first_goal_equals_start.npz")
    episode, _, relabeled = relabel(arrays, "all")
    start = episode.achieved_goals.values[0]
    first_goal = relabeled.observations["desired_goal"][0, 0]
    np.testing.assert_array_equal(first_goal, start)
    sampled = sorted(arrays["all/choices/sampled_timesteps"].tolist())
    np.testing.assert_array_equal(
        relabeled.achieved_goals.values[np.flatnonzero(relabeled.rewards) + 1], episode.achieved_goals.values[sampled]
    )
    assert relabeled.rewards.sum() == 2
    assert np.flatnonzero(relabeled.rewards)[0] + 1 <= sampled[0]
    assert (len(relabeled), relabeled.terminated) == (np.flatnonzero(relabeled.rewards)[1] + 1, True)
    assert (relabeled.observations["desired_goal"][0] != -1).all()
    assert arrays["all/out/rews"].sum() == 1


def test_a_relabeled_episode_has_at_least_one_transition():
    arrays = load(DATA / "hindsight_edge_zero_length.npz")
    _, _, relabeled = relabel(arrays, "all")
    assert len(arrays["all/out/rews"]) == 0
    (sampled,) = arrays["all/choices/sampled_timesteps"]
    assert 1 <= len(relabeled) <= sampled
    assert relabeled.rewards.tolist() == [0] * (len(relabeled) - 1) + [1]
    assert relabeled.terminated


def test_a_row_that_completed_a_real_goal_is_never_drawn():
    arrays = load(DATA / "hindsight_edge_duplicate_of_real_goal.npz")
    episode, relabeler, _ = relabel(arrays, "all")
    (completed,) = relabeler.completed_rows(episode)
    assert arrays["all/choices/sampled_timesteps"].tolist() == [completed]
    drawn = {int(relabeler.choose(episode, np.random.default_rng(seed)).entries[0]) for seed in range(2000)}
    assert drawn == set(range(1, len(episode) + 1)) - {completed}
