"""How goals are met and paid: all that hindsight needs to know of an environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from amago_ray.config.module_attr import load_module_attr
from amago_ray.data.episode import AchievedGoals
from amago_ray.errors import DataError

NOT_COMPLETED = -1
"""Completion row of a goal that was never met."""


@dataclass(frozen=True)
class GoalRule:
    """The reward rule of a goal-conditioned environment, as data.

    `desired_goal [I, goal_dim]` holds an instruction: goals to be met in order. Row 0 completes nothing; after
    each step at most one goal, the active one, completes, if any goal achieved in that row matches it.
    """

    match: Literal["equal", "within"] = "equal"
    """"equal": all entries equal; "within": Euclidean distance at most `tolerance`."""
    tolerance: float = 0.0
    reward: float = 1.0
    """Reward of the step that completes a goal."""
    step_reward: float = 0.0
    """Reward of every other step."""
    marker: float | None = -1.0
    """Value that overwrites completed goals in `desired_goal`; None where they stay as they were."""
    terminates: bool = True
    """Whether completing the last goal ends the episode (`terminated`)."""
    persistent: bool = False
    """Single goals that never complete: `reward` is paid at every step that matches (Fetch-like tasks)."""
    custom: str | None = None
    """`module:attr` of an exotic rule, in a module that needs neither torch nor the environment: a function with
    the arguments and result of `replay_instruction`. It decides everything; the other fields are its parameters."""


@dataclass(frozen=True)
class GoalReplay:
    """What an episode of T transitions would have been paid for an instruction of I goals.

    completion_rows `[I]` int64: row at which each goal completed, `NOT_COMPLETED` where it never did.
    rewards `[T]` float32: of every step, those after `end_row` without meaning.
    active_goal `[T+1]` int64: index of the first goal not yet completed at each row; k where all are.
    end_row: row at which the episode ends; T where the instruction does not end it.
    terminates: whether the instruction, completed, ends it there.
    """

    completion_rows: npt.NDArray[np.int64]
    rewards: npt.NDArray[np.float32]
    active_goal: npt.NDArray[np.int64]
    end_row: int
    terminates: bool


ReplayFunction = Callable[[GoalRule, npt.NDArray[Any], AchievedGoals, int], GoalReplay]


def replay_instruction(
    rule: GoalRule, instruction: npt.NDArray[Any], achieved: AchievedGoals, num_transitions: int
) -> GoalReplay:
    """Pay an episode for `instruction [I, goal_dim]`, given what it achieved in each row.

    Raises:
        ConfigError: `rule.custom` cannot be imported.
        DataError: a persistent rule is given more than one goal.
    """
    if rule.custom is not None:
        return _load_custom(rule.custom)(rule, instruction, achieved, num_transitions)
    rewards = np.full(num_transitions, rule.step_reward, np.float32)
    active = np.zeros(num_transitions + 1, np.int64)
    rows = np.full(len(instruction), NOT_COMPLETED, np.int64)
    if rule.persistent:
        if len(instruction) != 1:
            raise DataError(f"goal rule: expected 1 goal where goals are persistent, got {len(instruction)}")
        rewards[_matching_rows(rule, instruction[0], achieved) - 1] = rule.reward
        return GoalReplay(rows, rewards, active, num_transitions, False)
    completed = completed_rows(rule, instruction, achieved)
    for index, row in enumerate(completed):
        rows[index] = row
        rewards[row - 1] = rule.reward
        active[row:] = index + 1
    ends = rule.terminates and 0 < len(completed) == len(instruction)
    return GoalReplay(rows, rewards, active, completed[-1] if ends else num_transitions, ends)


def completed_rows(rule: GoalRule, instruction: npt.NDArray[Any], achieved: AchievedGoals) -> list[int]:
    """Rows at which the first goals of `instruction [I, goal_dim]` complete, in order; shorter than I if not all do."""
    if rule.custom is not None:
        replay = replay_instruction(rule, instruction, achieved, len(achieved.offsets) - 2)
        return [int(row) for row in replay.completion_rows if row != NOT_COMPLETED]
    if rule.persistent:
        return []
    values, offsets = achieved.values, achieved.offsets
    rows: list[int] = []
    row = 0
    for goal in instruction:
        if row + 1 >= len(offsets) - 1:
            break
        start = int(offsets[row + 1])
        matches = match_goals(rule, values[start:], goal)
        if not len(matches):
            break
        first = int(matches.argmax())
        if not matches[first]:
            break
        row = int(offsets.searchsorted(start + first, side="right")) - 1
        rows.append(row)
    return rows


def match_goals(rule: GoalRule, values: npt.NDArray[Any], goal: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether each of the achieved `values [J, goal_dim]` matches `goal [goal_dim]`."""
    if rule.match == "within":
        distances = np.linalg.norm(values.astype(np.float64) - goal.astype(np.float64), axis=-1)
        return np.asarray(distances <= rule.tolerance)
    matches: npt.NDArray[np.bool_] = values[:, 0] == goal[0]
    for entry in range(1, len(goal)):
        matches &= values[:, entry] == goal[entry]
    return matches


def mark_completed(
    rule: GoalRule, instruction: npt.NDArray[Any], completion_rows: npt.NDArray[np.int64], num_rows: int
) -> npt.NDArray[Any]:
    """The goals `[T+1, I, goal_dim]` as observed: completed ones overwritten by the marker from their row on."""
    goals = np.empty((num_rows, *instruction.shape), instruction.dtype)
    goals[:] = instruction
    if rule.marker is not None:
        for index, row in enumerate(completion_rows.tolist()):
            if row != NOT_COMPLETED:
                goals[row:, index] = rule.marker
    return goals


def _matching_rows(rule: GoalRule, goal: npt.NDArray[Any], achieved: AchievedGoals) -> npt.NDArray[np.int64]:
    """Rows from 1 on in which some achieved goal matches; a row may be listed more than once."""
    entries = np.flatnonzero(match_goals(rule, achieved.values, goal))
    rows: npt.NDArray[np.int64] = achieved.offsets.searchsorted(entries, side="right") - 1
    return rows[rows >= 1]


@lru_cache(maxsize=16)
def _load_custom(path: str) -> ReplayFunction:
    function: ReplayFunction = load_module_attr("goal rule: custom", path)
    return function
