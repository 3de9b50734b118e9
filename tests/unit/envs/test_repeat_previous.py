"""RepeatPrevious: the suit of the k-th card from the end; +-1/(n - k); n - 1 steps."""

import numpy as np
import pytest
from helpers.numeric import assert_rounded
from helpers.one_line import one_line

from amago_ray.envs.repeat_previous import RepeatPrevious
from amago_ray.errors import EnvError


def play(env: RepeatPrevious, seeds: list[int], answer) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]:
    """Suits `[E, n]`, rewards `[E, n - 1]`, ends and successes; `answer(suits so far [E, t + 1])` gives the actions."""
    first = env.reset(np.arange(env.num_envs), np.asarray(seeds)).leaves["observation"].copy()
    suits, rewards, ends, successes = [first], [], [], []
    while not (ends and ends[-1].all()):
        columns = env.step(answer(np.stack(suits, 1)))
        suits.append(columns.observations.leaves["observation"].copy())
        rewards.append(columns.rewards.copy())
        ends.append(columns.terminated.copy())
        assert not columns.truncated.any()
        successes += [event.value for event in columns.events if event.name == "success"]
    return np.stack(suits, 1), np.stack(rewards, 1), np.stack(ends, 1), successes


def recall(k: int):
    return lambda suits: suits[:, -k] if suits.shape[1] >= k else np.zeros(len(suits), np.int64)


@pytest.mark.parametrize(("num_decks", "k"), [(1, 1), (1, 4), (2, 32), (3, 64), (1, 51)])
def test_perfect_memory_earns_one(num_decks: int, k: int) -> None:
    suits, rewards, ends, successes = play(RepeatPrevious(3, num_decks=num_decks, k=k), [0, 1, 2], recall(k))
    num_cards = 52 * num_decks
    assert suits.shape == (3, num_cards)
    assert all(np.bincount(row).tolist() == [13 * num_decks] * 4 for row in suits), "every card is dealt once"
    assert (rewards[:, : k - 1] == 0).all(), "nothing is asked before k cards are there"
    assert (rewards[:, k - 1 :] == np.float32(1 / (num_cards - k))).all()
    assert_rounded(rewards.sum(1), 1.0, roundings=num_cards)
    assert ends.sum(1).tolist() == [1, 1, 1]
    assert successes == [1.0] * 3


def test_wrong_answers_cost_as_much_and_spoil_success() -> None:
    _, rewards, _, successes = play(RepeatPrevious(2), [5, 6], lambda suits: (recall(4)(suits) + 1) % 4)
    assert (rewards[:, :3] == 0).all()
    assert (rewards[:, 3:] == np.float32(-1 / 48)).all()
    assert successes == [0.0, 0.0]


def test_remembering_one_card_too_few_is_not_enough() -> None:
    _, rewards, _, successes = play(RepeatPrevious(64), list(range(64)), recall(3))
    assert abs(rewards.sum(1).mean() - (-0.5)) < 0.1
    assert successes == [0.0] * 64


def test_a_new_episode_is_shuffled_anew_and_follows_from_its_seed() -> None:
    env = RepeatPrevious(2)
    first = play(env, [1, 2], recall(4))[0]
    second = play(env, [2, 3], recall(4))[0]
    assert (first[1] == second[0]).all()
    assert (first[0] != second[1]).any()


@pytest.mark.parametrize(
    ("settings", "said"), [({"num_decks": 0}, "num_decks"), ({"k": 0}, "k:"), ({"k": 52}, "1 to 51")]
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], said: str) -> None:
    with pytest.raises(EnvError, match=said) as error:
        RepeatPrevious(1, **settings)
    assert "RepeatPrevious" in one_line(error)
