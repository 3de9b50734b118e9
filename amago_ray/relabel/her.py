"""Hindsight experience replay for single goals."""

from __future__ import annotations

import numpy as np

from amago_ray.config.relabel import HerRelabelConfig
from amago_ray.data.episode import Episode
from amago_ray.data.goal_rule import GoalRule
from amago_ray.relabel.hindsight import achieved_goals, read_instruction, replay_with, row_of_entries
from amago_ray.relabel.relabeler import Relabeler


class HerRelabeler(Relabeler):
    """Replaces, with a given probability, an episode's single goal by one that it achieved.

    Source: docs/algorithm.md §11.2; Andrychowicz et al. (arXiv 1707.01495), section 4.5, strategies "future" and
    "final".
    Differs: one goal for the whole episode, since the policy reads it whole: "future" draws a step uniformly, then a
    goal achieved after it. The paper draws a goal for each transition.
    """

    def __init__(self, config: HerRelabelConfig, rule: GoalRule) -> None:
        self._config = config
        self._rule = rule

    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        """The episode with an achieved goal; itself where chance says so, or where it achieved nothing."""
        if rng.random() >= self._config.her_probability:
            return episode
        entry = self.choose(episode, rng)
        return episode if entry is None else self.apply(episode, entry)

    def choose(self, episode: Episode, rng: np.random.Generator) -> int | None:
        """Draw the new goal, as an index into the achieved goals; None where nothing was achieved after row 0."""
        achieved = achieved_goals(episode)
        first, end = int(achieved.offsets[1]), len(achieved.values)
        if first == end:
            return None
        last_row = int(row_of_entries(achieved, np.array([end - 1]))[0])
        if self._config.her_strategy == "final":
            return int(rng.integers(achieved.offsets[last_row], end))
        # Steps after the last achievement have no future to draw from.
        step = int(rng.integers(last_row))
        later = np.flatnonzero(np.diff(achieved.offsets[step + 1 :])) + step + 1
        row = int(later[rng.integers(len(later))])
        return int(rng.integers(achieved.offsets[row], achieved.offsets[row + 1]))

    def apply(self, episode: Episode, entry: int) -> Episode:
        """Replay the episode with goal `entry` of the achieved ones."""
        goals = achieved_goals(episode).values[entry : entry + 1]
        return replay_with(episode, goals.astype(read_instruction(episode).dtype), self._rule)
