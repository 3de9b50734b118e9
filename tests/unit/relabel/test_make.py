"""From settings to a relabeler, or to one readable line."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from helpers.episodes import goal_spec, make_episode
from helpers.one_line import one_line

from amago_ray.config.relabel import (
    CustomRelabelConfig,
    HerRelabelConfig,
    InstructionRelabelConfig,
    NoRelabelConfig,
    RelabelConfig,
)
from amago_ray.data import GoalRule, ObservationSpec
from amago_ray.errors import ConfigError, DataError
from amago_ray.relabel import HerRelabeler, InstructionRelabeler, NoRelabeler, Relabeler, make_relabeler


class ReversedReward(Relabeler):
    """A custom relabeler."""

    made_for = None

    def __init__(self, config, spec):
        type(self).made_for = spec

    def relabel(self, episode, rng):
        return replace(episode, rewards=-episode.rewards)


def test_kinds():
    assert isinstance(make_relabeler(NoRelabelConfig(), goal_spec()), NoRelabeler)
    assert isinstance(make_relabeler(InstructionRelabelConfig(), goal_spec()), InstructionRelabeler)
    assert isinstance(make_relabeler(HerRelabelConfig(), goal_spec(1)), HerRelabeler)


def test_none_needs_no_goals_and_returns_the_very_episode():
    episode = make_episode()
    spec = replace(goal_spec(), goal_rule=None, goal_dim=0)
    assert make_relabeler(NoRelabelConfig(), spec).relabel(episode, np.random.default_rng(0)) is episode


def test_custom(monkeypatch):
    module = types.ModuleType("my_relabelers")
    module.make = ReversedReward
    monkeypatch.setitem(sys.modules, "my_relabelers", module)
    spec = goal_spec()
    made = make_relabeler(CustomRelabelConfig(kind="my_relabelers:make"), spec)
    assert ReversedReward.made_for is spec
    assert not made.watches_storage
    episode = make_episode(3, grid=1000)
    assert (made.relabel(episode, np.random.default_rng(0)).rewards == -episode.rewards).all()


@pytest.mark.parametrize(
    ("config", "spec", "message"),
    [
        (InstructionRelabelConfig(), replace(goal_spec(), goal_rule=None), "grid declares no attribute goal_rule"),
        (HerRelabelConfig(), replace(goal_spec(1), goal_rule=None), "grid declares no attribute goal_rule"),
        (
            InstructionRelabelConfig(),
            replace(goal_spec(), observations={}),
            "grid declares no desired_goal in its observations",
        ),
        (HerRelabelConfig(), goal_spec(2), "expected 'instruction' for the 2 goals of grid, got 'her'"),
        (InstructionRelabelConfig(), goal_spec(1, GoalRule(persistent=True)), "expected 'her', got 'instruction'"),
        (
            InstructionRelabelConfig(weighting="rarity_per_step"),
            goal_spec(2, GoalRule(match="within")),
            "expected 'uniform' where goals match within a tolerance",
        ),
        (InstructionRelabelConfig(), replace(goal_spec(), goal_dim=3), "expected rows of 3"),
        (
            InstructionRelabelConfig(),
            replace(goal_spec(), observations={"desired_goal": ObservationSpec("box", (2, 2), "uint8")}),
            "marker -1 does not fit desired_goal's uint8",
        ),
        (CustomRelabelConfig(kind="hindsight"), goal_spec(), 'expected "module:attr", got "hindsight"'),
        (CustomRelabelConfig(kind="no_such_module:make"), goal_spec(), 'cannot import "no_such_module"'),
        (CustomRelabelConfig(kind="json:no_such_name"), goal_spec(), 'expected "module:attr", got "json:no_such_name"'),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(config: RelabelConfig, spec, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_relabeler(config, spec)
    assert "\n" not in str(caught.value)


class Returns:
    """A custom relabeler that returns what a function makes of the episode."""

    watches_storage = False

    def __init__(self, config, spec, change) -> None:
        self.change = change

    def observe(self, episode) -> None:
        """Not called."""

    def forget(self, episode) -> None:
        """Not called."""

    def relabel(self, episode, rng):
        return self.change(episode)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda episode: None, "expected an Episode, got NoneType"),
        (lambda episode: replace(episode, rewards=episode.rewards[:-1]), "actions: expected"),
        (lambda episode: replace(episode, rewards=episode.rewards * np.float32(np.nan)), "expected finite numbers"),
        (lambda episode: replace(episode, rewards=episode.rewards.astype(np.float64)), "rewards: expected float32"),
        (
            lambda episode: replace(episode, actions=episode.actions.astype(np.int32)),
            "actions: expected rows of int64[], got rows of int32[]",
        ),
        (
            lambda episode: replace(episode, observations={"other": next(iter(episode.observations.values()))}),
            "expected rows of",
        ),
    ],
    ids=["nothing", "other length", "NaN", "other dtype", "other actions", "other leaves"],
)
def test_what_a_relabeler_of_ones_own_returns_is_checked(change, words, monkeypatch):
    module = types.ModuleType("own_relabeler")
    module.Returns = Returns
    monkeypatch.setitem(sys.modules, "own_relabeler", module)
    config = CustomRelabelConfig(kind="own_relabeler:Returns", kwargs={"change": change})
    relabeler = make_relabeler(config, goal_spec())

    with pytest.raises(DataError) as error:
        relabeler.relabel(make_episode(), np.random.default_rng(0))

    assert one_line(error).startswith('relabel.kind: "own_relabeler:Returns": ')
    assert words in str(error.value)
