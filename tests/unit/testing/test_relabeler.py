"""The checks of `Relabeler`: everything of ours passes them, and they find what is broken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.custom_parts import Discounted
from helpers.episodes import goal_spec, make_episode

from amago_ray.config.relabel import (
    CustomRelabelConfig,
    HerRelabelConfig,
    InstructionRelabelConfig,
    NoRelabelConfig,
    RelabelConfig,
)
from amago_ray.data import Episode
from amago_ray.relabel import NoRelabeler, make_relabeler
from amago_ray.testing import check_relabeler


def episodes(num_goals: int = 2, **settings: Any) -> list[Episode]:
    return [make_episode(12, counter=seed, seed=seed, num_goals=num_goals, **settings) for seed in range(4)]


@pytest.mark.parametrize(
    "config",
    [
        NoRelabelConfig(),
        InstructionRelabelConfig(),
        InstructionRelabelConfig(strategy="some", weighting="rarity_per_episode"),
        HerRelabelConfig(),
    ],
    ids=str,
)
def test_every_relabeler_of_ours_passes(config: RelabelConfig) -> None:
    num_goals = 1 if isinstance(config, HerRelabelConfig) else 2
    check_relabeler(make_relabeler(config, goal_spec(num_goals)), episodes(num_goals))


def test_the_example_passes_with_and_without_masks() -> None:
    example = Discounted(CustomRelabelConfig(kind="helpers.custom_parts:Discounted"), goal_spec())
    check_relabeler(example, episodes())
    check_relabeler(example, episodes(has_action_mask=True))


class InPlace(NoRelabeler):
    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        episode.rewards[:] = 0
        return episode


class OwnRandomness(NoRelabeler):
    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        rewards = np.random.default_rng().normal(size=len(episode)).astype(np.float32)
        return replace(episode, rewards=rewards)


class GlobalRandomness(NoRelabeler):
    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        np.random.rand()  # noqa: NPY002  (what is to be found)
        return episode


class Empty(NoRelabeler):
    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        leaves = {name: leaf[:1] for name, leaf in episode.observations.items()}
        return replace(episode, observations=leaves, rewards=episode.rewards[:0], actions=episode.actions[:0])


class Ragged(NoRelabeler):
    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        return replace(episode, rewards=episode.rewards[:-1])


class OtherDtype(NoRelabeler):
    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        return replace(episode, actions=episode.actions.astype(np.int8))


class Renamed(NoRelabeler):
    def relabel(self, episode: Episode, rng: np.random.Generator) -> Episode:
        return replace(episode, env_name="relabeled")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (InPlace, "relabel writes into the stored episode"),
        (OwnRandomness, "two generators of equal seed gave different episodes"),
        (GlobalRandomness, "draws from NumPy's global generator"),
        (Empty, "expected 1 to .* transitions, got 0"),
        (Ragged, "an episode that is not valid: .*actions: expected"),
        (OtherDtype, "expected columns .*int64.*, got .*int8"),
        (Renamed, "env_name: expected grid as stored, got relabeled"),
    ],
)
def test_what_breaks_the_contract_is_said(kind: type[NoRelabeler], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_relabeler(kind(), episodes())


def test_storage_is_watched_only_where_that_is_asked_for() -> None:
    class Watching(NoRelabeler):
        watches_storage = True

        def __init__(self) -> None:
            self.seen: list[tuple[str, int]] = []

        def observe(self, episode: Episode) -> None:
            self.seen.append(("observe", episode.episode_id.counter))

        def forget(self, episode: Episode) -> None:
            self.seen.append(("forget", episode.episode_id.counter))

    relabeler = Watching()
    check_relabeler(relabeler, episodes())
    assert relabeler.seen == [(what, counter) for what in ("observe", "forget") for counter in range(4)]
