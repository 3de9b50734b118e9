"""Exploration noise added to the policy's actions while collecting."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from amago_ray.config.exploration import (
    BilevelConfig,
    CustomExplorationConfig,
    EpisodeEndConfig,
    EpsilonConfig,
    EpsilonGreedyConfig,
    ExplorationConfig,
    LastStepConfig,
    NoExplorationConfig,
)
from amago_ray.config.kinds import Registry
from amago_ray.data.specs import ActionSpec, EnvSpec
from amago_ray.errors import ConfigError, DataError


class Exploration(Protocol):
    """What turns the policy's actions into those that are executed.

    A custom one is named `module:attr` in `exploration.kind`, where `attr` is called with
    `(config: CustomExplorationConfig, spec: EnvSpec, num_envs: int, **config.kwargs)` and returns an object of this
    shape, by subclassing or not. Actions are in storage form (see `ActionSpec`); all randomness comes from `rng`.
    """

    def begin(self, indices: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
        """Episodes start in these environments: draw what holds for a whole episode."""
        ...

    def apply(
        self,
        actions: npt.NDArray[np.generic],
        time_index: npt.NDArray[np.int64],
        env_steps: int,
        action_mask: npt.NDArray[np.bool_] | None,
        rng: np.random.Generator,
    ) -> npt.NDArray[np.generic]:
        """The actions `[E, ...]` to execute, given each episode's step count and the run's global `env_steps`."""
        ...


class EpsilonGreedy:
    """Epsilon noise annealed over training.

    Discrete actions (and entries of multi-discrete and multi-binary ones) become uniform random with probability
    epsilon; continuous ones get Gaussian noise of that scale, clipped to the action range.

    Source: docs/algorithm.md §10; AMAGO (arXiv 2310.09971), appendix on exploration.
    Differs: the schedule follows *global* env steps, so that adding runners does not stretch it; the original counts
    each environment process by itself.
    """

    def __init__(self, config: EpsilonConfig, spec: EnvSpec, num_envs: int) -> None:
        self._schedule = config
        self._action = spec.action
        self._factor = np.ones(num_envs)

    def begin(self, indices: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
        """Draw each new episode's factor on epsilon."""
        if self._schedule.randomize_per_episode:
            self._factor[indices] = rng.random(len(indices))

    def epsilon(self, time_index: npt.NDArray[np.int64], env_steps: int) -> npt.NDArray[np.float64]:
        """Epsilon of each environment `[E]` before its episode's factor."""
        schedule = self._schedule
        return np.full(len(time_index), self._annealed(schedule.epsilon_start, schedule.epsilon_final, env_steps))

    def apply(
        self,
        actions: npt.NDArray[np.generic],
        time_index: npt.NDArray[np.int64],
        env_steps: int,
        action_mask: npt.NDArray[np.bool_] | None,
        rng: np.random.Generator,
    ) -> npt.NDArray[np.generic]:
        """The actions `[E, ...]` to execute."""
        epsilon = self.epsilon(time_index, env_steps) * self._factor
        if self._action.kind == "box":
            scale = epsilon.reshape(-1, *[1] * len(self._action.shape))
            noisy = actions.astype(np.float64) + scale * rng.standard_normal(actions.shape)
            return np.clip(noisy, -1.0, 1.0).astype(np.float32)
        explore = rng.random(actions.shape) < epsilon.reshape(-1, *[1] * (actions.ndim - 1))
        if not explore.any():
            return actions
        return np.where(explore, random_actions(self._action, len(actions), action_mask, rng), actions)

    def _annealed(self, first: float, final: float, env_steps: int) -> float:
        progress = min(env_steps / self._schedule.anneal_env_steps, 1.0)
        return first + progress * (final - first)


class _WithinEpisode(EpsilonGreedy):
    """What depends on the episode's length.

    Raises:
        ConfigError: neither the settings nor the environment know it.
    """

    def __init__(self, config: EpisodeEndConfig, spec: EnvSpec, num_envs: int) -> None:
        super().__init__(config, spec, num_envs)
        horizon = config.horizon or spec.horizon
        if horizon is None:
            raise ConfigError(
                f'exploration.horizon: expected a number of steps, because "{config.kind}" needs the episode\'s length '
                f"and {spec.name} does not declare one"
            )
        self._config = config
        self._horizon = horizon

    def _ends(self, env_steps: int) -> tuple[float, float]:
        """Epsilon at an episode's first step and at its horizon."""
        config = self._config
        return (
            self._annealed(config.epsilon_start, config.epsilon_final, env_steps),
            self._annealed(config.episode_end_epsilon_start, config.episode_end_epsilon_final, env_steps),
        )


class Bilevel(_WithinEpisode):
    """Epsilon annealed over training and, linearly, within the episode."""

    def epsilon(self, time_index: npt.NDArray[np.int64], env_steps: int) -> npt.NDArray[np.float64]:
        """Epsilon of each environment `[E]` before its episode's factor."""
        start, end = self._ends(env_steps)
        return start + np.minimum(time_index / self._horizon, 1.0) * (end - start)


