"""How goals are met and paid: all that hindsight needs to know of an environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GoalRule:
    """The reward rule of a goal-conditioned environment, as data.

    `desired_goal [k, goal_dim]` holds an instruction: goals to be met in order. Row 0 completes nothing; after
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
    """`module:attr` of an exotic rule, in a module that needs neither torch nor the environment."""
