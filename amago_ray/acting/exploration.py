"""Exploration noise added to the policy's actions while collecting."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from amago_ray.config.module_attr import load_module_attr
from amago_ray.config.rollout import ExplorationConfig
from amago_ray.data.specs import ActionSpec, EnvSpec
from amago_ray.errors import ConfigError


class Exploration(Protocol):
    """What turns the policy's actions into those that are executed.

    A custom one is named `module:attr` in `exploration.kind`, where `attr` is called with `(config: ExplorationConfig,
    spec: EnvSpec, num_envs: int)` and returns an object of this shape, by subclassing or not. Actions are in storage
    form (see `ActionSpec`); all randomness comes from `rng`.
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


class EpsilonExploration:
    """Epsilon noise annealed over training, and within the episode where the schedule is "bilevel".

    "last_step" is for tasks that hang on one choice at the end of a long way on which nothing may go wrong: noise for
    that choice alone leaves the way as the policy walks it.

    Discrete actions (and entries of multi-discrete and multi-binary ones) become uniform random with probability
    epsilon; continuous ones get Gaussian noise of that scale, clipped to the action range.

    Source: AMAGO, appendix on exploration. The schedule follows *global* env steps, so that adding runners does not
    stretch it (Differs: the original counts each environment process by itself).
    """

    def __init__(self, config: ExplorationConfig, spec: EnvSpec, num_envs: int) -> None:
        self._config = config
        self._action = spec.action
        self._factor = np.ones(num_envs)
        self._horizon = config.horizon or spec.horizon
        if config.kind != "epsilon_greedy" and self._horizon is None:
            raise ConfigError(
                f'exploration.horizon: expected a number of steps, because "{config.kind}" needs the episode\'s length '
                f"and {spec.name} does not declare one"
            )

    def begin(self, indices: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
        """Draw each new episode's factor on epsilon."""
        if self._config.randomize_per_episode:
            self._factor[indices] = rng.random(len(indices))

    def epsilon(self, time_index: npt.NDArray[np.int64], env_steps: int) -> npt.NDArray[np.float64]:
        """Epsilon of each environment `[E]` before its episode's factor."""
        config = self._config
        progress = min(env_steps / max(config.anneal_env_steps, 1), 1.0)
        start = config.epsilon_start + progress * (config.epsilon_final - config.epsilon_start)
        if config.kind == "epsilon_greedy":
            return np.full(len(time_index), start)
        end_start, end_final = config.episode_end_epsilon_start, config.episode_end_epsilon_final
        end = end_start + progress * (end_final - end_start)
        assert self._horizon is not None
        if config.kind == "last_step":
            return np.where(time_index < self._horizon - 1, start, end)
        return start + np.minimum(time_index / self._horizon, 1.0) * (end - start)

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


def make_exploration(config: ExplorationConfig, spec: EnvSpec, num_envs: int) -> Exploration:
    """The exploration that `exploration.kind` names.

    Raises: ConfigError if there is none of that name, or it does not fit the environment.
    """
    if config.kind == "none":
        return NoExploration()
    if config.kind in ("bilevel", "epsilon_greedy", "last_step"):
        return EpsilonExploration(config, spec, num_envs)
    exploration: Exploration = load_module_attr("exploration.kind", config.kind)(config, spec, num_envs)
    return exploration
