"""Exploration: the schedule, uniform random actions, masks, noise, and what cannot be made."""

from __future__ import annotations

import itertools
import sys
import types
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from helpers.numeric import assert_share
from helpers.one_line import one_line
from helpers.scripted import BOX, DISCRETE, make_spec, with_horizon

from amago_ray.acting.exploration import (
    Bilevel,
    EpsilonGreedy,
    LastStep,
    NoExploration,
    make_exploration,
    random_actions,
)
from amago_ray.config.exploration import (
    BilevelConfig,
    CustomExplorationConfig,
    EpsilonGreedyConfig,
    LastStepConfig,
    NoExplorationConfig,
)
from amago_ray.data.specs import ActionSpec
from amago_ray.errors import ConfigError, DataError

CONFIG = EpsilonGreedyConfig(anneal_env_steps=1000, randomize_per_episode=False)
ALWAYS = replace(CONFIG, epsilon_start=1.0, epsilon_final=1.0)


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


def apply(config: EpsilonGreedyConfig, action: ActionSpec, actions: np.ndarray, mask: np.ndarray | None = None):
    exploration = EpsilonGreedy(config, make_spec(action), len(actions))
    rng = np.random.default_rng(0)
    exploration.begin(np.arange(len(actions)), rng)
    return exploration.apply(actions, np.zeros(len(actions), np.int64), 0, mask, rng)


def test_a13_the_schedule_follows_global_env_steps_alone() -> None:
    """Two explorations that acted unequally often have the same epsilon at the same global step.

    Source: docs/algorithm.md §14.13.
    """
    few, many = (EpsilonGreedy(CONFIG, make_spec(), 2) for _ in range(2))
    rng, time = np.random.default_rng(0), np.zeros(2, np.int64)
    for _ in range(50):
        many.apply(np.zeros(2, np.int64), time, 400, None, rng)
    for env_steps, expected in ((0, 1.0), (500, 0.525), (1000, 0.05), (10**9, 0.05)):
        assert few.epsilon(time, env_steps).tolist() == pytest.approx([expected] * 2)
        assert many.epsilon(time, env_steps).tolist() == few.epsilon(time, env_steps).tolist()


def test_bilevel_epsilon_is_linear_within_the_episode_and_stays_at_its_end() -> None:
    config = BilevelConfig(anneal_env_steps=1000, randomize_per_episode=False)
    exploration = Bilevel(config, with_horizon(make_spec(), 10), 4)
    time = np.array([0, 5, 10, 30])
    assert exploration.epsilon(time, 0).tolist() == pytest.approx([1.0, 0.9, 0.8, 0.8])
    assert exploration.epsilon(time, 1000).tolist() == pytest.approx([0.05, 0.03, 0.01, 0.01])
    own = Bilevel(replace(config, horizon=20), with_horizon(make_spec(), 10), 4)
    assert own.epsilon(time, 0).tolist() == pytest.approx([1.0, 0.95, 0.9, 0.8])


def test_the_last_step_has_an_epsilon_of_its_own() -> None:
    config = LastStepConfig(epsilon_start=0.2, epsilon_final=0.0, episode_end_epsilon_final=0.4, anneal_env_steps=1000)
    exploration = LastStep(config, with_horizon(make_spec(), 10), 3)
    time = np.array([0, 8, 9])
    assert exploration.epsilon(time, 0).tolist() == pytest.approx([0.2, 0.2, 0.8])
    assert exploration.epsilon(time, 1000).tolist() == pytest.approx([0.0, 0.0, 0.4])


@pytest.mark.parametrize("config", [BilevelConfig(), LastStepConfig()], ids=lambda config: config.kind)
def test_schedules_within_the_episode_need_a_horizon(config: BilevelConfig | LastStepConfig) -> None:
    with pytest.raises(ConfigError, match=r"exploration\.horizon") as error:
        make_exploration(config, make_spec(), 2)
    assert "scripted" in one_line(error)
    assert config.kind in one_line(error)


