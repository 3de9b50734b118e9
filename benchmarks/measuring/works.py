"""The works that are compared: environments, sizes, settings, and how many times better ours shall be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from measuring.floors import NetworkSize


@dataclass(frozen=True)
class ActingWork:
    """Collecting episodes with an untrained policy."""

    name: str
    environment: str
    """"maze_runner", "dark_key_door", "t_maze" or "repeat_previous"."""
    settings: Mapping[str, Any]
    """Of the environment, under our names."""
    inputs: int
    """Numbers that the timestep encoder reads."""
    episode_length: int
    layers: int
    target: float
    context_length: int
    width: int = 128
    encoder_hidden: int = 128
    encoder_output: int = 256
    auxiliary_discounts: tuple[float, ...] | None = None
    """None: each side's defaults, which are the same."""

    @property
    def size(self) -> NetworkSize:
        """For floors."""
        return NetworkSize(self.inputs, self.encoder_hidden, self.encoder_output, self.width, self.layers)


@dataclass(frozen=True)
class LearningWork:
    """Updates on batches in memory that look like MazeRunner's."""

    name: str
    lengths: tuple[tuple[int, ...], ...]
    """Transitions of each sequence, for each batch; updates take the batches in turn."""
    context_length: int
    target: float
    width: int = 128
    layers: int = 3
    encoder_output: int = 256

    @property
    def size(self) -> NetworkSize:
        """For floors."""
        return NetworkSize(19, 128, self.encoder_output, self.width, self.layers)


@dataclass(frozen=True)
class SolvingWork:
    """Training from a cold start until an evaluation reaches a goal, each side with its own good settings."""

    name: str
    config: str
    """Our shipped config, which names the environment too."""
    environment: str
    settings: Mapping[str, Any]
    measure: str
    """"success" (all goals reached) or "return": what has to reach the goal on average."""
    goal: float
    context_length: int
    encoder_output: int
    original: Mapping[str, Any]
    """The original's settings: what its best known run had."""
    overrides: tuple[str, ...] = ()
    target: float = 3.0
    sizes: Mapping[str, int] = field(default_factory=lambda: {"width": 64, "layers": 2})


MAZE_11 = {"size": 11, "num_goals": 3, "episode_length": 250}
DARK_ROOM = {"size": 9, "trial_length": 500, "attempt_length": 50}
POPGYM_DISCOUNTS = (
    *(0.1, 0.7, 0.9, 0.93, 0.95, 0.98, 0.99, 0.992, 0.994, 0.995, 0.997, 0.998),
    *(0.999, 0.9991, 0.9992, 0.9993, 0.9994, 0.9995),
)
"""Those of the original's POPGym example."""

ACTING = (
    ActingWork("MazeRunner 11x11, 128 x 3", "maze_runner", MAZE_11, 19, 250, 3, target=10.0, context_length=250),
    ActingWork("MazeRunner 11x11, 128 x 2", "maze_runner", MAZE_11, 19, 250, 2, target=10.0, context_length=250),
    ActingWork("DarkKeyDoor 9x9, 128 x 2", "dark_key_door", DARK_ROOM, 10, 500, 2, target=10.0, context_length=500),
    ActingWork(
        "RepeatPreviousEasy, 128 x 2",
        "repeat_previous",
        {"num_decks": 1, "k": 4},
        9,
        51,
        2,
        target=8.0,
        context_length=2000,
        encoder_hidden=512,
        encoder_output=200,
        auxiliary_discounts=POPGYM_DISCOUNTS,
    ),
)


def relabeled_lengths(num_sequences: int, longest: int, mean_share: float = 1 / 3, seed: int = 0) -> tuple[int, ...]:
    """Lengths as relabeling everything to a success leaves them: most are short, and some are whole."""
    shares = np.random.default_rng(seed).exponential(mean_share, num_sequences)
    return tuple(int(length) for length in np.clip(np.round(longest * shares), 1, longest))


def relabeled_batches(num_sequences: int, longest: int, mean_share: float = 1 / 3) -> tuple[tuple[int, ...], ...]:
    """Lengths of several such batches: as in training, hardly any two have the same number of tokens."""
    return tuple(relabeled_lengths(num_sequences, longest, mean_share, seed) for seed in range(32))


LEARNING = (
    LearningWork("24 x 250, 128 x 3", ((250,) * 24,), 250, 3.0),
    LearningWork("24 x 250 relabeled, 128 x 3", relabeled_batches(24, 250), 250, 6.0),
    LearningWork("8 x 500, 128 x 3", ((500,) * 8,), 500, 2.5),
    LearningWork("8 x 1000, 128 x 3", ((1000,) * 8,), 1000, 5.0),
    LearningWork("24 x 250, 256 x 3", ((250,) * 24,), 250, 2.0, width=256),
    LearningWork("16 x 50, 64 x 2", ((50,) * 16,), 50, 4.0, width=64, layers=2),
)

SOLVING = (
    SolvingWork(
        "MazeRunner 7x7 to success 0.95",
        "quickstart",
        "maze_runner",
        {"size": 7, "num_goals": 1, "episode_length": 50},
        "success",
        0.95,
        context_length=50,
        encoder_output=256,
        original={
            "batch_size": 16,
            "updates_per_round": 25,
            "env_steps_per_round": 100,
            "anneal_env_steps": 5_000,
            "reward_multiplier": 10.0,
            "acting_discount": 0.999,
            "relabel": "some",
            "first_evaluation": 12,
            "rounds_between_evaluations": 2,
        },
        overrides=("evaluation.film_at_end=false", "stop.eval_success_rate=0.95"),
    ),
    SolvingWork(
        "T-Maze 20 to return 1.0",
        "t_maze",
        "t_maze",
        {"length": 20},
        "return",
        1.0,
        context_length=21,
        encoder_output=128,
        original={
            "batch_size": 24,
            "updates_per_round": 40,
            "env_steps_per_round": 84,
            "anneal_env_steps": 5_000,
            "reward_multiplier": 100.0,
            "acting_discount": 0.9999,
            "greedy": True,
            "normalize_inputs": False,
            "first_evaluation": 8,
            "rounds_between_evaluations": 1,
        },
        overrides=("stop.eval_return=1.0", "cluster.dashboard=false"),
    ),
    SolvingWork(
        "DarkKeyDoor 4x4 to return 6.5",
        "dark_key_door",
        "dark_key_door",
        {"size": 4, "trial_length": 60, "attempt_length": 15},
        "return",
        6.5,
        context_length=60,
        encoder_output=64,
        original={
            "batch_size": 16,
            "updates_per_round": 25,
            "env_steps_per_round": 120,
            "anneal_env_steps": 6_000,
            "reward_multiplier": 100.0,
            "acting_discount": 0.999,
            "first_evaluation": 30,
            "rounds_between_evaluations": 4,
        },
        overrides=("stop.eval_return=6.5", "stop.env_steps=400000", "cluster.dashboard=false"),
    ),
)

SUITES: Mapping[str, tuple[ActingWork, ...] | tuple[LearningWork, ...] | tuple[SolvingWork, ...]] = {
    "acting": ACTING,
    "learning": LEARNING,
    "solve": SOLVING,
}


def describe(work: ActingWork | LearningWork | SolvingWork) -> dict[str, Any]:
    """The work as plain data."""
    return asdict(work)
