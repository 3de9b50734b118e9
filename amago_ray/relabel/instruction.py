"""Hindsight instruction relabeling: unmet goals of an instruction replaced by goals that were met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from amago_ray.config.relabel import InstructionRelabelConfig
from amago_ray.data.episode import Episode
from amago_ray.data.goal_rule import GoalRule, completed_rows
from amago_ray.relabel.hindsight import achieved_goals, read_instruction, replay_with, row_of_entries
from amago_ray.relabel.rarity import GoalFrequencies
from amago_ray.relabel.relabeler import Relabeler


@dataclass(frozen=True)
class RelabelChoice:
    """The random part of a relabeling.

    entries `[h]` int64: the new goals, as indices into the episode's achieved goals, at most one per row, none of a
    row that completed a real goal; in any order.
    completed_rows: the rows that completed the first n real goals.
    """

    entries: npt.NDArray[np.int64]
    completed_rows: tuple[int, ...]


_NO_ENTRIES: npt.NDArray[np.int64] = np.empty(0, np.int64)


class InstructionRelabeler(Relabeler):
    """Relabels an episode that met n of k goals with h further goals that it achieved.

    Source: docs/algorithm.md §11.1; AMAGO (arXiv 2310.09971), section 3.2 and appendix on hindsight instruction
    relabeling.
    Differs: row T may be drawn; a row that completed a real goal may not; row 0 completes nothing. So a relabeled
    episode has at least one transition, and no reward ever lands at the other end of it.
    """

    def __init__(self, config: InstructionRelabelConfig, rule: GoalRule) -> None:
        self._config = config
        self._rule = rule
        self._frequencies: GoalFrequencies | None = None
        if config.weighting != "uniform":
            self._frequencies = GoalFrequencies("step" if config.weighting == "rarity_per_step" else "episode")
        self.watches_storage = self._frequencies is not None

    def observe(self, episode: Episode) -> None:
        """Count what a stored episode achieved."""
        if self._frequencies is not None:
            self._frequencies.add(achieved_goals(episode))

    def forget(self, episode: Episode) -> None:
        """Take back what a removed episode achieved."""
        if self._frequencies is not None:
            self._frequencies.remove(achieved_goals(episode))

    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        """The episode with new goals; itself where none is chosen."""
        return self.apply(episode, self.choose(episode, rng))

    def completed_rows(self, episode: Episode) -> tuple[int, ...]:
        """The rows that completed the first n goals of the episode's own instruction."""
        return tuple(completed_rows(self._rule, read_instruction(episode), achieved_goals(episode)))

    def choose(self, episode: Episode, rng: np.random.Generator) -> RelabelChoice:
        """Draw how many new goals, and which."""
        completed = self.completed_rows(episode)
        num_unmet = len(read_instruction(episode)) - len(completed)
        num_new = self._draw_num_new(num_unmet, rng)
        if num_new == 0:
            return RelabelChoice(_NO_ENTRIES, completed)
        return RelabelChoice(self._draw_entries(episode, completed, num_new, rng), completed)

    def apply(self, episode: Episode, choice: RelabelChoice) -> Episode:
        """Merge new and completed goals by time over the front of the instruction, and replay."""
        if not len(choice.entries):
            return episode
        achieved = achieved_goals(episode)
        instruction = read_instruction(episode).copy()
        rows = row_of_entries(achieved, choice.entries).tolist()
        goals: list[tuple[int, npt.NDArray[Any]]] = [
            *zip(choice.completed_rows, instruction.copy(), strict=False),
            *zip(rows, achieved.values[choice.entries], strict=True),
        ]
        goals.sort(key=lambda dated: dated[0])
        for index, (_, goal) in enumerate(goals):
            instruction[index] = goal
        return replay_with(episode, instruction, self._rule)

    def _draw_num_new(self, num_unmet: int, rng: np.random.Generator) -> int:
        match self._config.strategy:
            case "all":
                return num_unmet
            case "some":
                return int(rng.integers(num_unmet + 1))
            case "all_or_nothing":
                return num_unmet if rng.random() < self._config.all_probability else 0
            case "none":
                return 0

    def _draw_entries(
        self, episode: Episode, completed: tuple[int, ...], num_new: int, rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        """Up to `num_new` goals from different rows, drawn one after another in proportion to their weights.

        Uniform weighting: each row with goals is equally likely, and each goal within it. By rarity: each goal in
        proportion to its weight. Sorting exponential draws over weights gives just such draws without replacement.
        """
        achieved = achieved_goals(episode)
        offsets, first = achieved.offsets, int(achieved.offsets[1])
        keys = rng.standard_exponential(len(achieved.values) - first)
        if self._frequencies is None:
            num_goals = np.diff(offsets[1:])
            keys /= 1.0 / np.repeat(num_goals, num_goals)
        else:
            rarity = self._frequencies.rarity(achieved.values[first:])
            # Goals met at every step have weight 0: they are taken last, and in random order, not never.
            keys /= np.maximum(rarity**self._config.rarity_exponent, 1e-12)
        taken = set(completed)
        chosen: list[int] = []
        # A few smallest keys of many: looking for each is faster than sorting all.
        for _ in range(len(keys)):
            if len(chosen) == num_new:
                break
            index = int(keys.argmin())
            keys[index] = np.inf
            row = int(offsets.searchsorted(first + index, side="right")) - 1
            if row not in taken:
                taken.add(row)
                chosen.append(first + index)
        return np.array(chosen, np.int64)
