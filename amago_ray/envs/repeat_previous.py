"""RepeatPrevious: name the suit of the card that was shown some steps ago.

Source: Morad et al., "POPGym: Benchmarking Partially Observable Reinforcement Learning" (arXiv 2303.01859); its Easy
task has one deck and k = 4, Medium two and 32, Hard three and 64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from amago_ray.data.specs import ActionSpec, EnvSpec, ObservationSpec
from amago_ray.envs.drawing import MUTED, PALETTE, GridPicture
from amago_ray.envs.env_batch import EnvEvent, Observations, StepColumns
from amago_ray.envs.kernel import Kernel, require

_NAME = "amago_ray/RepeatPrevious-v0"
_DECK_SIZE = 52
_NUM_SUITS = 4
_ROW = 13


class RepeatPrevious(Kernel):
    """E shuffled stacks of cards, dealt one by one.

    observation: the suit of the card dealt last, discrete of 4. Actions: a suit. With n cards, an episode has n - 1
    steps and is then `terminated`. Once k cards are there, each step pays +1/(n - k) for the suit of the k-th card from
    the end, which is the one shown last where k is 1, and -1/(n - k) for another. The best return is 1.
    Events: "success" at the end, 1 where every answer was right.

    Differs: AMAGO adds the time to what POPGym shows; here the time index is not observed.

    Raises:
        EnvError: no decks, or k is not among 1 to the number of cards less one.
    """

    def __init__(self, num_envs: int, *, num_decks: int = 1, k: int = 4) -> None:
        require(num_decks >= 1, _NAME, f"num_decks: expected at least 1, got {num_decks}")
        num_cards = self._num_cards = _DECK_SIZE * num_decks
        require(1 <= k < num_cards, _NAME, f"k: expected 1 to {num_cards - 1}, got {k}")
        spec = EnvSpec(
            name=_NAME,
            observations={"observation": ObservationSpec("discrete", (), "int64", (_NUM_SUITS,))},
            action=ActionSpec("discrete", (), (_NUM_SUITS,)),
            horizon=num_cards - 1,
        )
        super().__init__(spec, num_envs)
        self._k = k
        self._stack = np.arange(num_cards) % _NUM_SUITS
        # k - 1 cards that no action names precede the first one.
        self._cards = np.full((num_envs, k - 1 + num_cards), -1, np.int64)
        self._time = np.zeros(num_envs, np.int64)
        self._mistakes = np.zeros(num_envs, np.int64)

    def reset(self, indices: npt.NDArray[np.int64], seeds: npt.NDArray[np.int64]) -> Observations:
        """Shuffle, and deal the first card, in each of `indices`."""
        for index, seed in zip(indices.tolist(), seeds.tolist(), strict=True):
            self._cards[index, self._k - 1 :] = np.random.default_rng(seed).permutation(self._stack)
        self._time[indices] = 0
        self._mistakes[indices] = 0
        return Observations(leaves={"observation": self._cards[indices, self._k - 1]})

    def step(self, actions: npt.NDArray[np.generic]) -> StepColumns:
        """Judge the answers, and deal one more card."""
        asked = self._cards[self._all, self._time]
        right = actions == asked
        wrong = (asked >= 0) & ~right
        self._mistakes += wrong
        self._time += 1
        ended = self._time >= self._num_cards - 1
        rewards = (right.astype(np.float32) - wrong) / np.float32(self._num_cards - self._k)
        events = [
            EnvEvent(index, "success", float(not self._mistakes[index])) for index in np.flatnonzero(ended).tolist()
        ]
        return StepColumns(
            observations=Observations(leaves={"observation": self._cards[self._all, self._time + self._k - 1]}),
            rewards=rewards,
            terminated=ended,
            truncated=self._none,
            events=events,
        )

    def render(self, index: int) -> npt.NDArray[np.uint8]:
        """The cards dealt so far, row by row, coloured by suit; the one that is asked for stands out."""
        picture = GridPicture(self._num_cards // _ROW, _ROW)
        time = int(self._time[index])
        asked = time - self._k + 1
        for place in range(self._num_cards):
            suit = PALETTE[int(self._cards[index, self._k - 1 + place])] if place <= time else MUTED
            picture.fill(*divmod(place, _ROW), suit, inset=0.02 if place == asked else 0.15)
        return picture.pixels