def test_a_factor_is_drawn_for_each_episode_alone() -> None:
    config = replace(ALWAYS, randomize_per_episode=True)
    exploration = EpsilonGreedy(config, make_spec(BOX), 3)
    rng, zeros, time = np.random.default_rng(1), np.zeros((3, 2), np.float32), np.zeros(3, np.int64)
    exploration.begin(np.arange(3), rng)

    def scales() -> np.ndarray:
        noise = [exploration.apply(zeros, time, 0, None, np.random.default_rng(i)) for i in range(400)]
        return np.square(noise).mean((0, 2))

    before = scales()
    assert np.array_equal(scales(), before), "it holds for the whole episode"
    exploration.begin(np.array([1]), rng)
    after = scales()
    assert after[1] != before[1]
    assert after[[0, 2]].tolist() == before[[0, 2]].tolist()
    # Noise so small that none is clipped, the same for every factor.
    exploration = EpsilonGreedy(replace(config, epsilon_start=0.01, epsilon_final=0.01), make_spec(BOX), 3)
    unit, factors = 0.01 * np.random.default_rng(0).standard_normal((3, 2)), []
    for _ in range(2000):
        exploration.begin(np.arange(3), rng)
        noise = exploration.apply(zeros, time, 0, None, np.random.default_rng(0))
        factors.append((noise / unit)[:, 0])
    counts, _ = np.histogram(np.concatenate(factors), 10, (0, 1))
    # 99.9 % quantile for 9 degrees of freedom.
    assert chi_square(counts) < 27.9


@pytest.mark.parametrize(
    "action",
    [DISCRETE, ActionSpec("multi_discrete", (2,), (5, 3)), ActionSpec("multi_binary", (3,))],
    ids=lambda action: action.kind,
)
def test_a13_random_actions_are_uniform(action: ActionSpec) -> None:
    """docs/algorithm.md §14.13: uniform where uniform is meant."""
    number = 6000
    drawn = apply(ALWAYS, action, np.zeros((number, *action.shape), action.dtype)).reshape(number, -1)
    assert drawn.dtype == action.dtype
    sizes = action.num_categories or (2,) * 3
    for column, size in zip(drawn.T, sizes, strict=True):
        counts = np.bincount(column, minlength=size)
        assert counts.size == size
        # 99.999 % quantiles for 1, 2 and 4 degrees of freedom: many columns are looked at.
        assert chi_square(counts) < {2: 19.5, 3: 23.0, 5: 28.4}[size]
    if action.kind == "multi_discrete":
        joint = np.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=15)
        assert chi_square(joint) < 36.1, "entries are independent"


def test_a11_random_actions_honour_masks_and_are_uniform_among_the_allowed() -> None:
    """docs/algorithm.md §14.11."""
    number = 4000
    rng = np.random.default_rng(0)
    mask = rng.random((number, 5)) < 0.5
    mask[np.arange(number), rng.integers(0, 5, number)] = True
    drawn = random_actions(DISCRETE, number, mask, rng)
    assert mask[np.arange(number), drawn].all()
    same = np.tile([True, False, True, True, False], (number, 1))
    counts = np.bincount(random_actions(DISCRETE, number, same, rng), minlength=5)
    assert counts[[1, 4]].tolist() == [0, 0]
    assert chi_square(counts[[0, 2, 3]]) < 13.8
    pairs = ActionSpec("multi_discrete", (2,), (5, 3))
    both = np.concatenate([same, np.tile([False, True, False], (number, 1))], 1)
    drawn = random_actions(pairs, number, both, rng)
    assert set(drawn[:, 0]) == {0, 2, 3}
    assert set(drawn[:, 1]) == {1}


class ZeroRng:
    """Draws nothing but the smallest number."""

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape)


def test_a11_not_even_the_smallest_draw_takes_a_forbidden_action() -> None:
    mask = np.array([[False, False, True, False, False]])
    assert random_actions(DISCRETE, 1, mask, ZeroRng()).tolist() == [2]  # type: ignore[arg-type]


def test_epsilon_is_the_share_of_random_actions() -> None:
    config = replace(CONFIG, epsilon_start=0.3, epsilon_final=0.3)
    for action in (DISCRETE, ActionSpec("multi_discrete", (2,), (5, 5))):
        drawn = apply(config, action, np.full((8000, *action.shape), 4))
        # A fifth of the random ones are the policy's own by chance.
        assert_share((drawn != 4).mean(), 0.3 * 4 / 5, drawn.size)
    assert (apply(replace(config, epsilon_start=0.0), DISCRETE, np.full(500, 4)) == 4).all()


def test_boxes_get_gaussian_noise_that_is_clipped_to_their_range() -> None:
    config = replace(CONFIG, epsilon_start=0.5)
    actions = np.tile(np.array([[0.0, 0.9]], np.float32), (4000, 1))
    noisy = apply(config, BOX, actions)
    assert noisy.dtype == np.float32
    assert np.abs(noisy).max() == 1.0
    for column, bound in itertools.product((0, 1), (-0.9, -0.3, 0.0, 0.4, 0.8)):
        below = NormalDist(actions[0, column], 0.5).cdf(bound)
        assert_share((noisy[:, column] < bound).mean(), below, 4000)
    assert (actions == np.array([0.0, 0.9], np.float32)).all(), "the policy's actions are left alone"


