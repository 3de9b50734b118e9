"""What all hindsight has in common: an episode, replayed against another instruction."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from amago_ray.data.episode import AchievedGoals, Episode
from amago_ray.data.goal_rule import GoalRule, mark_completed, replay_instruction
from amago_ray.data.specs import DESIRED_GOAL
from amago_ray.errors import DataError


def achieved_goals(episode: Episode) -> AchievedGoals:
    """The achieved goals of an episode.

    Raises:
        DataError: the episode was stored without.
    """
    if episode.achieved_goals is None:
        raise DataError(f"episode {tuple(episode.episode_id)}: expected achieved goals for relabeling, got none")
    return episode.achieved_goals


def read_instruction(episode: Episode) -> npt.NDArray[Any]:
    """The instruction `[I, goal_dim]` that the episode was played with: as shown in row 0, with nothing completed."""
    instruction: npt.NDArray[Any] = episode.observations[DESIRED_GOAL][0]
    return instruction.reshape(-1, achieved_goals(episode).values.shape[1])


def replay_with(episode: Episode, instruction: npt.NDArray[Any], rule: GoalRule) -> Episode:
    """The episode as it would have been with `instruction [I, goal_dim]`: same observations otherwise, same actions.

    Rewards, shown goals and, where the instruction completes and the rule says so, the end (cut, `terminated`)
    follow from the rule. Previous rewards follow from rewards when the episode is packed.
    """
    num_transitions = len(episode)
    replay = replay_instruction(rule, instruction, achieved_goals(episode), num_transitions)
    end = replay.end_row
    shown = episode.observations[DESIRED_GOAL]
    goals = mark_completed(rule, instruction, replay.completion_rows, end + 1)
    observations = {name: leaf[: end + 1] for name, leaf in episode.observations.items()}
    observations[DESIRED_GOAL] = goals.reshape(end + 1, *shown.shape[1:])
    achieved = achieved_goals(episode)
    offsets = achieved.offsets[: end + 2]
    # Written out: `dataclasses.replace` takes as long as the rest of this function.
    return Episode(
        observations=observations,
        actions=episode.actions[:end],
        rewards=replay.rewards[:end],
        terminated=episode.terminated or replay.terminates,
        truncated=episode.truncated and not replay.terminates,
        episode_id=episode.episode_id,
        env_name=episode.env_name,
        seed=episode.seed,
        first_policy_version=episode.first_policy_version,
        last_policy_version=episode.last_policy_version,
        achieved_goals=AchievedGoals(achieved.values[: int(offsets[-1])], offsets),
        action_mask=None if episode.action_mask is None else episode.action_mask[: end + 1],
    )


def row_of_entries(achieved: AchievedGoals, entries: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The row in which each entry of `achieved.values` was achieved."""
    rows: npt.NDArray[np.int64] = achieved.offsets.searchsorted(entries, side="right") - 1
    return rows