class LastStep(_WithinEpisode):
    """Epsilon annealed over training, with one of its own for an episode's last step.

    For tasks that hang on one choice at the end of a long way on which nothing may go wrong: noise for that choice
    alone leaves the way as the policy walks it.
    """

    def epsilon(self, time_index: npt.NDArray[np.int64], env_steps: int) -> npt.NDArray[np.float64]:
        """Epsilon of each environment `[E]` before its episode's factor."""
        start, end = self._ends(env_steps)
        return np.where(time_index < self._horizon - 1, start, end)


class NoExploration:
    """The policy's own actions."""

    def begin(self, indices: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
        """Nothing holds for an episode."""

    def apply(
        self,
        actions: npt.NDArray[np.generic],
        time_index: npt.NDArray[np.int64],
        env_steps: int,
        action_mask: npt.NDArray[np.bool_] | None,
        rng: np.random.Generator,
    ) -> npt.NDArray[np.generic]:
        """The actions as they are."""
        return actions


class CheckedExploration:
    """Passes everything on to `inner`, one of the user's own, and looks at its actions before they are taken."""

    def __init__(self, inner: Exploration, kind: str, action: ActionSpec) -> None:
        self._inner = inner
        self._where = f'exploration.kind: "{kind}"'
        self._action = action
        if action.kind == "box":
            self._low, self._high = np.float64(-1), np.full(action.shape, 1.0)
        else:
            # Bits are categories of two.
            counts = action.num_categories or (2,) * action.num_features
            self._low, self._high = np.float64(0), np.array(counts, np.float64).reshape(action.shape) - 1

    def begin(self, indices: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
        """See `Exploration`."""
        self._inner.begin(indices, rng)

    def apply(
        self,
        actions: npt.NDArray[np.generic],
        time_index: npt.NDArray[np.int64],
        env_steps: int,
        action_mask: npt.NDArray[np.bool_] | None,
        rng: np.random.Generator,
    ) -> npt.NDArray[np.generic]:
        """See `Exploration`.

        Raises:
            DataError: what `inner` returns are no actions in storage form.
        """
        expected = actions.shape
        try:
            chosen: npt.NDArray[Any] = np.asarray(self._inner.apply(actions, time_index, env_steps, action_mask, rng))
        except ValueError as error:
            raise DataError(f"{self._where}: {error}") from error
        if chosen.shape != expected or chosen.dtype.kind not in "biuf":
            raise DataError(
                f"{self._where}: expected actions of shape {list(expected)}, got {chosen.dtype}{list(chosen.shape)}"
            )
        wrong = ~((chosen >= self._low) & (chosen <= self._high))
        if self._action.kind != "box":
            wrong |= chosen != np.rint(chosen)
        if wrong.any():
            kind = "numbers" if self._action.kind == "box" else "whole numbers"
            highest = np.broadcast_to(self._high, expected)[wrong][0]
            raise DataError(
                f"{self._where}: expected actions that are {kind} from {self._low:g} to {highest:g}, "
                f"got {chosen[wrong][0]:g}"
            )
        return chosen.astype(self._action.dtype, copy=False)


def random_actions(
    action: ActionSpec, num_envs: int, action_mask: npt.NDArray[np.bool_] | None, rng: np.random.Generator
) -> npt.NDArray[np.generic]:
    """Uniform random actions `[E, ...]` among the allowed ones, for every kind but "box"."""
    if action.kind == "multi_binary":
        return rng.integers(0, 2, (num_envs, *action.shape), dtype=np.int8)
    columns = []
    first = 0
    for size in action.num_categories:
        if action_mask is None:
            columns.append(rng.integers(0, size, num_envs))
        else:
            # The largest of independent uniform numbers over the allowed entries is a uniform choice among them.
            # They lie in (0, 1], so that an allowed entry always beats a forbidden one.
            scores = (1.0 - rng.random((num_envs, size))) * action_mask[:, first : first + size]
            columns.append(scores.argmax(axis=1))
        first += size
    if action.kind == "discrete":
        return columns[0].astype(np.int64)
    return np.stack(columns, axis=1).astype(np.int64).reshape(num_envs, *action.shape)


EXPLORATIONS: Registry[Exploration] = Registry(
    "exploration.kind",
    {
        BilevelConfig: Bilevel,
        EpsilonGreedyConfig: EpsilonGreedy,
        LastStepConfig: LastStep,
        NoExplorationConfig: lambda config, spec, num_envs: NoExploration(),
    },
    has=("begin", "apply"),
)


def make_exploration(config: ExplorationConfig, spec: EnvSpec, num_envs: int) -> Exploration:
    """The exploration that `config` asks for.

    Raises:
        ConfigError: it does not fit the environment, or a custom one cannot be made.
    """
    exploration = EXPLORATIONS.make(config, spec, num_envs)
    if isinstance(config, CustomExplorationConfig):
        return CheckedExploration(exploration, config.kind, spec.action)
    return exploration