def test_none_is_the_policy_itself() -> None:
    exploration = make_exploration(NoExplorationConfig(), make_spec(), 2)
    assert isinstance(exploration, NoExploration)
    actions = np.array([3, 1])
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    exploration.begin(np.arange(2), rng)
    assert exploration.apply(actions, np.zeros(2, np.int64), 0, None, rng).tolist() == [3, 1]
    assert rng.bit_generator.state == before


class AlwaysLast(NoExploration):
    made_for: tuple[object, ...] = ()

    def __init__(self, config: CustomExplorationConfig, spec: object, num_envs: int, *, scale: float) -> None:
        type(self).made_for = (config.kind, spec, num_envs, scale)


def test_a_custom_exploration_is_made_from_module_and_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_exploration")
    module.AlwaysLast = AlwaysLast  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_exploration", module)
    spec = make_spec()
    make_exploration(CustomExplorationConfig(kind="my_exploration:AlwaysLast", kwargs={"scale": 2.0}), spec, 3)
    assert AlwaysLast.made_for == ("my_exploration:AlwaysLast", spec, 3, 2.0)


@pytest.mark.parametrize(
    "kind", ["greedy", "no_such_module:X", "helpers.scripted:Missing", ":x", "broken_exploration:X"]
)
def test_an_exploration_that_cannot_be_found_is_one_line(
    kind: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_exploration.py").write_text("raise RuntimeError('two\\nlines')\n")  # type: ignore[operator]
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"exploration\.kind") as error:
        make_exploration(CustomExplorationConfig(kind=kind), make_spec(), 1)
    assert kind.partition(":")[0] in one_line(error)


class Answers:
    """An exploration of one's own that answers what it is told to."""

    def __init__(self, config: CustomExplorationConfig, spec: object, num_envs: int, *, answer: object) -> None:
        self.answer = answer

    def begin(self, indices: object, rng: object) -> None:
        """Nothing holds for an episode."""

    def apply(self, *_: object) -> object:
        return self.answer


TWO = ActionSpec("box", (2,), low=(-1.0, -1.0), high=(1.0, 1.0))
FOUR = ActionSpec("discrete", (), (4,))


@pytest.mark.parametrize(
    ("action", "answer", "words"),
    [
        (FOUR, None, "expected actions of shape [3], got object[]"),
        (FOUR, [0, 1], "expected actions of shape [3], got int64[2]"),
        (FOUR, [0, 1, 4], "expected actions that are whole numbers from 0 to 3, got 4"),
        (FOUR, [0, 1, -1], "expected actions that are whole numbers from 0 to 3, got -1"),
        (FOUR, [0.0, 1.0, 0.5], "expected actions that are whole numbers from 0 to 3, got 0.5"),
        (ActionSpec("multi_discrete", (2,), (2, 5)), [[1, 4], [0, 5], [0, 0]], "from 0 to 4, got 5"),
        (ActionSpec("multi_binary", (2,)), [[1, 0], [0, 2], [0, 0]], "from 0 to 1, got 2"),
        (TWO, [[0, 0], [0, 0], [0, np.nan]], "expected actions that are numbers from -1 to 1, got nan"),
        (TWO, [[0, 0], [0, 0], [0, 1.5]], "expected actions that are numbers from -1 to 1, got 1.5"),
        (TWO, [[0, 0], [0], [0, 0]], "inhomogeneous"),
    ],
)
def test_actions_of_an_exploration_of_ones_own_are_checked(
    action: ActionSpec, answer: object, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("my_exploration")
    module.Answers = Answers  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_exploration", module)
    config = CustomExplorationConfig(kind="my_exploration:Answers", kwargs={"answer": answer})
    exploration = make_exploration(config, replace(make_spec(), action=action), 3)
    actions = np.zeros((3, *action.shape), action.dtype)

    with pytest.raises(DataError) as error:
        exploration.apply(actions, np.zeros(3, np.int64), 0, None, np.random.default_rng(0))

    assert one_line(error).startswith('exploration.kind: "my_exploration:Answers": ')
    assert words in str(error.value)


def test_actions_of_an_exploration_of_ones_own_are_taken_in_storage_form(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_exploration")
    module.Answers = Answers  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_exploration", module)
    config = CustomExplorationConfig(kind="my_exploration:Answers", kwargs={"answer": [3.0, 0.0]})
    exploration = make_exploration(config, replace(make_spec(), action=FOUR), 2)

    actions = exploration.apply(np.zeros(2, np.int64), np.zeros(2, np.int64), 0, None, np.random.default_rng(0))

    assert actions.dtype == np.int64
    assert actions.tolist() == [3, 0]
